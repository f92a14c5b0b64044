"""Losses of semantic segmentation: logits (B, C, H, W) against masks (B, H, W) of 0..C - 1 and void → scalar.

All are computed in float32, ignore void, and are 0 if all pixels are void.

Written by hand rather than taken from segmentation_models.pytorch because all losses here must treat void pixels and
absent classes alike, and because Dice sums millions of pixels in an order that keeps rounding errors small.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voctrain.config import SegmentConfig, given
from voctrain.data.class_names import VOID
from voctrain.losses.classification import object_cross_entropy


class MaskLoss(nn.Module):
    """The criterion `config.loss`, or the sum of two. counts: pixels of each class in the training fold, (C,)."""

    weights: Tensor

    def __init__(self, config: SegmentConfig, counts: np.ndarray):
        super().__init__()
        self.register_buffer("weights", balanced_weights(counts, config.class_balance or 0.0))
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "cross_entropy": lambda logits, masks: cross_entropy(logits, masks, self.weights),
            "dice": dice_loss,
            "lovasz": lovasz_softmax,
            "object_cross_entropy": object_cross_entropy,
            "bce": lambda logits, masks: binary_cross_entropy(logits, masks, given(config.pos_weight)),
        }
        self.losses = [losses[name] for name in config.loss.split("+")]

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        logits = logits.float()
        return torch.stack([loss(logits, masks) for loss in self.losses]).sum()


def balanced_weights(counts: np.ndarray, power: float) -> Tensor:
    """Weights (C,) proportional to frequency^-power, with mean 1 over pixels; an absent class counts as one pixel."""
    counts = np.maximum(counts, 1)
    frequency = torch.from_numpy(counts / counts.sum()).float()
    weights = frequency**-power
    return weights / (weights * frequency).sum()


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy over pixels, weighted by `weights` (C,) of their classes."""
    target, known = masks.long(), masks != VOID
    return total_cross_entropy(logits, masks, weights) / (weights[target * known] * known).sum().clamp(min=1e-6)


def total_cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """The summed cross-entropy of all pixels, as rows because torch's loss of maps is not deterministic on CUDA."""
    rows = logits.movedim(1, -1).flatten(0, -2)  # (P, C)
    return F.cross_entropy(rows, masks.flatten().long(), weights, ignore_index=VOID, reduction="none").sum()


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - 2 Σ p t / (Σ p + Σ t), averaged over the classes present in the masks (Milletari et al., 2016)."""
    known = masks != VOID
    target = masks.long() * known
    probabilities = logits.softmax(1) * known[:, None]
    of_truth = probabilities.gather(1, target[:, None])[:, 0]
    # Summed per row of the masks first: millions of sequential additions would accumulate rounding errors.
    rows, none = target.flatten(0, 1), logits.new_zeros(len(masks) * masks.shape[1], logits.shape[1])
    counts = none.scatter_add(1, rows, known.flatten(0, 1).to(logits.dtype)).sum(0)
    hits = none.scatter_add(1, rows, of_truth.flatten(0, 1)).sum(0)
    dice = 2 * hits / (probabilities.sum((0, 2, 3)) + counts).clamp(min=1e-6)
    present = counts > 0
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def lovasz_softmax(logits: Tensor, masks: Tensor) -> Tensor:
    """The Lovász extension of a batch's 1 - IoU, averaged over the classes in its masks (Berman et al., 2018)."""
    probabilities, target = logits.softmax(1).movedim(1, 0).flatten(1), masks.flatten()  # (C, P), (P,)
    classes = torch.arange(len(probabilities), device=masks.device)
    if not masks.is_cuda:  # sort only what counts; a GPU would wait to know how much that is
        known = target != VOID
        classes, target = target[known].unique().long(), target[known]
        probabilities = probabilities[:, known][classes]
    if not len(classes):
        return logits.sum() * 0
    truth = (target == classes[:, None]).float()  # (K, P)
    errors = torch.where(target == VOID, -1.0, (truth - probabilities).abs())  # void comes last
    # One class at a time: on a GPU, sorting a few long rows at once takes many times longer.
    errors, order = map(torch.stack, zip(*(row.sort(descending=True) for row in errors), strict=True))
    truth = truth.gather(1, order)
    total = truth.sum(1, keepdim=True)
    jaccard = 1 - (total - truth.cumsum(1)) / (total + (1 - truth).cumsum(1))  # of the first 1..P errors
    gradient = torch.diff(jaccard, prepend=jaccard.new_zeros(len(classes), 1))
    present = total[:, 0] > 0
    return ((errors.clamp(min=0) * gradient).sum(1) * present).sum() / present.sum().clamp(min=1)


def binary_cross_entropy(logits: Tensor, masks: Tensor, pos_weight: float) -> Tensor:
    """Each class against all others, as in the course notebook; mean over pixels and classes.

    pos_weight: the weight of a class's own pixels.
    """
    truth = (masks[:, None] == torch.arange(logits.shape[1], device=masks.device).view(-1, 1, 1)).float()
    weight = logits.new_full((), pos_weight)
    losses = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none")
    known = (masks != VOID)[:, None]
    return (losses * known).sum() / (known.sum() * logits.shape[1]).clamp(min=1)
