"""The visibility of an attack, and scaling attacks to equal visibility.

Images are float (B, C, S, S) in [0, 1]; attacked images are rounded to 8 bits before they are evaluated.

SSIM and PSNR are torchmetrics'. The scaling is written by hand because libraries compare attacks at equal eps, and
perturbations of equal eps differ in how visible they are after rounding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

BISECTIONS = 12
TOLERANCE = 0.002  # fraction of the visibility budget, 1 - min_ssim, that may stay unused
# Rounding errors of float32 perturbations, about 1e-7, stay below half of an 8-bit level, 2e-3, at this factor.
MAX_FACTOR = 4096.0
CHUNK = 64  # images at a time
WINDOW = 5  # pixels; about the width of SSIM's Gaussian window, whose standard deviation is 1.5
TEXTURE = 0.1  # standard deviation of a texture whose masking is 1
FLAT = 0.03**2 / 2  # variance below which SSIM ignores differences: half of its constant (K2 L)²


def rounded(images: Tensor) -> Tensor:
    """Images clamped to [0, 1] and rounded to 256 levels."""
    return (images.clamp(0, 1) * 255).round() / 255


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of each image, (B,), with gradients (Wang et al., 2004; torchmetrics)."""
    parts = zip(images.split(CHUNK), others.split(CHUNK), strict=True)
    with torch.autocast(images.device.type, enabled=False):  # variances as differences of means need full float32
        values = [structural_similarity_index_measure(y, x, data_range=1.0, reduction="none") for x, y in parts]
        return torch.cat([value.view(-1) for value in values if isinstance(value, Tensor)])  # never torchmetrics' pair


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, (B,), in dB (torchmetrics); infinite for equal images."""
    return peak_signal_noise_ratio(others, images, data_range=1.0, reduction="none", dim=(1, 2, 3))


def contrast_masking(images: Tensor) -> Tensor:
    """How well the texture around each pixel hides a perturbation there, (B, C, S, S), at least 0.045.

    It is the local variance in units of `TEXTURE`². SSIM divides the cost of a perturbation by it (Wang et al., 2004),
    because people see less where there is more contrast (Legge and Foley, 1980).
    """
    with torch.autocast(images.device.type, enabled=False):
        padded = F.pad(images, 4 * (WINDOW // 2,), mode="reflect")
        mean, square = (F.avg_pool2d(x, WINDOW, stride=1) for x in (padded, padded.square()))
        variance = (square - mean.square()).clamp(min=0)
    return (variance + FLAT) / TEXTURE**2


def bisect(seen: Callable[[float], bool]) -> tuple[float, float]:
    """Bisect [0, 1]: returns an amount that is not `seen` and a slightly larger one that is."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return low, high


def scale_factor(images: Tensor, perturbations: Tensor, min_ssim: float) -> float:
    """The factor that scales perturbations so that the rounded attacks have a mean SSIM of `min_ssim` to the images.

    The SSIM is never below `min_ssim`, and above it by at most `TOLERANCE`, if such a factor exists. It does not, and
    the attacks stay less visible than allowed, if all perturbations are zero (the factor is 1), or if they are too
    faint or change too few pixels, which are clamped at 0 and 1 (the factor is `MAX_FACTOR`). Perturbations of a single
    magnitude reach the next 8-bit level all at nearly the same factor, so they may miss the tolerance.
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
