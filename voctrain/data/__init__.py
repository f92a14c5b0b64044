"""A VOC-style image set as plain arrays. `load` reads it from a folder; every task trains on the `Data` it returns.

Modules import only modules to their left, which a test checks:

    cache, class_names, dataset, split | palette | layouts | convert, decode, sample | digits, named_sets | this one

Most of them are imported where they are used, so that `--help` does not wait for pandas and Pillow.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from voctrain.data.cache import cache_dir
from voctrain.data.dataset import Data, DataSource

__all__ = ["DIGITS", "Data", "DataSource", "cache_dir", "load", "original_masks"]

DIGITS = ("digits", "mnist")  # sets with one channel and exclusive classes


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
    from voctrain.data import decode, layouts, named_sets

    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, but got {image_size}: give a size such as 300")
    if path in DIGITS:
        from voctrain.data import digits

        return digits.load(path, image_size)
    listing = layouts.read_layout(named_sets.folder_of(path), use_val=use_val)
    progress(0, len(listing.ids) + len(listing.test_ids))
    layouts.check_content(listing)
    fingerprint = decode.fingerprint(listing)
    name = f"{fingerprint}-{image_size}{'-val' if use_val else ''}-v{decode.FORMAT}.npz"
    arrays, warnings = decode.cached(
        cache_dir() / "sets" / name, lambda: decode.decode_images(listing, image_size, progress)
    )
    return Data(
        ids=listing.ids,
        test_ids=listing.test_ids,
        classes=layouts.VOC_CLASSES,
        fingerprint=fingerprint,
        warnings=decode.warn_about(listing, arrays) + warnings,
        source=DataSource(str(path) if path in named_sets.NAMES else os.path.abspath(Path(path).expanduser()), use_val),
        **{"masks": None} | arrays,
    )


def original_masks(data: Data, ids: Iterable[str]) -> Iterator[np.ndarray]:
    """The masks of these labeled images at their original sizes, uint8 (H, W), read one at a time.

    An image without a mask yields one that is all void. Raises `ValueError` for data without original files, for files
    that changed since `load` so that they are no longer a valid set, and `KeyError` for an unknown id.
    """
    from voctrain.data import layouts, named_sets

    if data.source is None or data.source.path in DIGITS:
        raise ValueError("original masks must come from a folder, but these data have none: use data from `load`")
    listing = layouts.read_layout(named_sets.folder_of(data.source.path), use_val=data.source.use_val)
    index = {name: i for i, name in enumerate(listing.ids)}
    for name in ids:
        image, mask, _ = listing.read(index[name])
        yield np.full(image.shape[:2], layouts.VOID, np.uint8) if mask is None else mask
