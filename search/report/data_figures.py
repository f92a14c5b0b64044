"""The data that a run searched on: how many images of each class, examples, and what the best configuration sees."""

import numpy as np
import torch

from search.report.blocks import BLUE, ORANGE, Figure, canvas, drawn, pictured
from search.sheet import Tile, sheet
from voctrain.attack import training_images
from voctrain.augment import augment
from voctrain.config import AttackConfig, TrainConfig
from voctrain.data import Data
from voctrain.loop import seed_epoch, to_unit

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


def augmented(data: Data, config: TrainConfig) -> Figure:
    """Images that the best configuration trains on, each above what its augmentation makes of it."""
    images, index = training_images(data) if isinstance(config, AttackConfig) else (data.images, data.train)
    chosen = images[index[np.linspace(0, len(index) - 1, ACROSS).astype(int)]]
    seed_epoch(0, 1)
    seen = augment(to_unit(torch.from_numpy(chosen.copy())), config).clamp(0, 1)
    seen = (seen * 255).byte().permute(0, 2, 3, 1).numpy()
    tiles = [Tile((image,), ("image",)) for image in chosen] + [Tile((image,), ("augmented",)) for image in seen]
    title = "Images, and what the best configuration's augmentation makes of them (mixing and pasting are not shown)"
    alt = f"{ACROSS} training images, and under each its augmented version"
    return pictured(sheet(tiles, ACROSS), title, alt, wide=True)
