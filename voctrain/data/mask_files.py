"""Masks as files: label maps of class numbers, from indices or from colors, as a `ClassList` says."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from voctrain.data.class_names import VOC_CLASSES, VOID, ClassList, Color, in_short
from voctrain.data.image_files import read_npy, upright
from voctrain.data.palette import voc_palette
from voctrain.data.text_files import naming_file


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

    def colors(self) -> list[tuple[int, Color]]:
        """The different values that have a color in the palette, each with it."""
        if self.palette is None:
            return []
        palette = [_tuple(color) for color in self.palette]
        return [(value, palette[value]) for value in self.values() if value < len(palette)]


def open_mask(path: Path) -> RawMask:
    """Read a mask from a .npy or image file. Raises `ValueError` for a damaged file, or one that cannot be a mask."""
    if path.suffix.lower() == ".npy":
        pixels, palette = read_npy(path), None
    else:
        with naming_file(path), Image.open(path) as file:
            image = upright(file)
            flat = image.getpalette() if image.mode == "P" else None
            palette = None if flat is None else np.array(flat, np.uint8).reshape(-1, 3)
            if image.mode in ("RGBA", "RGBX", "PA", "CMYK", "YCbCr"):
                image = image.convert("RGB")
            elif image.mode == "LA":
                image = image.convert("L")
            pixels = np.array(image)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
    rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    if not np.issubdtype(pixels.dtype, np.integer) or (pixels.ndim != 2 and not rgb) or not pixels.size:
        raise ValueError(
            f"masks must be integers (height, width), but {path} is {pixels.dtype} {pixels.shape}: convert it"
        )
    return RawMask(path, pixels, palette)


def palette_bytes(path: Path) -> bytes | None:
    """The palette of an image file, which is not decoded; None if it has none."""
    with suppress(Exception), Image.open(path) as file:  # a bad file is reported where it is read
        return None if file.palette is None else bytes(file.palette.palette)
    return None


def read_mask(path: Path, classes: ClassList) -> np.ndarray:
    """Read a label map, uint8 (H, W): class numbers, 0 for background and 255 for void.

    RGB masks, and palettes in which every used color is a class's, are read by color; all others by index. Raises
    `ValueError` for a bad file, and for a value or a color that belongs to no class.
    """
    raw = open_mask(path)
    if raw.pixels.ndim == 3:
        return _by_color(raw, classes)
    if (numbers := palette_numbers(raw, classes)) is not None:
        return numbers[raw.pixels]
    if not classes.forced:
        _check_background(raw)
    return _by_value(gray_values(raw, classes), classes)


def color_numbers(classes: ClassList) -> dict[Color, int]:
    """The class numbers of colors: those of the class list, else VOC's. Black is background and white is void, unless
    they are a class's."""
    gray = {(value, value, value): number for value, number in classes.forced.items() if value < 256}
    return {BLACK: 0, WHITE: VOID} | gray | _own_colors(classes)


def _own_colors(classes: ClassList) -> dict[Color, int]:
    """The colors of classes, and of void in the devkit's palette: black and white are also those of other palettes."""
    if classes.colors or not classes.ordered:
        return {VOID_COLOR: VOID} | dict(classes.colors)
    values = {value: value for value in range(1, min(len(classes.names), VOID - 1) + 1)} | dict(classes.values)
    own = {_tuple(voc_palette()[value]): number for value, number in values.items() if 0 < value < VOID}
    return {VOID_COLOR: VOID} | own


def _tuple(color: np.ndarray) -> Color:
    red, green, blue = color.tolist()
    return red, green, blue


WHITE, BLACK, VOID_COLOR = (255, 255, 255), (0, 0, 0), _tuple(voc_palette()[VOID])
ALL_COLORS = ClassList(tuple(f"color {value}" for value in range(1, VOID)), "the devkit's palette")


@dataclass(frozen=True)
class Seen:
    """What a mask tells about the classes of its set."""

    values: tuple[int, ...] | None  # those that occur; in VOC's colors, VOC's values; None: RGB of other colors
    vocs: bool  # whether its colors are those of VOC's 20 classes


def look(path: Path) -> Seen:
    """Read a mask before the classes are known. Raises `ValueError` for a file that is not a mask."""
    raw = open_mask(path)
    if raw.pixels.ndim == 3:
        try:
            values = RawMask(path, _by_color(raw, ALL_COLORS)).values()
        except ValueError:
            return Seen(None, False)
        gray = bool((raw.pixels == raw.pixels[..., :1]).all())
        classes = {*values} - {0, VOID}
        return Seen(tuple(values), not gray and bool(classes) and max(classes) <= len(VOC_CLASSES))
    try:
        numbers = palette_numbers(raw, ALL_COLORS)
    except ValueError:
        numbers = None
    if numbers is None:
        raw = _gray_values(raw, 2 * len(raw.values()))
    number = {value: value if numbers is None else int(numbers[value]) for value in raw.values()}
    classes = {value for value, n in number.items() if 0 < n < VOID}
    vocs = {_tuple(color) for color in voc_palette()[1 : len(VOC_CLASSES) + 1]}
    in_vocs = {value for value, color in raw.colors() if color in vocs}
    return Seen(tuple(sorted({*number.values()})), bool(classes) and classes <= in_vocs)


def _check_background(raw: RawMask) -> None:
    """Raise `ValueError` if value 0, which is the background, is not black in a palette, but another value is."""
    colors = {color: value for value, color in raw.colors()}
    if colors.get(BLACK, 0) and raw.palette is not None and raw.palette[0].any():
        raise ValueError(
            f"a mask must be in class colors or in class numbers, but in {raw.path} value {colors[BLACK]} is black like"
            f" the background, and value 0 is {_tuple(raw.palette[0])}: list the colors in a labelmap.txt, one"
            " name:red,green,blue:: per line, or say what the values mean with --mask-value"
        )


def _by_color(raw: RawMask, classes: ClassList) -> np.ndarray:
    table = color_numbers(classes)
    codes = np.array([(r << 16) | (g << 8) | b for r, g, b in table])
    order = codes.argsort()
    packed = raw.pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    place = np.searchsorted(codes[order], packed).clip(max=len(codes) - 1)
    unknown = codes[order][place] != packed
    if unknown.any() and (raw.pixels == raw.pixels[..., :1]).all():  # numbers in three equal channels
        gray = RawMask(raw.path, raw.pixels[..., 0])
        if not classes.colors or max({*gray.values()} - {VOID}, default=0) <= len(classes.names):
            return _by_value(gray, classes)
    if unknown.any():
        color = ", ".join(map(str, raw.pixels[unknown][0].tolist()))
        whose = f"those of {classes.source}" if classes.colors else f"VOC's, for {in_short(classes.names, 3)}"
        raise ValueError(
            f"colors of masks must be {whose}, but {raw.path} has ({color}) in {unknown.sum()} pixels: "
            + (_lossy(raw.path) or "list it in a labelmap.txt, one name:red,green,blue:: per line")
        )
    return np.array(list(table.values()), np.uint8)[order][place]


def palette_numbers(raw: RawMask, classes: ClassList) -> np.ndarray | None:
    """The class numbers (256,) of the values of a mask in class colors; None if its palette says nothing.

    Image editors renumber the colors of a file when they save it, so the colors decide where all that are used are
    known and different, and any is a class's or the devkit's void: black and white prove nothing by themselves. Raises
    `ValueError` for a mask in which a class's color has another value, but not all colors are known.
    """
    pairs = raw.colors()
    colors = [color for _, color in pairs]
    table, own = color_numbers(classes), _own_colors(classes)
    telling = any(color in own and (color != BLACK or own[color]) for color in colors)
    if len(pairs) < len(raw.values()) or len(set(colors)) < len(colors) or not telling:
        return None
    if (0, BLACK) not in pairs and BLACK in colors and raw.palette is not None and not raw.palette[0].any():
        return None  # this black only fills entries that are unused elsewhere
    numbers = np.zeros(256, np.uint8)
    for value, color in pairs:
        if color not in table:
            by_value = {v: classes.values.get(v, v) for v, _ in pairs}
            wrong = [v for v, c in pairs if c != BLACK and table.get(c, by_value[v]) != by_value[v]]
            if wrong and not classes.forced:
                raise ValueError(
                    f"a mask must be in class colors or in class numbers, but in {raw.path} value {wrong[0]} has the"
                    f" color of class {table[dict(pairs)[wrong[0]]]}, and that of value {value} belongs to no class:"
                    " set each pixel to the number of its class"
                )
            return None
        numbers[value] = classes.forced.get(value, table[color])
    return numbers


def gray_values(raw: RawMask, classes: ClassList) -> RawMask:
    """A mask whose palette is of the grays of mask values, with these values; any other mask itself."""
    mapped = [value for value in (*classes.values, *classes.forced) if value < VOID]
    return _gray_values(raw, max([len(classes.names), *mapped]))


def _gray_values(raw: RawMask, most: int) -> RawMask:
    """The grays of a mask whose palette is of grays, if these are the numbers 0..most and 255; else the mask itself.

    Some formats, such as GIF, renumber gray values. Black and white are not numbers by themselves.
    """
    grays = {value: c[0] for value, c in raw.colors() if c == (c[0],) * 3 and (c[0] <= most or c == WHITE)}
    if len({*grays.values()}) < len(raw.values()) or not {*grays.values()} - {0, VOID}:
        return raw
    table = np.zeros(256, np.uint8)
    table[list(grays)] = list(grays.values())
    return RawMask(raw.path, table[raw.pixels])


def _by_value(raw: RawMask, classes: ClassList) -> np.ndarray:
    values, most = raw.pixels, len(classes.names) if classes.ordered else 0
    deepest = np.iinfo(values.dtype).max
    mapped: Mapping[int, int] = {65535: classes.forced.get(VOID, VOID)} if values.max() == 65535 else {}
    mapped = {**mapped, **(classes.values if classes.ordered else {}), **classes.forced}
    known = ((values >= 0) & (values <= most)) | (values == VOID) | (values == -1)
    for value in mapped:
        known |= values == value
    if not known.all():
        wrong = values[~known][0]
        if not classes.ordered:
            raise ValueError(
                f"a class list must begin with the background to tell the classes of mask values, but {classes.source}"
                f" does not, and {raw.path} has the value {wrong}: move it, or save the masks in the list's colors"
            )
        raise ValueError(
            f"mask values must be 0 (background), {'1..' * (most > 1)}{most} ({in_short(classes.names, 3)}) or 255"
            f" (void), but {raw.path} has {wrong}: "
            + (_lossy(raw.path) or f"renumber it, add the class, or pass --mask-value {wrong}=CLASS")
        )
    out = np.where(values == -1, VOID, values).astype(np.uint8)
    for value, number in mapped.items():
        if value <= deepest:
            out[values == value] = number
    return out


def is_lossy(path: Path) -> bool:
    """Whether a mask's format changes its values."""
    return path.suffix.lower() in (".jpg", ".jpeg", ".jfif")


def _lossy(path: Path) -> str:
    return "save masks as PNG, since JPEG changes values" if is_lossy(path) else ""
