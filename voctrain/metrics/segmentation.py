"""Metrics of semantic segmentation: count per image, add up, then divide once.

Label maps are (B, H, W) of 0..C - 1; those of the ground truth may contain void, 255.

Written by hand rather than taken from torchmetrics because the confusion of each image is kept, for intervals over
images, and because counting void in a cell of its own never waits for the GPU.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from voctrain.data.class_names import VOID


def confusion(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Confusion matrix of each image, int64 (B, C, C): pixels of each true (row) and predicted class, without void."""
    image = torch.arange(len(truth), device=truth.device)[:, None, None]
    cell = (image * num_classes + truth.long()) * num_classes + predicted.long()
    size = len(truth) * num_classes**2
    cell = torch.where(truth != VOID, cell, size)  # a boolean index would wait for the GPU
    counts = torch.zeros(size + 1, dtype=torch.int64, device=truth.device)
    counts.scatter_add_(0, cell.flatten(), torch.ones_like(cell).flatten())
    return counts[:-1].view(len(truth), num_classes, num_classes)


def mask_dice(truth: Tensor, predicted: Tensor) -> Tensor:
    """The competition's score of each image, (B,) in [0, 1]: the Dice of its stack of binary masks, one per class.

    Background has no mask, and void counts as background. 0 if neither has an object.
    """
    object_pixels = (truth > 0) & (truth != VOID)
    hits = (object_pixels & (truth == predicted)).sum((1, 2))
    total = object_pixels.sum((1, 2)) + (predicted > 0).sum((1, 2))
    return 2 * hits / total.clamp(min=1)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union per class, (C,) in [0, 1], from confusion (C, C); NaN for classes not in the truth."""
    hits, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return np.divide(hits, true + predicted - hits, out=np.full(len(hits), np.nan), where=true > 0)


def mask_metrics(confusions: np.ndarray, prefix: str = "val_") -> dict[str, float]:
    """mIoU over the classes in the truth, and accuracy over all pixels, from confusion matrices (N, C, C)."""
    total = confusions.sum(0)
    classes = iou(total)
    return {
        f"{prefix}mIoU": float(np.nanmean(classes)) if total.any() else 0.0,
        f"{prefix}accuracy": float(np.diag(total).sum() / max(total.sum(), 1)),
    }


def all_background(masks: Iterable[np.ndarray], num_classes: int) -> dict[str, float]:
    """The metrics of predicting background everywhere, the baseline of every score."""
    counts = np.zeros((1, num_classes, num_classes), np.int64)
    for mask in masks:
        counts[0, :, 0] += np.bincount(np.ravel(mask), minlength=256)[:num_classes]
    return {**mask_metrics(counts), "val_dice": 0.0}


def score_maps(
    truths: Iterable[np.ndarray], maps: Iterable[np.ndarray], num_classes: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Metrics of label maps of different sizes, and what they are computed from: confusion (N, C, C), dice (N,)."""
    counts, dice = [], []
    for pair in zip(truths, maps, strict=True):
        truth, predicted = (torch.from_numpy(each)[None] for each in pair)
        counts.append(confusion(truth, predicted, num_classes).int())
        dice.append(mask_dice(truth, predicted))
    counts, dice = torch.cat(counts).numpy(), torch.cat(dice).float().numpy()
    return {**mask_metrics(counts), "val_dice": float(dice.mean())}, {"confusion": counts, "dice": dice}
