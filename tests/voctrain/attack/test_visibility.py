import pytest
import torch
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from voctrain.attack.visibility import MAX_FACTOR, contrast_masking, psnr, rounded, scale_factor, ssim


@pytest.fixture
def images():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(70, 3, 6, 6), (32, 32), mode="bilinear")
    return rounded(smooth)


def test_rounding():
    values = torch.tensor([-0.2, 0.0019, 0.0021, 0.5, 1.3])
    assert (rounded(values) * 255).tolist() == pytest.approx([0, 0, 1, 128, 255])


def test_ssim_and_psnr_equal_torchmetrics(images):
    others = rounded(images + 0.1 * torch.randn_like(images))
    expected = StructuralSimilarityIndexMeasure(data_range=1.0)(others, images).item()
    assert ssim(images, others).mean().item() == pytest.approx(expected, abs=1e-6)
    ratio = PeakSignalNoiseRatio(data_range=1.0)
    assert psnr(images, others)[3].item() == pytest.approx(ratio(others[3:4], images[3:4]).item(), abs=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in training
        assert ssim(images, others).mean().item() == pytest.approx(expected, abs=1e-6)
    assert ssim(images, images).tolist() == pytest.approx([1.0] * 70)


@pytest.mark.parametrize("bound", [0.3, 0.85, 0.99])
@pytest.mark.parametrize("strength", [1e-3, 0.03, 1.0, 30.0])
def test_scale_factor_reaches_the_bound(images, strength, bound):
    noise = strength * torch.randn_like(images)
    factor = scale_factor(images, noise, bound)
    assert bound <= ssim(images, rounded(images + factor * noise)).mean().item() <= bound + 0.002 * (1 - bound) + 1e-6
    assert ssim(images, rounded(images + 1.01 * factor * noise)).mean() < bound


def test_scale_factor_of_signs_comes_near_the_bound(images):
    signs = 3 / 255 * torch.randn_like(images).sign()
    factor = scale_factor(images, signs, 0.85)
    assert 0.85 <= ssim(images, rounded(images + factor * signs)).mean().item() <= 0.852


def test_faint_and_strong_perturbations_become_equal(images):
    noise = torch.randn_like(images)
    strong, faint = (((images + scale * noise).clamp(0, 1) - images) for scale in (0.05, 1e-4))
    first, second = (rounded(images + scale_factor(images, each, 0.85) * each) for each in (strong, faint))
    assert 255 * (first - second).abs().mean() < 0.1  # of about 10 levels


def test_rounding_errors_are_not_scaled_to_an_attack(images):
    """A generator without any perturbation leaves only rounding errors."""
    errors = ((images + 1 / 3) - 1 / 3) - images
    assert 0 < errors.abs().max() < 1e-6
    factor = scale_factor(images, errors, 0.85)
    assert torch.equal(rounded(images + factor * errors), images)


def test_attacks_that_cannot_reach_the_bound_stay_below_it(images):
    assert scale_factor(images, torch.zeros_like(images), 0.85) == 1
    dot = torch.zeros_like(images)
    dot[..., 16, 16] = 0.01
    factor = scale_factor(images, dot, 0.5)
    assert factor == MAX_FACTOR
    assert 0.5 < ssim(images, rounded(images + factor * dot)).mean() < 1


def test_texture_masks_contrast():
    """A checkerboard of ± 0.1 has variance 0.01, less the odd pixel of a window; the rest is flat."""
    images = torch.full((1, 1, 16, 32), 0.5)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    images[..., 16:] += 0.2 * board - 0.1
    masking = contrast_masking(images)
    assert masking.shape == images.shape
    flat, texture = (0.03**2 / 2) / 0.01, (0.01 * (1 - 1 / 25**2) + 0.03**2 / 2) / 0.01
    assert masking[..., :13].flatten().tolist() == pytest.approx([flat] * 16 * 13, rel=1e-3)
    assert masking[..., 19:].flatten().tolist() == pytest.approx([texture] * 16 * 13, rel=1e-3)
