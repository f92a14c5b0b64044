"""A VOC-style image set as plain arrays: `load` reads a folder, and every task trains on the `Data` it returns.

A module imports only from lower floors (tests/test_architecture.py checks this):

    9  __main__
    8  __init__
    7  description, digits, named_sets
    6  content, convert, decode, sample, validation
    5  agreement
    4  discovery
    3  layouts
    2  dataset, mask_files
    1  class_names, corrections, image_files
    0  array_file, cache, palette, resizing, sample_classes, split, text_files

`load` imports most of them when it is called, so that `--help` does not wait for pandas and Pillow.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voctrain.config import RESIZE
from voctrain.data.cache import cache_dir
from voctrain.data.dataset import FOLD, OWN_VAL, Data, DataSource

if TYPE_CHECKING:
    from voctrain.data.content import Content
    from voctrain.data.layouts.listing import Listing

__all__ = ["DIGITS", "FOLD", "OWN_VAL", "Data", "DataSource", "cache_dir", "load", "original_masks"]

MOST_DETAIL = 8 * 2**30  # bytes of the larger copies of images and masks
DIGITS = ("digits", "mnist")  # grayscale sets with exactly one class per image


def load(
    path: str | Path,
    *,
    image_size: int,
    store_size: int = 0,
    use_val: bool = False,
    val: str | Path | Sequence[str] | None = None,
    group_by: str | None = None,
    resize: str = "squash",
    classes: str | Path | None = None,
    mask_values: Sequence[str] = (),
    skip_bad: bool = False,
    corrections: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Read a set, resize it to `image_size` × `image_size` pixels, and split it (stratified, 80 % train).

    Args:
        path: a folder in one of the layouts in `voctrain.data.layouts`, or the name of a built-in set: "sample"
            (synthetic), "voc2009" (downloaded), and for attacks "digits" or "mnist". Write ./sample for a folder with
            one of these names.
        image_size: in pixels, at least 1.
        store_size: if it is larger, the labeled images are also kept at this size, as `Data.detail`, or at the largest
            for which they take `MOST_DETAIL` bytes.
        use_val: adds the images in the devkit's val.txt to the labeled images.
        val: which labeled images are for validation instead: "val.txt" (the set's own validation part, which is added
            to the labeled images), "K/N" (fold K of N, from 1), a file that lists their ids, or the ids.
        group_by: a regular expression; images whose ids have the same first group, or match, are on the same side.
        resize: "squash" ignores the aspect ratio of an image, "pad" adds black borders (void in masks), "crop" keeps
            the largest centered square. Labels always are those of the whole image.
        classes: a file with the class names, which takes the place of the set's own list.
        mask_values: what values in the masks mean, such as "255=1" or "7=cell".
        skip_bad: leaves out images whose files cannot be read, and says so in the warnings.
        corrections: a table with columns image, class and action, such as the audit.csv of a run: "ignore" leaves the
            image out, "flip" changes the label of that class to its opposite, in `Data.labels` and not in masks.
        progress: called with the number of decoded images and the total, first with 0. A cached set is not decoded.

    The resized arrays are mapped from a file in `cache_dir()`, named after the fingerprint of the set's content.

    Raises:
        ValueError: the folder has none of the layouts; a file is missing, damaged or malformed; the classes cannot be
            told; the labels can teach nothing; a correction names what is not there; the split is impossible; or a
            download failed.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, but got {image_size}: use a size such as 300")
    if resize not in RESIZE:
        raise ValueError(f"resize must be one of {', '.join(RESIZE)}, but got {resize!r}")
    if isinstance(path, str) and path in DIGITS:
        from voctrain.data import digits

        if val or group_by is not None or corrections is not None:
            raise ValueError(
                f"--val, --group-by and --corrections need a folder of images, but got {path}: leave them out"
            )
        return replace(digits.load(path, image_size), resize=resize)  # they are square
    val = str(val) if isinstance(val, Path) else val
    source = _source(path, use_val, val == OWN_VAL, classes, tuple(mask_values), skip_bad, corrections)
    return _load_folder(path, source, (image_size, max(store_size, image_size)), resize, val, group_by, progress)


def _load_folder(
    path: str | Path,
    source: DataSource,
    size_and_store_size: tuple[int, int],
    resize: str,
    val: str | Sequence[str] | None,
    group_by: str | None,
    progress: Callable[[int, int], None],
) -> Data:
    from voctrain.data import decode
    from voctrain.data.validation import Split, check_parts

    whole, content = _contents(path, source, progress)
    listing = content.of(whole)
    corrections = source.corrections
    skipped = content.skipped(whole)
    image_size, store_size = size_and_store_size
    store_size = max(image_size, min(store_size, math.isqrt(MOST_DETAIL // 4 // max(len(listing.examples), 1))))
    split = Split(listing, val, group_by, (*skipped, *(corrections.ignored if corrections else ())))
    sizes = dict.fromkeys((str(image_size), str(store_size)))
    name = "-".join([content.fingerprint, *sizes, *([resize] * (resize != "squash")), f"v{decode.FORMAT}"])
    arrays, notes, file = decode.read_or_build(
        cache_dir() / "sets" / f"{name}.arrays",
        decode.shapes_of(listing, image_size, store_size),
        lambda write: decode.decode_images(listing, image_size, store_size, resize, progress, write),
    )
    labels, fingerprint = arrays["labels"], content.fingerprint
    if corrections is not None:
        labels = corrections.applied_to(labels, listing.ids, listing.classes.names)
        fingerprint, notes = corrections.fingerprint(fingerprint), (*notes, str(corrections))
    train, validation = split.indices(labels)
    check_parts(labels, train, validation)
    return Data(
        ids=listing.ids,
        images=arrays["images"],
        labels=labels,
        masks=arrays.get("masks"),
        train=train,
        val=validation,
        test_ids=listing.test_ids,
        test_images=arrays["test_images"],
        sizes=arrays["sizes"],
        test_sizes=arrays["test_sizes"],
        classes=listing.classes.names,
        fingerprint=fingerprint,
        warnings=(
            *decode.content_warnings(listing, labels, train, validation, skipped),
            *split.warnings(validation),
            *notes,
        ),
        source=source,
        class_source=listing.classes.source,
        resize=resize,
        detail=arrays.get("detail"),
        detail_masks=arrays.get("detail_masks"),
        groups=split.groups,
        file=file,
    )


def _contents(
    path: str | Path, source: DataSource, progress: Callable[[int, int], None] = lambda done, total: None
) -> "tuple[Listing, Content]":
    """All files of a set but those that a correction leaves out, and what is in them.

    path: that of the source, as the user wrote it. progress: is called once, with 0 and the number of images.
    """
    from voctrain.data import layouts, named_sets
    from voctrain.data.content import read_content

    listing = layouts.read_layout(
        named_sets.folder_of(path),
        use_val=source.use_val,
        own_val=source.own_val,
        classes=source.classes,
        mask_values=source.mask_values,
    )
    if (corrections := source.corrections) is not None:
        corrections.check_images(listing.ids)
        listing = listing.only([name not in corrections.ignored for name in listing.ids], [True] * len(listing.tests))
    progress(0, len(listing.examples) + len(listing.tests))
    return listing, read_content(listing, skip_bad=source.skip_bad)


def _source(
    path: str | Path,
    use_val: bool,
    own_val: bool,
    classes: str | Path | None,
    mask_values: tuple[str, ...],
    skip_bad: bool,
    corrections: str | Path | None,
) -> DataSource:
    from voctrain.data.corrections import Corrections
    from voctrain.data.named_sets import NAMES

    # Absolute: the working directory may change, and a relative folder may have the name of a built-in set.
    def absolute(file: str | Path) -> str:
        return os.path.abspath(Path(file).expanduser())

    return DataSource(
        path=str(path) if path in NAMES else absolute(path),
        use_val=use_val,
        own_val=own_val,
        classes=None if classes is None else absolute(classes),
        mask_values=mask_values,
        skip_bad=skip_bad,
        corrections=None if corrections is None else Corrections.read(Path(absolute(corrections))),
    )


def original_masks(data: Data, ids: Iterable[str]) -> Iterator[np.ndarray]:
    """Read the masks of these labeled images at their original sizes, uint8 (H, W), one at a time.

    An image without a mask yields an all-void one. Raises `ValueError` for data that was not read from a folder, or if
    the folder's files no longer form a valid set, and `KeyError` for an unknown id.
    """
    from voctrain.data.class_names import VOID

    if data.source is None or data.source.path in DIGITS:
        raise ValueError(
            "original masks must be in a folder, but this data was not read from one: use a set with masks"
        )
    listing, content = _contents(data.source.path, data.source)
    listing = content.of(listing)
    index = {name: i for i, name in enumerate(listing.ids)}
    for name in ids:
        image, mask, _ = listing.read(index[name])
        yield np.full(image.shape[:2], VOID, np.uint8) if mask is None else mask
