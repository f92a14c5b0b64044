"""The data of a run: images per class, examples, and what the best configuration trains on."""

import numpy as np

from search.pictures.blocks import BLUE, ORANGE, Figure, canvas, drawn, pictured
from search.tasks import Task
from voctrain.config import TrainConfig
from voctrain.contact_sheet import Tile, sheet
from voctrain.data import Data
from voctrain.seeding import seed_epoch

ACROSS = 5  # images in a row


def class_histogram(data: Data) -> Figure:
    """The number of training and validation images of each class."""
    counts = [data.labels[side].sum(0) for side in (data.train, data.val)]
    figure = canvas(height=0.22 * len(data.classes) + 1)
    axes = figure.subplots()
    place = np.arange(len(data.classes))[::-1]
    axes.barh(place, counts[0], color=BLUE, label="training")
    axes.barh(place, counts[1], left=counts[0], color=ORANGE, label="validation")
    axes.set_yticks(place, data.classes, fontsize=8)
    axes.set(xlabel="images")
    axes.legend(fontsize=8)
    alt = ", ".join(f"{name} {int(a + b)}" for name, a, b in zip(data.classes, *counts, strict=True))
    return drawn(figure, "Images per class", alt)


def examples(data: Data) -> Figure:
    """For each class, a training image with as few other classes as possible."""
    tiles = []
    labels = data.labels[data.train]
    for c, name in enumerate(data.classes):
        having = np.flatnonzero(labels[:, c])
        if len(having):
            i = having[labels[having].sum(1).argmin()]
            tiles.append(Tile((data.images[data.train[i]],), (name,)))
    alt = ", ".join(tile.texts[0] for tile in tiles)
    return pictured(sheet(tiles, ACROSS), "An example of each class", alt, wide=True)


def training_batch(task: Task, data: Data, config: TrainConfig) -> Figure:
    """Training images, and below each what the best configuration trains on instead."""
    seed_epoch(0, 1)
    tiles, text = task.training_batch(data, config, ACROSS)
    title = "A batch of images, and what the best configuration trains on instead"
    return pictured(sheet(tiles, ACROSS), title, f"{ACROSS} training images, and below each {text}", wide=True)
