"""Mixup and cutmix within a batch. Random numbers come from torch's CPU generator.

Written by hand rather than taken from torchvision v2 because targets are multi-label and masks are mixed alongside.
"""

import math

import torch
from torch import Tensor

from voctrain.config import ClassifyConfig


def mix(
    images: Tensor, target: Tensor, config: ClassifyConfig, masks: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019) of each image with its neighbor in the batch.

    images (B, 3, H, W), target (B, C) float, masks (B, H, W) → the same shapes, target in [0, 1]. The mixing ratio is
    drawn from Beta(alpha, alpha) once per batch; if both are on, one of the two is drawn per batch. Mixup keeps the
    mask of the dominant image. With both off, the inputs are returned unchanged.
    """
    if not config.mixup and not config.cutmix:
        return images, target, masks
    cut = not config.mixup or (config.cutmix > 0 and bool(torch.rand(()) < 0.5))
    alpha = config.cutmix if cut else config.mixup
    kept = float(torch.distributions.Beta(alpha, alpha).sample())
    if not cut:
        images = images.lerp(images.roll(1, 0), 1 - kept)
        masks = masks if masks is None or kept >= 0.5 else masks.roll(1, 0)
    else:
        rows, columns = _box(1 - kept, *images.shape[-2:])
        images = _paste(images, rows, columns)
        masks = None if masks is None else _paste(masks, rows, columns)
        pasted = (rows.stop - rows.start) * (columns.stop - columns.start)
        kept = 1 - pasted / (images.shape[-2] * images.shape[-1])
    return images, target.lerp(target.roll(1, 0), 1 - kept), masks


def _paste(batch: Tensor, rows: slice, columns: slice) -> Tensor:
    """A copy of the batch (B, …, H, W) in which this box of each image comes from its neighbor."""
    batch = batch.clone()
    batch[..., rows, columns] = batch[..., rows, columns].roll(1, 0)
    return batch


def _box(area: float, height: int, width: int) -> tuple[slice, slice]:
    """A box with this fraction of the area around a uniformly drawn center, clipped at the border."""
    center, sides = torch.rand(2).tolist(), (height, width)
    half = math.sqrt(area) / 2
    ends = [(round((c - half) * n), round((c + half) * n)) for c, n in zip(center, sides, strict=True)]
    rows, columns = (slice(max(low, 0), min(high, n)) for (low, high), n in zip(ends, sides, strict=True))
    return rows, columns
