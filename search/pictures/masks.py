"""Masks in VOC's colors: as files, over their images, and beside the truth for a segmentation run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from search.run_folder.files import replace
from voctrain.contact_sheet import Tile, sheet
from voctrain.data import Data
from voctrain.data.class_names import VOID
from voctrain.data.palette import voc_palette
from voctrain.metrics.segmentation import mask_dice

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


def write_pictures(folder: Path, data: Data, predict: Callable[[np.ndarray], Iterable[np.ndarray]]) -> None:
    """Write best.png, worst.png (by Dice) and classes.png (for each class the image with most of it) into `folder`.

    They show validation images. predict: the label maps, uint8 (S, S), of the images at an index. It is called twice
    for the images that are shown, because the maps of all may need too much memory.
    """
    masks, val, palette = data.masks, data.val, voc_palette()
    assert masks is not None
    pairs = zip((masks[i] for i in val), predict(val), strict=True)
    dice = np.concatenate([mask_dice(*(torch.tensor(each)[None] for each in pair)).numpy() for pair in pairs])
    order = val[np.argsort(-dice, kind="stable")].tolist()
    pixels = np.stack([np.bincount(masks[i].ravel(), minlength=256)[1 : 1 + len(data.classes)] for i in val])  # (N, C)
    most = {name: int(val[n.argmax()]) for name, n in zip(data.classes, pixels.T, strict=True) if n.any()}
    best, worst = order[:SHOWN], order[::-1][:SHOWN]
    shown = np.unique([*best, *worst, *most.values()])
    maps, of = dict(zip(shown.tolist(), predict(shown), strict=True)), dict(zip(val.tolist(), dice, strict=True))

    def tile(i: int, name: str, *facts: str) -> Tile:
        pictures = data.images[i], palette[masks[i]], palette[maps[i]]
        return Tile(pictures, ("; ".join((f"{name}: image, truth, prediction", *facts)),))

    sheets = {
        "best": [tile(i, data.ids[i], f"Dice {of[i]:.2f}") for i in best],
        "worst": [tile(i, data.ids[i], f"Dice {of[i]:.2f}") for i in worst],
        "classes": [tile(i, name) for name, i in most.items()],
    }
    folder.mkdir(exist_ok=True)
    names = {0: "background", **dict(enumerate(data.classes, 1)), VOID: "void"}
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
