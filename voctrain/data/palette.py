"""The devkit's color palette."""

import functools

import numpy as np


@functools.cache
def voc_palette() -> np.ndarray:
    """The devkit's colors, uint8 (256, 3): bits of the index, dealt in turn to red, green and blue, from bit 7 down."""
    index, rgb = np.arange(256)[:, None], np.arange(3)
    palette = np.zeros((256, 3), np.uint8)
    for j in range(3):
        palette |= (((index >> (3 * j + rgb)) & 1) << (7 - j)).astype(np.uint8)
    return palette
