import math

import pytest
import torch
from torch import Tensor

from voctrain.augment.mixing import _box, mix
from voctrain.config import ClassifyConfig


def batch(size=16, images=8) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(images, 3, size, size).to(memory_format=torch.channels_last)


def config(**options) -> ClassifyConfig:
    return ClassifyConfig(hflip=0.0, **options)


def mixed(**options):
    """Image i is filled with i and its target is the unit vector i, so that both show what was mixed."""
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 20).contiguous(memory_format=torch.channels_last)
    return images, *mix(images, torch.eye(6), config(**options))[:2]


def test_mix_off_returns_the_inputs():
    images, target = batch(), torch.eye(8)
    out = mix(images, target, config())
    assert out[0] is images
    assert out[1] is target


@pytest.mark.parametrize("seed", range(10))
def test_mixup_mixes_targets_like_images(seed):
    torch.manual_seed(seed)
    images, out, target = mixed(mixup=0.5)
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    torch.testing.assert_close(out[:, 0, 3, 7], target @ torch.arange(6.0))
    assert out.stride() == images.stride()
    assert len(target.diag().unique()) == 1  # one ratio for the batch


@pytest.mark.parametrize("seed", range(10))
def test_cutmix_weights_targets_by_pasted_area(seed):
    torch.manual_seed(seed)
    images, out, target = mixed(cutmix=1.0)
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    own = (out == images).float().mean((1, 2, 3))
    torch.testing.assert_close(own, target.diag())
    torch.testing.assert_close(out.mean((1, 2, 3)), target @ torch.arange(6.0))
    assert out.stride() == images.stride()


def test_cutmix_pastes_masks_with_the_images():
    torch.manual_seed(0)
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 20, 20)
    out, _, masks = mix(images, torch.eye(6), config(cutmix=1.0), images[:, 0].to(torch.uint8))
    assert masks.unique().tolist() == list(range(6))
    assert (masks != images[:, 0]).any()
    torch.testing.assert_close(masks.float(), out[:, 0])


@pytest.mark.parametrize("seed", range(6))
def test_mixup_keeps_the_mask_of_the_dominant_image(seed):
    images, before = batch(images=6, size=20), torch.arange(6, dtype=torch.uint8).view(6, 1, 1).expand(6, 20, 20)
    torch.manual_seed(seed)
    _, target, masks = mix(images, torch.eye(6), config(mixup=1.0), before)
    assert masks[:, 0, 0].tolist() == target.argmax(1).tolist()


def test_mixing_ratio_follows_the_beta_distribution():
    torch.manual_seed(0)
    kept = torch.stack([mixed(mixup=0.5)[2][0, 0] for _ in range(300)])
    assert kept.mean().item() == pytest.approx(0.5, abs=0.06)
    assert kept.var().item() == pytest.approx(1 / 8, abs=0.03)  # of Beta(1/2, 1/2)


def test_mixup_or_cutmix_is_drawn_per_batch():
    torch.manual_seed(0)
    cut = []
    for _ in range(200):
        _, out, _ = mixed(mixup=1.0, cutmix=1.0)
        cut.append(bool((out == out.round()).all()))
    assert 0.4 < sum(cut) / 200 < 0.6


def test_boxes_stay_inside_and_have_their_area_unless_clipped():
    torch.manual_seed(0)
    for area in (0.0, 0.1, 0.5, 1.0):
        for _ in range(100):
            rows, columns = _box(area, 100, 60)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            assert 0 <= rows.start <= rows.stop <= 100
            assert 0 <= columns.start <= columns.stop <= 60
            assert height <= math.sqrt(area) * 100 + 1
            assert width <= math.sqrt(area) * 60 + 1
            if rows.start > 0 and rows.stop < 100:
                assert height == pytest.approx(math.sqrt(area) * 100, abs=1)


def test_soft_targets_keep_every_label_of_both_images():
    torch.manual_seed(4)
    target = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    _, out, _ = mix(batch(images=2), target, config(mixup=1.0))
    kept = out[0, 0].item()
    torch.testing.assert_close(out, torch.tensor([[kept, 1, 1 - kept], [1 - kept, 1, kept]]))
    assert target.tolist() == [[1, 1, 0], [0, 1, 1]]
