"""Sheets of pictures: tiles of one picture or several side by side, with lines of text under each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, LINE = 6, 16  # pixels between pictures, and of a line of text
WRAPPED = 2  # lines that a text may take


class Tile(NamedTuple):
    """Pictures, uint8 (S, S, 3) or (S, S, 1) each, and what is said of them."""

    pictures: Sequence[np.ndarray]
    texts: Sequence[str]


def sheet(tiles: Sequence[Tile], across: int, size: tuple[int, int] = (180, 180)) -> Image.Image:
    """Tiles in rows of so many, each of their pictures in `size` (width, height); a text too long ends in …"""
    font, (side, height) = ImageFont.load_default(12), size
    width = max(len(tile.pictures) for tile in tiles) * (side + GAP) + GAP
    texts = [[line for text in tile.texts for line in _wrapped(text, font, width - 2 * GAP)] for tile in tiles]
    below = height + GAP + LINE * max(map(len, texts)) + GAP
    page = Image.new("RGB", (width * across + GAP, below * -(-len(tiles) // across) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        x, y = i % across * width + GAP, i // across * below + GAP
        for j, array in enumerate(tile.pictures):
            grey_or_colour = array[..., 0] if array.shape[-1] == 1 else array
            picture = Image.fromarray(grey_or_colour).resize(size, Image.Resampling.NEAREST)
            page.paste(picture, (x + j * (side + GAP), y))
        draw.text((x, y + height), "\n".join(lines), "black", font, spacing=LINE - 12)
    return page


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) < WRAPPED:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} …"
            break
    return lines
