"""The devkit's colors of class numbers, and masks that have these colors at other numbers."""

import functools
from pathlib import Path

import numpy as np

from voctrain.data.class_names import VOC_CLASSES

VISIBLE = {**dict(enumerate(VOC_CLASSES, 1)), 255: "void"}  # mask values that are not black in the devkit


@functools.cache
def voc_palette() -> np.ndarray:
    """The devkit's colors, uint8 (256, 3): bits of the index, dealt to red, green, blue, high ones first."""
    index, rgb = np.arange(256)[:, None], np.arange(3)
    return sum(((index >> (3 * j + rgb)) & 1) << (7 - j) for j in range(3)).astype(np.uint8)


def check_palette(path: Path, palette: np.ndarray, mask: np.ndarray) -> None:
    """Raise `ValueError` if a value in `mask`, uint8 (H, W), has VOC's color of another in `palette`, uint8 (n, 3).

    Image editors renumber the colors of each file that they save. Colors that are not VOC's prove nothing, and neither
    does black, with which unused entries are filled.
    """
    voc = voc_palette()
    if np.array_equal(palette, voc[: len(palette)]):
        return
    values = {tuple(voc[value].tolist()): value for value in VISIBLE}
    for found in np.unique(mask[mask < len(palette)]).tolist():
        value = values.get(tuple(palette[found].tolist()), found)
        if value != found:
            raise ValueError(
                f"a mask in VOC's colors must have VOC's values, but in {path} the color of {VISIBLE[value]} has value"
                f" {found}, not {value}: set each pixel to its color's value in VOC's palette and save the mask again"
            )
