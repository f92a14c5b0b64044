"""Masks as files: label maps of class numbers, from indices or from colors, as a `ClassList` says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from voctrain.data.class_names import VOID, ClassList, Color, in_short
from voctrain.data.image_files import read_npy
from voctrain.data.palette import voc_palette
from voctrain.data.text_files import naming_file

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask as its file has it: values (H, W), with the colors that a palette gives them, or RGB (H, W, 3)."""

    path: Path
    pixels: np.ndarray
    palette: np.ndarray | None = None  # uint8 (n, 3)

    def values(self) -> list[int]:
        """The different values, in ascending order."""
        flat = self.pixels.ravel()
        found = np.flatnonzero(np.bincount(flat, minlength=256)) if flat.dtype == np.uint8 else np.unique(flat)
        return found.tolist()


def open_mask(path: Path) -> RawMask:
    """Read a mask from a .npy or image file. Raises `ValueError` for a damaged file, or one that cannot be a mask."""
    if path.suffix.lower() == ".npy":
        pixels, palette = read_npy(path), None
    else:
        with naming_file(path), Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            flat = upright.getpalette() if upright.mode == "P" else None
            palette = None if flat is None else np.array(flat, np.uint8).reshape(-1, 3)
            if upright.mode in ("RGBA", "PA", "CMYK", "YCbCr"):
                upright = upright.convert("RGB")
            elif upright.mode == "LA":
                upright = upright.convert("L")
            pixels = np.array(upright)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
    rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    if not np.issubdtype(pixels.dtype, np.integer) or (pixels.ndim != 2 and not rgb) or not pixels.size:
        raise ValueError(
            f"masks must be integers (height, width), but {path} is {pixels.dtype} {pixels.shape}: convert it"
        )
    return RawMask(path, pixels, palette)


def read_mask(path: Path, classes: ClassList) -> np.ndarray:
    """Read a label map, uint8 (H, W): class numbers, 0 for background and 255 for void.

    RGB masks, and palettes in which every used color is a class's, are read by color; all others by index. Raises
    `ValueError` for a bad file, and for a value or a color that is no class's.
    """
    raw = open_mask(path)
    if raw.pixels.ndim == 3:
        return _by_color(raw, classes)
    numbers = None if raw.palette is None else _palette_numbers(raw, classes)
    return _by_value(raw, classes) if numbers is None else numbers[raw.pixels]


def color_numbers(classes: ClassList) -> dict[Color, int]:
    """The class numbers of colors: those of the class list, else VOC's. Black is background and white is void, unless
    they are a class's."""
    voc = voc_palette()
    own = classes.colors or {_tuple(voc[n]): n for n in range(1, min(len(classes.names), VOID - 1) + 1)}
    gray = {(value, value, value): number for value, number in classes.forced.items() if value < 256}
    return {BLACK: 0, _tuple(voc[VOID]): VOID, WHITE: VOID} | gray | dict(own)


def _tuple(color: np.ndarray) -> Color:
    red, green, blue = color.tolist()
    return red, green, blue


def _by_color(raw: RawMask, classes: ClassList) -> np.ndarray:
    table = color_numbers(classes)
    codes = np.array([(r << 16) | (g << 8) | b for r, g, b in table])
    order = codes.argsort()
    packed = raw.pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    place = np.searchsorted(codes[order], packed).clip(max=len(codes) - 1)
    unknown = codes[order][place] != packed
    if unknown.any() and (raw.pixels == raw.pixels[..., :1]).all():  # numbers in three equal channels
        return _by_value(RawMask(raw.path, raw.pixels[..., 0]), classes)
    if unknown.any():
        color = ", ".join(map(str, raw.pixels[unknown][0].tolist()))
        whose = "labelmap.txt's" if classes.colors else f"VOC's, for {in_short(classes.names, 3)}"
        raise ValueError(
            f"colors of masks must be {whose}, but {raw.path} has ({color}) in {unknown.sum()} pixels: "
            + (_lossy(raw.path) or "list it in a labelmap.txt, one name:red,green,blue:: per line")
        )
    return np.array(list(table.values()), np.uint8)[order][place]


def _palette_numbers(raw: RawMask, classes: ClassList) -> np.ndarray | None:
    """The class numbers (256,) of the values of a mask in class colors; None if its palette says nothing.

    Image editors renumber the colors of a file when they save it, so the colors decide where all that are used are
    known and different. Black fills unused entries and proves nothing by itself.
    """
    assert raw.palette is not None
    used = [value for value in raw.values() if value < len(raw.palette)]
    colors = [_tuple(raw.palette[value]) for value in used]
    table = color_numbers(classes)
    if used == [0] or len(set(colors)) < len(colors):
        return None
    black = next((value for value, color in zip(used, colors, strict=True) if color == BLACK and value), None)
    if black is not None and _tuple(raw.palette[0]) == BLACK:
        return None
    numbers = np.zeros(256, np.uint8)
    for value, color in zip(used, colors, strict=True):
        if color not in table:
            wrong = [v for v, c in zip(used, colors, strict=True) if c != BLACK and table.get(c, v) != v]
            if wrong and not classes.forced:
                raise ValueError(
                    f"a mask must be in class colors or in class numbers, but in {raw.path} value {wrong[0]} has the"
                    f" color of class {table[_tuple(raw.palette[wrong[0]])]}, and the color of value {value} is no"
                    " class's: set each pixel to its class's number"
                )
            return None
        numbers[value] = classes.forced.get(value, table[color])
    return numbers


def _by_value(raw: RawMask, classes: ClassList) -> np.ndarray:
    values, most = raw.pixels, len(classes.names)
    deepest = np.iinfo(values.dtype).max
    mapped: Mapping[int, int] = {65535: VOID} if values.max() == 65535 else {}
    mapped = {**mapped, **classes.values, **classes.forced}
    known = ((values >= 0) & (values <= most)) | (values == VOID) | (values == -1)
    for value in mapped:
        known |= values == value
    if not known.all():
        wrong = values[~known][0]
        raise ValueError(
            f"mask values must be 0 (background), 1..{most} ({in_short(classes.names, 3)}) or 255 (void), but"
            f" {raw.path} has {wrong}: "
            + (_lossy(raw.path) or f"renumber it, add the class, or pass --mask-value {wrong}=CLASS")
        )
    out = np.where(values == -1, VOID, values).astype(np.uint8)
    for value, number in mapped.items():
        if value <= deepest:
            out[values == value] = number
    return out


def _lossy(path: Path) -> str:
    return "save masks as PNG, since JPEG changes values" if path.suffix.lower() in (".jpg", ".jpeg") else ""
