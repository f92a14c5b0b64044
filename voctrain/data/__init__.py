"""A VOC-style image set as plain arrays: `load` reads a folder, and every task trains on the `Data` it returns.

A module imports only from lower floors (tests/test_architecture.py checks this):

    8  __main__
    7  __init__
    6  description, digits, named_sets
    5  convert, decode, sample
    4  discovery
    3  layouts
    2  mask_files
    1  class_names, image_files
    0  array_file, cache, dataset, palette, resizing, sample_classes, split, text_files

`load` imports most of them when it is called, so that `--help` does not wait for pandas and Pillow.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from voctrain.config import RESIZE
from voctrain.data.cache import cache_dir
from voctrain.data.dataset import Data, DataSource

__all__ = ["DIGITS", "Data", "DataSource", "cache_dir", "load", "original_masks"]

DIGITS = ("digits", "mnist")  # grayscale sets with exactly one class per image


def load(
    path: str | Path,
    *,
    image_size: int,
    use_val: bool = False,
    resize: str = "squash",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Read a set, resize it to `image_size` × `image_size` pixels, and split it (stratified, 80 % train).

    Args:
        path: a folder in the Kaggle or devkit layout, or the name of a built-in set: "sample" (synthetic), "voc2009"
            (downloaded), and for attacks "digits" or "mnist". Write ./sample for a folder with one of these names.
        image_size: in pixels, at least 1.
        use_val: adds the images in the devkit's val.txt to the labeled images.
        resize: "squash" ignores the aspect ratio of an image, "pad" adds black borders (void in masks), "crop" keeps
            the largest centered square. Labels always are those of the whole image.
        progress: called with the number of decoded images and the total, first with 0. A cached set is not decoded.

    The resized arrays are cached in `cache_dir()` under the fingerprint of the set's content.

    Raises:
        ValueError: the folder has neither layout; a file is missing, damaged or malformed; the classes are not VOC's;
            there are fewer labeled images than classes; or a download failed.
    """
    from voctrain.data import decode, discovery, layouts, named_sets

    _check_shape(image_size, resize)
    if isinstance(path, str) and path in DIGITS:
        from voctrain.data import digits

        return replace(digits.load(path, image_size), resize=resize)  # they are square
    listing = layouts.read_layout(named_sets.folder_of(path), use_val=use_val)
    progress(0, len(listing.ids) + len(listing.test_ids))
    listing = discovery.with_classes(listing)
    fingerprint = decode.fingerprint(listing)
    variant = f"{'-val' if use_val else ''}{'' if resize == 'squash' else f'-{resize}'}"
    name = f"{fingerprint}-{image_size}{variant}-v{decode.FORMAT}.npz"
    arrays, cache_warnings = decode.read_or_build(
        cache_dir() / "sets" / name, lambda: decode.decode_images(listing, image_size, resize, progress)
    )
    return Data(
        ids=listing.ids,
        images=arrays["images"],
        labels=arrays["labels"],
        masks=arrays.get("masks"),
        train=arrays["train"],
        val=arrays["val"],
        test_ids=listing.test_ids,
        test_images=arrays["test_images"],
        sizes=arrays["sizes"],
        test_sizes=arrays["test_sizes"],
        classes=listing.classes.names,
        fingerprint=fingerprint,
        warnings=decode.content_warnings(listing, arrays) + cache_warnings,
        source=_source(path, use_val),
        resize=resize,
    )


def _check_shape(image_size: int, resize: str) -> None:
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, but got {image_size}: use a size such as 300")
    if resize not in RESIZE:
        raise ValueError(f"resize must be one of {', '.join(RESIZE)}, but got {resize!r}")


def _source(path: str | Path, use_val: bool) -> DataSource:
    from voctrain.data.named_sets import NAMES

    # Absolute: the working directory may change, and a relative folder may have the name of a built-in set.
    return DataSource(str(path) if path in NAMES else os.path.abspath(Path(path).expanduser()), use_val)


def original_masks(data: Data, ids: Iterable[str]) -> Iterator[np.ndarray]:
    """Read the masks of these labeled images at their original sizes, uint8 (H, W), one at a time.

    An image without a mask yields an all-void one. Raises `ValueError` for data that was not read from a folder, or if
    the folder's files no longer form a valid set, and `KeyError` for an unknown id.
    """
    from voctrain.data import discovery, layouts, named_sets
    from voctrain.data.class_names import VOID

    if data.source is None or data.source.path in DIGITS:
        raise ValueError(
            "original masks must be in a folder, but this data was not read from one: use a set with masks"
        )
    listing = layouts.read_layout(named_sets.folder_of(data.source.path), use_val=data.source.use_val)
    listing = discovery.with_classes(listing)
    index = {name: i for i, name in enumerate(listing.ids)}
    for name in ids:
        image, mask, _ = listing.read(index[name])
        yield np.full(image.shape[:2], VOID, np.uint8) if mask is None else mask
