import pytest
import torch
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from voctrain.visibility import contrast_masking, psnr, rounded, shrink_factor, ssim


@pytest.fixture
def images():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(70, 3, 6, 6), (32, 32), mode="bilinear")
    return rounded(smooth)


def test_rounding():
    values = torch.tensor([-0.2, 0.0019, 0.0021, 0.5, 1.3])
    assert (rounded(values) * 255).tolist() == pytest.approx([0, 0, 1, 128, 255])


def test_similarities_are_those_of_torchmetrics(images):
    others = rounded(images + 0.1 * torch.randn_like(images))
    expected = StructuralSimilarityIndexMeasure(data_range=1.0)(others, images).item()
    assert ssim(images, others).mean().item() == pytest.approx(expected, abs=1e-6)
    ratio = PeakSignalNoiseRatio(data_range=1.0)
    assert psnr(images, others)[3].item() == pytest.approx(ratio(others[3:4], images[3:4]).item(), abs=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in a training
        assert ssim(images, others).mean().item() == pytest.approx(expected, abs=1e-6)
    assert ssim(images, images).tolist() == pytest.approx([1.0] * 70)


def test_one_factor_brings_attacks_to_the_budget(images):
    noise = torch.randn_like(images)
    factor = shrink_factor(images, noise, 0.9)
    seen = ssim(images, rounded(images + factor * noise)).mean().item()
    assert 0.9 <= seen < 0.905
    assert ssim(images, rounded(images + 1.01 * factor * noise)).mean() < seen
    assert shrink_factor(images, 1e-4 * noise, 0.9) == 1


def test_texture_masks_contrast():
    """A checkerboard of ± 0.1 has variance 0.01 but for the odd pixel of a window; beside it all is flat."""
    images = torch.full((1, 1, 16, 32), 0.5)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    images[..., 16:] += 0.2 * board - 0.1
    masking = contrast_masking(images)
    assert masking.shape == images.shape
    flat, texture = (0.03**2 / 2) / 0.01, (0.01 * (1 - 1 / 25**2) + 0.03**2 / 2) / 0.01
    assert masking[..., :13].flatten().tolist() == pytest.approx([flat] * 16 * 13, rel=1e-3)
    assert masking[..., 19:].flatten().tolist() == pytest.approx([texture] * 16 * 13, rel=1e-3)
