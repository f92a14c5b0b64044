"""A VOC-style image set as plain arrays: `load` reads it from a folder, `Data` is what every task takes."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voctrain.data.download import cache_dir

__all__ = ["DIGITS", "Data", "cache_dir", "load", "original_masks"]

DIGITS = ("digits", "mnist")  # sets of one channel and exclusive classes


@dataclass(frozen=True, eq=False)
class Data:
    """N labeled and M unlabeled images, resized to squares of side S, and one split of the labeled ones.

    The arrays may be shared between processes: index them, never write to them.
    """

    ids: tuple[str, ...]  # (N,)
    images: np.ndarray  # uint8 (N, S, S, 3)
    labels: np.ndarray  # uint8 (N, C), 0 or 1
    masks: np.ndarray | None  # uint8 (N, S, S), 0..20 and 255 for void
    train: np.ndarray  # int64, sorted indices into the N
    val: np.ndarray
    test_ids: tuple[str, ...]  # (M,)
    test_images: np.ndarray  # uint8 (M, S, S, 3)
    sizes: np.ndarray  # int32 (N, 2), original height and width
    test_sizes: np.ndarray  # int32 (M, 2)
    classes: tuple[str, ...]  # (C,)
    fingerprint: str  # hex, of the content and of which files are used; not of the folder's name or the image size
    warnings: tuple[str, ...]  # one line each

    def with_split(self, train_ids: Iterable[str], val_ids: Iterable[str]) -> "Data":
        """The same data split so. Raises `ValueError` unless each id of the set is in exactly one of the two."""
        train_ids, val_ids = list(train_ids), list(val_ids)
        given, index = train_ids + val_ids, {name: i for i, name in enumerate(self.ids)}
        wrong = set(given).symmetric_difference(index) or {name for name, n in Counter(given).items() if n > 1}
        if wrong:
            raise ValueError(
                f"a split must hold each id of the data once, but {len(wrong)} differ, such as {min(wrong)!r}:"
                f" give the data that the split was made for"
            )
        train, val = (np.array(sorted(index[i] for i in side), np.int64) for side in (train_ids, val_ids))
        return dataclasses.replace(self, train=train, val=val)

    def all_train(self) -> "Data":
        """The same data with every labeled image in train and none in validation."""
        return dataclasses.replace(self, train=np.arange(len(self.ids)), val=np.arange(0))


def load(
    path: str | Path,
    *,
    image_size: int,
    use_val: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Read a set, resized to `image_size` pixels a side and split into train and validation (80:20, stratified).

    `path` is a folder in the Kaggle or the devkit layout (SEED.md §1), "sample" (drawn) or "voc2009" (downloaded), or
    for attacks "digits" or "mnist"; a folder of such a name is given as ./sample. `use_val` adds the devkit's val.txt
    to the labeled images. `progress` is told how many images are read and how many there are, beginning with 0.

    The squares are kept in `cache_dir()`, found again by the content of the set. Raises `ValueError` for a folder of
    neither layout, a missing, damaged or ill-formed file, other classes than VOC's, or fewer labeled images than
    classes.
    """
    from voctrain.data import download, layouts, prepare

    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, but got {image_size}: give a size such as 300")
    if path in DIGITS:
        from voctrain.data import digits

        return digits.load(path, image_size)
    source = layouts.read_source(download.folder_of(path), use_val=use_val)
    progress(0, len(source.ids) + len(source.test_ids))
    layouts.check_content(source)
    fingerprint = prepare.fingerprint(source)
    name = f"{fingerprint}-{image_size}{'-val' if use_val else ''}-v{prepare.FORMAT}.npz"
    arrays, warnings = prepare.cached(
        cache_dir() / "sets" / name, lambda: prepare.prepare(source, image_size, progress)
    )
    return Data(
        ids=source.ids,
        test_ids=source.test_ids,
        classes=layouts.VOC_CLASSES,
        fingerprint=fingerprint,
        warnings=prepare.remarks(source, arrays) + warnings,
        **{"masks": None} | arrays,
    )


def original_masks(path: str | Path, ids: Iterable[str], *, use_val: bool = False) -> Iterator[np.ndarray]:
    """The masks of these labeled images at their original sizes, uint8 (H, W), one after the other; none: all void.

    path, use_val: as `load` takes them. Raises `ValueError` as `load` does.
    """
    from voctrain.data import download, layouts

    source = layouts.read_source(download.folder_of(path), use_val=use_val)
    index = {name: i for i, name in enumerate(source.ids)}
    for name in ids:
        image, mask, _ = source.read(index[name])
        yield np.full(image.shape[:2], layouts.VOID, np.uint8) if mask is None else mask
