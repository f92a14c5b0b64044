"""Pictures of a segmentation run: images, truths and predictions side by side, in VOC's colors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from search.run_folder.files import replace
from voctrain.contact_sheet import Tile, sheet
from voctrain.data.class_names import VOID
from voctrain.data.palette import voc_palette
from voctrain.metrics.segmentation import score_maps

SHOWN = 8  # best and worst images


def write_pictures(
    folder: Path,
    ids: Sequence[str],
    classes: Sequence[str],
    images: np.ndarray,
    truths: np.ndarray,
    maps: np.ndarray,
) -> None:
    """Write best.png, worst.png (by Dice) and classes.png (for each class the image with most of it) into `folder`.

    images: uint8 (N, S, S, 3). truths, maps: uint8 (N, S, S).
    """
    palette = voc_palette()
    dice = score_maps(truths, maps, 1 + len(classes))[1]["dice"]

    def tile(i: int, name: str, *facts: str) -> Tile:
        pictures = images[i], palette[truths[i]], palette[maps[i]]
        return Tile(pictures, ("; ".join((f"{name}: image, truth, prediction", *facts)),))

    order: list[int] = np.argsort(-dice, kind="stable").tolist()
    pixels = np.stack([(truths == 1 + c).sum((1, 2)) for c in range(len(classes))])  # (C, N)
    sheets = {
        "best": [tile(i, ids[i], f"Dice {dice[i]:.2f}") for i in order[:SHOWN]],
        "worst": [tile(i, ids[i], f"Dice {dice[i]:.2f}") for i in order[::-1][:SHOWN]],
        "classes": [tile(int(n.argmax()), name) for name, n in zip(classes, pixels, strict=True) if n.any()],
    }
    folder.mkdir(exist_ok=True)
    for name, tiles in sheets.items():
        picture = _with_legend(sheet(tiles, across=2), classes)
        replace(folder / f"{name}.png", lambda file, picture=picture: picture.save(file, format="png"))


def _with_legend(picture: Image.Image, classes: Sequence[str]) -> Image.Image:
    names = {0: "background", **{1 + c: name for c, name in enumerate(classes)}, VOID: "void"}
    colors = [Tile((np.full((1, 1, 3), voc_palette()[value]),), (name,)) for value, name in names.items()]
    legend = sheet(colors, across=8, size=(127, 10))
    whole = Image.new("RGB", (picture.width, picture.height + legend.height), "white")
    whole.paste(picture)
    whole.paste(legend, (0, picture.height))
    return whole
