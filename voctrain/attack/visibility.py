"""How much of an attack is seen, and attacks brought to equal visibility.

Images are float (B, C, S, S) in [0, 1]; what is judged is rounded to 8 bit.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

BISECTIONS = 12
TOLERANCE = 0.002  # part of the visibility allowed, 1 - min_ssim, that an attack may leave unused
# Rounding errors of float32 perturbations, about 1e-7, stay below half of an 8-bit level, 2e-3, at this factor.
MAX_FACTOR = 4096.0
CHUNK = 64  # images at a time
WINDOW = 5  # pixels: as wide as the Gaussian window of SSIM, whose standard deviation is 1.5
TEXTURE = 0.1  # standard deviation of a texture whose masking is 1
FLAT = 0.03**2 / 2  # variance below which similarity takes no notice: half of its constant (K2 L)²


def rounded(images: Tensor) -> Tensor:
    """To the nearest of 256 levels, clamped to [0, 1]."""
    return (images.clamp(0, 1) * 255).round() / 255


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of each image, (B,), with gradients (Wang et al., 2004; torchmetrics)."""
    parts = zip(images.split(CHUNK), others.split(CHUNK), strict=True)
    with torch.autocast(images.device.type, enabled=False):  # variances as differences of means need all of float32
        return torch.cat(
            [structural_similarity_index_measure(y, x, data_range=1.0, reduction="none").view(-1) for x, y in parts]
        )


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, (B,), in dB (torchmetrics); infinite for equal ones."""
    return peak_signal_noise_ratio(others, images, data_range=1.0, reduction="none", dim=(1, 2, 3))


def contrast_masking(images: Tensor) -> Tensor:
    """How well the texture around each pixel hides a perturbation there, (B, C, S, S), from 0.045 upwards.

    It is the local variance in units of `TEXTURE`². SSIM divides by it what a perturbation costs (Wang et al., 2004),
    as people see less where there is more contrast (Legge and Foley, 1980).
    """
    with torch.autocast(images.device.type, enabled=False):
        padded = F.pad(images, 4 * (WINDOW // 2,), mode="reflect")
        mean, square = (F.avg_pool2d(x, WINDOW, stride=1) for x in (padded, padded.square()))
        variance = (square - mean.square()).clamp(min=0)
    return (variance + FLAT) / TEXTURE**2


def bisect(seen: Callable[[float], bool]) -> tuple[float, float]:
    """The last two ends of a bisection of [0, 1]: an amount that is not `seen`, and the next one that is."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return low, high


def scale_factor(images: Tensor, perturbations: Tensor, min_ssim: float) -> float:
    """The factor, up to `MAX_FACTOR`, that brings the mean SSIM of the rounded attacks to the images down or up to
    `min_ssim`: never below it, and hardly above it (`TOLERANCE`) where there is such a factor.

    There is none, and the attacks stay less visible than the bound, for perturbations that are all zero (the factor
    is 1), that are too faint for `MAX_FACTOR`, or that touch too few pixels, which clamp at 0 and 1 (the factor is
    `MAX_FACTOR`). Signs of one size all reach the next 8-bit level at nearly the same factor: they may miss by more.
    """

    def similarity(factor: float) -> float:
        return ssim(images, rounded(images + factor * perturbations)).mean().item()

    if not perturbations.any():
        return 1.0
    low, high, enough = 0.0, 1.0, min_ssim + TOLERANCE * (1 - min_ssim)
    while (seen := similarity(high)) >= min_ssim:
        if seen <= enough or high == MAX_FACTOR:
            return high
        low, high = high, 2 * high
    for _ in range(2 * BISECTIONS):
        middle = (low + high) / 2
        seen = similarity(middle)
        low, high = (low, middle) if seen < min_ssim else (middle, high)
        if min_ssim <= seen <= enough:
            break
    return low
