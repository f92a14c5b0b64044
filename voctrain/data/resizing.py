"""Images of any shape to squares of one size, and maps of a square back to the original shape.

Each way of resizing scales a rectangle of the original, the window, to the square:

- squash: the whole image, ignoring its aspect ratio;
- pad: the smallest centered square that contains the image; outside the image it is black, and void in a mask;
- crop: the largest centered square inside the image.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from voctrain.config import RESIZE as RESIZE

BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


class Window(NamedTuple):
    """A rectangle in an image, in pixels. With "pad" it starts at negative numbers."""

    top: int
    left: int
    height: int
    width: int


def window(height: int, width: int, resize: str) -> Window:
    """The part of an image of this shape that is scaled to the square."""
    if resize == "squash":
        return Window(0, 0, height, width)
    side = {"pad": max, "crop": min}[resize](height, width)
    return Window((height - side) // 2, (width - side) // 2, side, side)


def cut(array: np.ndarray, part: Window, fill: int = 0) -> np.ndarray:
    """The window of an array (H, W) or (H, W, C), with `fill` outside the array."""
    top, left, height, width = part
    inside = array[max(top, 0) : top + height, max(left, 0) : left + width]
    if inside.shape[:2] == (height, width):
        return inside
    out = np.full((height, width, *array.shape[2:]), fill, array.dtype)
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return out


def resize_square(
    image: np.ndarray, size: int, resample: Image.Resampling = BILINEAR, *, resize: str = "squash", fill: int = 0
) -> np.ndarray:
    """Resize (H, W) or (H, W, 3), uint8, to `size` × `size`; `fill` is the value outside the image.

    PIL's bilinear filter antialiases: when shrinking, it averages over the area that each pixel covers.
    """
    part = cut(image, window(image.shape[0], image.shape[1], resize), fill)
    return np.asarray(Image.fromarray(part).resize((size, size), resample))


def place(square: np.ndarray, shape: tuple[int, int], resize: str, fill: int = 0) -> np.ndarray:
    """Put the content of a window, already scaled to the window's height and width, back into an image of `shape`.

    The inverse of taking the window: what it did not cover gets `fill`.
    """
    top, left, height, width = window(*shape, resize)
    assert square.shape[:2] == (height, width)
    return cut(square, Window(-top, -left, shape[0], shape[1]), fill)
