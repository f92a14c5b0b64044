"""The devkit's color palette, and a check for masks whose colors were renumbered."""

import functools
from pathlib import Path

import numpy as np

from voctrain.data.class_names import VOC_CLASSES

VISIBLE = {**dict(enumerate(VOC_CLASSES, 1)), 255: "void"}  # mask values with a color other than black in the devkit


@functools.cache
def voc_palette() -> np.ndarray:
    """The devkit's colors, uint8 (256, 3): bits of the index, dealt in turn to red, green and blue, from bit 7 down."""
    index, rgb = np.arange(256)[:, None], np.arange(3)
    palette = np.zeros((256, 3), np.uint8)
    for j in range(3):
        palette |= (((index >> (3 * j + rgb)) & 1) << (7 - j)).astype(np.uint8)
    return palette


def check_palette(path: Path, palette: np.ndarray, mask: np.ndarray) -> None:
    """Raise `ValueError` if a value in the mask has VOC's color of another value in the mask's own palette.

    `palette` is uint8 (n, 3), `mask` uint8 (H, W).
    Image editors renumber the colors of a file when they save it. Colors that are not VOC's prove nothing, and neither
    does black, which fills unused entries.
    """
    voc = voc_palette()
    if np.array_equal(palette, voc[: len(palette)]):
        return
    values = {tuple(voc[value].tolist()): value for value in VISIBLE}
    for found in np.unique(mask[mask < len(palette)]).tolist():
        value = values.get(tuple(palette[found].tolist()))
        if value is not None and value != found:
            raise ValueError(
                f"a mask in VOC's colors must have VOC's values, but in {path} the color of {VISIBLE[value]} has value"
                f" {found}, not {value}: set each pixel to its color's value in VOC's palette and save the mask again"
            )
