"""The data that a run searched on: how many images of each class, examples, and what the best configuration sees."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from search.pictures.blocks import BLUE, ORANGE, Figure, canvas, drawn, pictured
from search.pictures.sheet import Tile, sheet
from voctrain import classify, segment
from voctrain.attack import training_images
from voctrain.augment.transforms import augment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig, TrainConfig
from voctrain.data import Data
from voctrain.data.convert import voc_palette
from voctrain.images import to_unit
from voctrain.seeding import seed_epoch

ACROSS = 5  # images in a row


def class_histogram(data: Data) -> Figure:
    """Images of each class, in training and in validation."""
    counts = [data.labels[side].sum(0) for side in (data.train, data.val)]
    figure = canvas(height=0.22 * len(data.classes) + 1)
    axes = figure.subplots()
    place = np.arange(len(data.classes))[::-1]
    axes.barh(place, counts[0], color=BLUE, label="training")
    axes.barh(place, counts[1], left=counts[0], color=ORANGE, label="validation")
    axes.set_yticks(place, data.classes, fontsize=8)
    axes.set(xlabel="images")
    axes.legend(fontsize=8)
    return drawn(
        figure,
        "Images of each class",
        ", ".join(f"{name} {int(a + b)}" for name, a, b in zip(data.classes, *counts, strict=True)),
    )


def examples(data: Data) -> Figure:
    """Of each class, an image of training with as little else as possible."""
    tiles = []
    labels = data.labels[data.train]
    for c, name in enumerate(data.classes):
        having = np.flatnonzero(labels[:, c])
        if len(having):
            i = having[labels[having].sum(1).argmin()]
            tiles.append(Tile((data.images[data.train[i]],), (name,)))
    alt = ", ".join(tile.texts[0] for tile in tiles)
    return pictured(sheet(tiles, ACROSS), "An example of each class", alt, wide=True)


def training_batch(data: Data, config: TrainConfig) -> Figure:
    """Images that the best configuration trains on, and under each what it trains on in its place, with its targets."""
    data = segment.with_masks(data) if isinstance(config, SegmentConfig) else data
    images, index = training_images(data) if isinstance(config, AttackConfig) else (data.images, data.train)
    index = index[np.linspace(0, len(index) - 1, ACROSS).astype(int)]
    batch, alt = to_unit(torch.from_numpy(images[index])), f"{ACROSS} training images, and under each what it becomes"
    tiles = _tiles(images[index], ["image"] * ACROSS)
    seed_epoch(0, 1)
    match config:
        case ClassifyConfig():
            seen, targets, _ = classify.vary(batch, torch.tensor(data.labels[index], dtype=torch.float32), config)
            named = [_named(target, data.classes) for target in targets.tolist()]
            tiles += _tiles(_to_bytes(seen), named)
            alt += f", with its targets: {'; '.join(named)}"
        case SegmentConfig():
            seen, masks = segment.vary(batch, torch.from_numpy(data.masks[index]), config, segment.class_rarity(data))
            tiles += _tiles(_to_bytes(seen), ["as trained on"] * ACROSS)
            tiles += _tiles(voc_palette()[masks.numpy()], ["its mask"] * ACROSS)
            alt += ", and its mask"
        case AttackConfig():
            tiles += _tiles(_to_bytes(augment(batch, config)), ["as trained on"] * ACROSS)
    title = "A batch of images, and what the best configuration trains on in their place"
    return pictured(sheet(tiles, ACROSS), title, alt, wide=True)


def _tiles(pictures: np.ndarray, texts: Sequence[str]) -> list[Tile]:
    return [Tile((picture,), (text,)) for picture, text in zip(pictures, texts, strict=True)]


def _to_bytes(images: Tensor) -> np.ndarray:
    """(B, C, S, S) in [0, 1] → uint8 (B, S, S, C)."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _named(target: Sequence[float], classes: Sequence[str]) -> str:
    """The classes of a target in [0, 1], with their part where it is not whole."""
    parts = [(name, part) for name, part in zip(classes, target, strict=True) if part >= 0.005]
    return ", ".join(name if part > 0.995 else f"{name} {part:.2f}" for name, part in parts)
