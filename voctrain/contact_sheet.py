"""Contact sheets: tiles of one or several pictures side by side, with lines of text below."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 6  # pixels between pictures
FONT, LINE, LETTER = 12, 16, 6.5  # pixels: size, height of a line, mean width of a letter
WRAPPED = 2  # lines per caption at most


class Tile(NamedTuple):
    """Pictures, uint8 (S, S, 3) or (S, S, 1) each, and their captions."""

    pictures: Sequence[np.ndarray]
    texts: Sequence[str]


def sheet(tiles: Sequence[Tile], across: int, size: tuple[int, int] = (180, 180)) -> Image.Image:
    """Tiles in rows of `across`, each picture scaled to `size` (width, height); long captions end in …"""
    font, (side, height) = ImageFont.load_default(FONT), size
    width = max((len(tile.pictures) for tile in tiles), default=1) * (side + GAP) + GAP
    wrapped = textwrap.TextWrapper(int((width - 2 * GAP) / LETTER), max_lines=WRAPPED, placeholder=" …").wrap
    lines = [[line for text in tile.texts for line in wrapped(text)] for tile in tiles]
    below = height + GAP + LINE * max(map(len, lines), default=0) + GAP
    page = Image.new("RGB", (width * across + GAP, below * -(-len(tiles) // across) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, tile in enumerate(tiles):
        x, y = i % across * width + GAP, i // across * below + GAP
        for j, array in enumerate(tile.pictures):
            picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
            picture = picture.resize(size, Image.Resampling.BOX)  # averages pixels, or repeats them
            page.paste(picture, (x + j * (side + GAP), y))
        draw.text((x, y + height), "\n".join(lines[i]), "black", font, spacing=LINE - FONT)
    return page
