"""Masks in VOC's colors: as files, over their images, and beside the truth for a segmentation run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from search.run_folder.files import replace
from voctrain.contact_sheet import Tile, sheet
from voctrain.data.class_names import VOID
from voctrain.data.palette import voc_palette
from voctrain.metrics.segmentation import score_maps

SHOWN = 8  # best and worst images
TILE = (180, 180)  # pixels


def write_mask(path: Path, label_map: np.ndarray) -> None:
    """Write a label map, uint8 (H, W), as a PNG of class numbers with VOC's palette."""
    mask = Image.fromarray(label_map)
    mask.putpalette(voc_palette().tobytes())
    replace(path, lambda file: mask.save(file, format="png"))


def overlaid(image: np.ndarray, label_map: np.ndarray, name: str, classes: Sequence[str]) -> Tile:
    """The image, uint8 (H, W, 3), without and with the colors of its mask, shrunk to a tile; its name and classes."""
    small = np.asarray(ImageOps.contain(Image.fromarray(image), TILE))
    values = np.asarray(Image.fromarray(label_map).resize(small.shape[1::-1], Image.Resampling.NEAREST))
    mixed = np.where(values[..., None] > 0, small // 2 + voc_palette()[values] // 2, small)
    pictures = [np.asarray(ImageOps.pad(Image.fromarray(p), TILE, color="white")) for p in (small, mixed)]
    pixels = np.bincount(label_map.ravel(), minlength=256)
    found = [name for value, name in enumerate(classes, 1) if pixels[value]]
    return Tile(pictures, (name, ", ".join(found) or "background"))


def write_overlays(path: Path, tiles: Sequence[Tile], classes: Sequence[str]) -> None:
    """Write tiles of `overlaid` as a sheet with a legend."""
    picture = _with_legend(sheet(tiles, across=4), {0: "background", **dict(enumerate(classes, 1))})
    replace(path, lambda file: picture.save(file, format="png"))


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
    names = {0: "background", **dict(enumerate(classes, 1)), VOID: "void"}
    for name, tiles in sheets.items():
        picture = _with_legend(sheet(tiles, across=2), names)
        replace(folder / f"{name}.png", lambda file, picture=picture: picture.save(file, format="png"))


def _with_legend(picture: Image.Image, names: Mapping[int, str]) -> Image.Image:
    colors = [Tile((np.full((1, 1, 3), voc_palette()[value]),), (name,)) for value, name in names.items()]
    legend = sheet(colors, across=8, size=(127, 10))
    whole = Image.new("RGB", (max(picture.width, legend.width), picture.height + legend.height), "white")
    whole.paste(picture)
    whole.paste(legend, (0, picture.height))
    return whole
