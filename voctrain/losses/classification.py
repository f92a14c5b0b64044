"""Losses of multi-label classification, on logits and soft targets, and a loss of coarse maps against masks.

The focal and asymmetric losses are written by hand rather than taken from torchvision or timm because they are computed
in log space, where gradients stay finite when a sigmoid rounds to 0 or 1, and because targets are soft (mixing, label
smoothing).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voctrain.config import ClassifyConfig, given


def classification_loss(config: ClassifyConfig, labels: np.ndarray) -> nn.Module:
    """The criterion of `config`: (logits (B, C), target (B, C) in [0, 1]) → scalar, computed in float32.

    `labels` (N, C) of 0/1 are those of the training fold; the class weights computed from them are buffers.

    bce: binary cross-entropy, with `pos_weight` if `pos_weight_cap` is set.
    bce_weight: what the course notebook did by mistake: rare classes weigh more, but their positives and negatives
    alike, so the imbalance within a class remains.
    focal: Lin et al. (2017), sigmoid form, without alpha; `pos_weight` as in bce.
    asymmetric: Ridnik et al. (2021), with its probability shift.
    """
    counts = torch.from_numpy(np.asarray(labels).sum(0, dtype=np.float32))
    pos_weight = torch.ones_like(counts)
    if config.pos_weight_cap is not None:
        pos_weight = positive_weights(counts, len(labels), config.pos_weight_cap)
    if config.loss == "focal":
        gamma = given(config.focal_gamma)
        return AsymmetricLoss(config, pos_weight, gamma, gamma, 0.0)
    if config.loss == "asymmetric":
        gammas = given(config.gamma_pos), given(config.gamma_neg)
        return AsymmetricLoss(config, pos_weight, *gammas, given(config.prob_shift))
    weight = inverse_frequencies(counts) if config.loss == "bce_weight" else None
    return WeightedLoss(config, pos_weight, weight)


def positive_weights(counts: Tensor, images: int, cap: float) -> Tensor:
    """min(negatives / positives, cap) per class, (C,): `cap` without positives, 1 without negatives."""
    balanced = ((images - counts) / counts).clamp(max=cap)  # infinite without a positive
    return torch.where(counts == images, 1.0, balanced)


def inverse_frequencies(counts: Tensor) -> Tensor:
    """Weights (C,) proportional to 1 / count, with mean 1; a class without positives counts as having one."""
    inverse = 1 / counts.clamp(min=1)
    return inverse / inverse.mean()


class WeightedLoss(nn.Module):
    """Binary cross-entropy with logits, label smoothing y (1 - s) + s / 2, and weights for positives or for both."""

    pos_weight: Tensor
    weight: Tensor | None

    def __init__(self, config: ClassifyConfig, pos_weight: Tensor, weight: Tensor | None = None):
        super().__init__()
        self.smoothing, self.reduction = config.label_smoothing, config.reduction
        self.register_buffer("pos_weight", pos_weight)  # (C,)
        self.register_buffer("weight", weight)  # (C,) or None

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = self.losses(logits.float(), target.float() * (1 - self.smoothing) + self.smoothing / 2)
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each image and class, (B, C)."""
        return F.binary_cross_entropy_with_logits(
            logits, target, self.weight, pos_weight=self.pos_weight, reduction="none"
        )


class AsymmetricLoss(WeightedLoss):
    """y (1 - p)^gamma_pos (-log p) + (1 - y) q^gamma_neg (-log(1 - q)) with q = max(p - shift, 0), y in [0, 1]."""

    log_shift: Tensor

    def __init__(self, config: ClassifyConfig, pos_weight: Tensor, gamma_pos: float, gamma_neg: float, shift: float):
        super().__init__(config, pos_weight)
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg
        self.register_buffer("log_shift", torch.tensor(math.log(shift) if shift else -math.inf))

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        # In log space throughout: powers of a sigmoid that rounds to 0 or 1 have no finite gradient.
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        log_not_q = torch.logaddexp(log_not_p, self.log_shift).clamp(max=0)
        q = (-torch.expm1(log_not_q)).clamp(min=1e-8)
        positive = self.pos_weight * (self.gamma_pos * log_not_p).exp() * -log_p
        return target * positive + (1 - target) * q**self.gamma_neg * -log_not_q


def object_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of coarse maps against masks, in which every class of every image has equal weight.

    logits (B, 1 + C, h, w), background first; masks (B, H, W) integer, 0..C and void. The target of a cell is the share
    of each class among its pixels. Void and classes smaller than a quarter of a cell are ignored; the loss is 0 if
    nothing else is left.
    """
    height, width = logits.shape[-2:]
    shares = cell_shares(masks, logits.shape[1], (height, width))  # (B, 1 + C, h, w)
    area = shares.sum((2, 3))  # (B, 1 + C), in cells
    losses = -(shares * logits.float().log_softmax(1)).sum((2, 3)) / area.clamp(min=1e-6)
    counts = area >= 0.25
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def cell_shares(masks: Tensor, num_values: int, size: tuple[int, int]) -> Tensor:
    """Share of each value 0..num_values - 1 among the pixels of each cell: (B, H, W) → float (B, num_values, h, w).

    Every pixel belongs to one cell. No tensor is larger than the masks: one-hot planes at 300 px would need gigabytes.
    """
    (height, width), (rows, columns) = masks.shape[1:], size
    row, column = (
        torch.arange(side, device=masks.device) * n // side for side, n in ((height, rows), (width, columns))
    )
    cell = row[:, None] * columns + column  # (H, W)
    value = masks.long().clamp(max=num_values)  # void becomes num_values
    counts = torch.zeros(len(masks), (num_values + 1) * rows * columns, device=masks.device)
    index = (value * rows * columns + cell).flatten(1)
    counts.scatter_add_(1, index, counts.new_ones(()).expand_as(index))
    counts = counts.view(len(masks), num_values + 1, rows, columns)
    pixels = counts.sum(1, keepdim=True).clamp(min=1)  # a cell has none where the map is finer than the mask
    return (counts / pixels)[:, :num_values]
