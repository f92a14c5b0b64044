"""Which training images an epoch draws: shuffled, or resampled against class imbalance.

Written by hand because an epoch draws its indices on the CPU from torch's seeded generator and needs no DataLoader, for
which the samplers of libraries are made.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voctrain.config import LabeledConfig, given


@dataclass(frozen=True)
class Pool:
    """Images with sampling weights. An epoch always draws as many images as there are."""

    weights: Tensor  # (N,)
    copies: bool  # weights are numbers of copies, and drawing is without replacement

    def draw(self) -> Tensor:
        """The positions of one epoch's images, (N,), drawn with torch's global generator."""
        if self.copies:
            positions = torch.arange(len(self.weights)).repeat_interleave(self.weights.long())
            return positions[torch.randperm(len(positions))[: len(self.weights)]]
        return torch.multinomial(self.weights, len(self.weights), replacement=True)


def check_sampling(config: LabeledConfig, classes: tuple[str, ...]) -> None:
    """Raise `ValueError` if `config` names an unknown class."""
    if config.copies_except is not None and config.copies_except not in classes:
        raise ValueError(f"copies_except must be one of {', '.join(classes)}, but got {config.copies_except!r}")


def sampling_pool(labels: np.ndarray, config: LabeledConfig, classes: tuple[str, ...]) -> Pool:
    """The pool of the training fold with labels (N, C) 0/1.

    shuffle: every image once.
    copies: `extra_copies` more of each image, except for images of the class `copies_except`.
    weighted: weights are the mean inverse frequency of an image's classes.
    oversample: images whose rarest class is rarer than the median class are drawn more often.
    undersample: images whose rarest class is more common than the median class are drawn less often.
    """
    if config.sampling == "shuffle":
        return Pool(torch.ones(len(labels)), copies=True)
    if config.sampling == "copies":
        kept_single = np.zeros(len(labels), dtype=bool)
        if config.copies_except is not None:
            kept_single = labels[:, classes.index(config.copies_except)] > 0
        return Pool(torch.from_numpy(np.where(kept_single, 1, 1 + given(config.extra_copies))), copies=True)

    frequency = labels.sum(0)
    median = np.median(frequency[frequency > 0])
    inverse = median / np.maximum(frequency, 1)  # (C,)
    rarest = np.max(np.where(labels > 0, inverse, 0), axis=1)
    rarest[rarest == 0] = 1  # an image without any class
    weights = {
        "weighted": np.where(labels.any(1), (labels * inverse).sum(1) / np.maximum(labels.sum(1), 1), 1),
        "oversample": np.maximum(rarest, 1),
        "undersample": np.minimum(rarest, 1),
    }[config.sampling]
    return Pool(torch.from_numpy(weights).double(), copies=False)
