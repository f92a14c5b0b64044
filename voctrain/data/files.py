"""Reading one image, mask or annotation file, with one-line errors for damaged and malformed ones."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from voctrain.data.class_names import VOC_CLASSES, object_names
from voctrain.data.palette import check_palette

VOID = 255  # mask value of pixels without a class: object borders and unlabeled regions


def read_image(path: Path) -> np.ndarray:
    """Read an image, uint8 (H, W, 3), from a .npy or image file. Raises `ValueError` if the file is neither."""
    if path.suffix != ".npy":
        with naming_file(path), Image.open(path) as file:
            return np.array(file.convert("RGB"))
    image = _read_npy(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"images must be uint8 (height, width, 3), but {path} is {image.dtype} {image.shape}: convert it"
        )
    return image


def read_mask(path: Path) -> np.ndarray:
    """Read a label map, uint8 (H, W) of 0..20 and 255, from a .npy or PNG file. Raises `ValueError` for a bad file."""
    if path.suffix == ".npy":
        mask = _read_npy(path)
    else:
        with naming_file(path), Image.open(path) as file:
            mode, mask = file.mode, np.array(file)
            palette = file.getpalette()
        if mode not in ("P", "L"):
            raise ValueError(
                f"masks must be 8-bit palette or grayscale PNGs of class numbers, but {path} has mode {mode}: convert"
                " it to 0 for background, 1..20 for VOC's classes and 255 for void"
            )
        if palette:
            check_palette(path, np.array(palette, np.uint8).reshape(-1, 3), mask)
    if not np.issubdtype(mask.dtype, np.integer) or mask.ndim != 2 or not mask.size:
        raise ValueError(f"masks must be integers (height, width), but {path} is {mask.dtype} {mask.shape}: convert it")
    wrong = (mask < 0) | (mask > len(VOC_CLASSES)) & (mask != VOID)
    if wrong.any():
        raise ValueError(
            f"mask values must be 0, 1..20 (only VOC's 20 classes are supported so far) or 255 (void), but {path} has"
            f" {mask[wrong][0]}: renumber it"
        )
    return mask.astype(np.uint8, copy=False)


def classes_in(mask: np.ndarray) -> np.ndarray:
    """The labels, uint8 (20,), of a label map: 1 for each class with at least one pixel."""
    return (np.bincount(mask.ravel(), minlength=256)[1 : len(VOC_CLASSES) + 1] > 0).astype(np.uint8)


def read_objects(path: Path) -> np.ndarray:
    """The labels, uint8 (20,), in an XML annotation: 1 for each class with an object, including difficult ones."""
    with naming_file(path):
        names = object_names(path)
    if unknown := sorted(set(names).difference(VOC_CLASSES)):
        raise ValueError(f"objects must be of VOC's classes, but {path} has {unknown[0]!r}: rename it")
    return np.array([name in names for name in VOC_CLASSES], np.uint8)


def _read_npy(path: Path) -> np.ndarray:
    with naming_file(path), path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises for damaged bytes (a dozen types) into one line with the file's path."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"every file must be readable, but {path} is not ({reason}): replace it with an intact copy"
        ) from error
