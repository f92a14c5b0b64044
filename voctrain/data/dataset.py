"""`Data`: the arrays that every task trains on, with one split and a record of where they came from."""

import dataclasses
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from voctrain.data.array_file import ArrayFile, open_arrays
from voctrain.data.class_names import VOID
from voctrain.data.corrections import Corrections
from voctrain.data.split import stratified_folds

# Choices of validation images; ./val.txt is a file.
OWN_VAL = "val.txt"  # the set's own validation part
FOLD = r"(\d+)/(\d+)"  # fold K of N


@dataclass(frozen=True)
class DataSource:
    """What `load` was asked for: enough to find the original files again."""

    path: str  # the name of a built-in set, or the absolute path of a folder
    use_val: bool = False  # whether the devkit's val.txt was added to the labeled images
    own_val: bool = False  # whether the set's own validation part was
    classes: str | None = None  # the user's class list, an absolute path
    mask_values: tuple[str, ...] = ()  # what the user said about mask values
    skip_bad: bool = False  # whether images whose files are bad were left out
    corrections: Corrections | None = None  # images that were left out, and labels that were flipped


@dataclass(frozen=True, eq=False)
class Data:
    """N labeled and M unlabeled images, resized to squares of side S, with one split of the labeled ones.

    Processes share the arrays: read them, never write to them. Arrays that are mapped from a file are pickled as a
    reference to it, which only processes that see this file can unpickle; without `file`, they are pickled as arrays.
    """

    ids: tuple[str, ...]  # (N,)
    images: np.ndarray  # uint8 (N, S, S, 3)
    labels: np.ndarray  # uint8 (N, C), 0 or 1
    masks: np.ndarray | None  # uint8 (N, S, S), 0..C and 255 for void
    train: np.ndarray  # int64, sorted indices into the N labeled images
    val: np.ndarray
    test_ids: tuple[str, ...]  # (M,)
    test_images: np.ndarray  # uint8 (M, S, S, 3)
    sizes: np.ndarray  # int32 (N, 2), original height and width
    test_sizes: np.ndarray  # int32 (M, 2)
    classes: tuple[str, ...]  # (C,)
    fingerprint: str  # hex digest of the content and of the files used; ignores the folder's name and the image size
    warnings: tuple[str, ...]  # one line each
    source: DataSource | None = None  # None: the arrays were made in memory
    class_source: str = "memory"  # where the class list comes from, for people
    resize: str = "squash"  # how the images became squares: squash, pad or crop
    detail: np.ndarray | None = None  # uint8 (N, D, D, 3), the images once more with D > S, for training on crops
    detail_masks: np.ndarray | None = None  # uint8 (N, D, D)
    soft_labels: np.ndarray | None = None  # float32 (N, C) in [0, 1], to train on in place of `labels`
    groups: tuple[str, ...] | None = None  # (N,), the images of a group belong on one side of a split
    file: ArrayFile | None = field(default=None, repr=False)  # that arrays above are mapped from, under their names

    def __reduce__(self) -> tuple[object, ...]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.file is None:
            return Data._from_values, (values,)
        mapped = [name for name, array in self.file.arrays.items() if values[name] is array]
        for name in ("file", *mapped):
            del values[name]
        return Data._from_file, (values, mapped, self.file.path, self.file.checksum)

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> "Data":
        return cls(**values)

    @classmethod
    def _from_file(cls, values: dict[str, Any], mapped: list[str], path: Path, checksum: str) -> "Data":
        file = open_arrays(path)
        if file is None or file.checksum != checksum:
            raise ValueError(
                f"{socket.gethostname()} does not see the prepared images {path}: set XDG_CACHE_HOME to a folder that"
                " all machines share, or start the command again"
            )
        arrays: dict[str, Any] = {name: file.arrays[name] for name in mapped}
        return cls(**values, **arrays, file=file)

    def with_split(self, train_ids: Iterable[str], val_ids: Iterable[str]) -> "Data":
        """The same data with another split. Raises `ValueError` unless each id is in exactly one of the two parts."""
        train_ids, val_ids = list(train_ids), list(val_ids)
        given, index = train_ids + val_ids, {name: i for i, name in enumerate(self.ids)}
        wrong = set(given).symmetric_difference(index) or {name for name, n in Counter(given).items() if n > 1}
        if wrong:
            raise ValueError(
                f"a split must contain each id of the data exactly once, but {len(wrong)} do not match, such as"
                f" {min(wrong)!r}: use the data that the split was made for"
            )
        train, val = (np.array(sorted(index[i] for i in side), np.int64) for side in (train_ids, val_ids))
        return dataclasses.replace(self, train=train, val=val)

    def fold(self, number: int, folds: int) -> "Data":
        """The same data with fold `number` of `folds`, counted from 1, as its validation part.

        The folds are stratified by class and by whether an image has a mask, and groups stay together. They are the
        same for all data of the same images. Raises `ValueError` for fewer images, or groups, than folds.
        """
        labels = self.labels
        if self.masks is not None:
            masked = np.array([(mask != VOID).any() for mask in self.masks], np.uint8)
            if not masked.all():  # every fold gets its share of the masks
                labels = np.concatenate([labels, masked[:, None]], axis=1)
        val = stratified_folds(labels, folds, groups=self.groups)[number - 1]
        return dataclasses.replace(self, train=np.setdiff1d(np.arange(len(self.ids)), val), val=val)

    def all_train(self) -> "Data":
        """The same data with every labeled image in the training part and none in validation."""
        return dataclasses.replace(self, train=np.arange(len(self.ids)), val=np.arange(0))
