"""Pictures of a segmentation run: images, truths and predictions side by side, in VOC's colours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from search.files import replace
from voctrain import segment
from voctrain.data import Data
from voctrain.data.convert import voc_palette
from voctrain.data.layouts import VOID
from voctrain.mask_metrics import score_maps

PIXELS = 160  # side of a picture
GAP, LINE = 6, 18
SHOWN = 8  # best and worst images


class Row(NamedTuple):
    """An image of validation, with what is said of it."""

    title: str
    image: np.ndarray  # uint8 (S, S, 3)
    truth: np.ndarray  # uint8 (S, S), with void
    predicted: np.ndarray


def write_pictures(folder: Path, saved: dict[str, Any], data: Data) -> None:
    """Write best.png, worst.png (by Dice) and classes.png (for each class the image with most of it) into `folder`."""
    model, config = segment.restore(saved)
    maps = np.stack(list(segment.predict(model, data.images[data.val], config)))
    truths = data.masks[data.val]
    dice = score_maps(truths, maps, 1 + len(data.classes))[1]["dice"]

    def row(i: int, title: str) -> Row:
        return Row(title, data.images[data.val[i]], truths[i], maps[i])

    order = np.argsort(-dice, kind="stable")
    ids = [data.ids[i] for i in data.val]
    pixels = np.stack([(truths == 1 + c).sum((1, 2)) for c in range(len(data.classes))])  # (C, N)
    sheets = {
        "best": [row(i, f"{ids[i]}: Dice {dice[i]:.2f}") for i in order[:SHOWN]],
        "worst": [row(i, f"{ids[i]}: Dice {dice[i]:.2f}") for i in order[::-1][:SHOWN]],
        "classes": [row(n.argmax(), name) for name, n in zip(data.classes, pixels, strict=True) if n.any()],
    }
    folder.mkdir(exist_ok=True)
    for name, rows in sheets.items():
        picture = sheet(rows, data.classes)
        replace(folder / f"{name}.png", lambda file, picture=picture: picture.save(file, format="png"))


def sheet(rows: Sequence[Row], classes: Sequence[str]) -> Image.Image:
    """The rows under each other, image, truth and prediction each, in two columns, and a legend of what is in them."""
    palette, font = voc_palette(), ImageFont.load_default(12)
    width, height = 3 * (PIXELS + GAP) + GAP, PIXELS + LINE + GAP
    shown = np.unique([value for row in rows for value in np.union1d(row.truth, row.predicted)])
    names = {0: "background", VOID: "void"} | {1 + c: name for c, name in enumerate(classes)}
    per_line = max(1, 2 * width // 120)
    legend = LINE * (1 + (len(shown) - 1) // per_line) + GAP
    lines = (len(rows) + 1) // 2
    canvas = Image.new("RGB", (2 * width, lines * height + LINE + legend), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 2), "image, truth, prediction", fill="black", font=font)
    for i, row in enumerate(rows):
        x, y = i % 2 * width, i // 2 * height + LINE
        draw.text((x + GAP, y + 2), row.title, fill="black", font=font)
        for j, array in enumerate((row.image, palette[row.truth], palette[row.predicted])):
            picture = Image.fromarray(array).resize((PIXELS, PIXELS), Image.Resampling.NEAREST)
            canvas.paste(picture, (x + GAP + j * (PIXELS + GAP), y + LINE))
    for i, value in enumerate(shown.tolist()):
        x, y = i % per_line * 120 + GAP, lines * height + LINE + i // per_line * LINE
        draw.rectangle((x, y, x + 12, y + 12), fill=tuple(palette[value].tolist()), outline="black")
        draw.text((x + 18, y), names[value], fill="black", font=font)
    return canvas
