import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from voctrain.config import SegmentConfig
from voctrain.data.class_names import VOID
from voctrain.losses.segmentation import (
    MaskLoss,
    balanced_weights,
    binary_cross_entropy,
    cross_entropy,
    dice_loss,
    lovasz_softmax,
)

LOSSES = SegmentConfig.__dataclass_fields__["loss"].metadata["choices"]


def logits_of(probabilities):
    """Logits (1, C, 1, P) from the probabilities of each pixel, (P, C)."""
    return torch.tensor(probabilities).log().T[None, :, None]


def test_cross_entropy_is_a_weighted_mean_over_known_pixels():
    logits = logits_of([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]])
    masks = torch.tensor([[[0, 1, VOID]]], dtype=torch.uint8)
    plain = cross_entropy(logits, masks, torch.ones(2))
    assert plain.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    weighted = cross_entropy(logits, masks, torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx((math.log(2) + 3 * math.log(4 / 3)) / 4)


def test_dice_by_hand():
    logits = logits_of([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0001, 0.0001, 0.9998]])
    masks = torch.tensor([[[0, 1, VOID]]], dtype=torch.uint8)  # class 2 is not in the truth
    expected = [2 * 0.5 / (0.6 + 1), 2 * 0.8 / (1.1 + 1)]
    assert dice_loss(logits, masks).item() == pytest.approx(1 - sum(expected) / 2, abs=1e-5)


def test_dice_of_millions_of_pixels():
    logits = torch.tensor([5.0, 0.0]).view(1, 2, 1, 1).expand(48, 2, 300, 300)
    right = torch.zeros(48, 300, 300, dtype=torch.uint8)  # 2 p n / (p n + n) of n pixels
    p = 1 / (1 + math.exp(-5))
    assert dice_loss(logits, right).item() == pytest.approx(1 - 2 * p / (p + 1), rel=1e-3)


def test_lovasz_by_hand():
    # One class in the truth; errors .2, .4, .6 of pixels 1 (true), 2 (true), 3 (false), sorted .6, .4, .2.
    # IoU lost with the first k wrong: 1 - 2/3 = 1/3, 1 - 1/3 = 2/3, 1.
    logits = logits_of([[0.2, 0.8], [0.4, 0.6], [0.4, 0.6]])
    masks = torch.tensor([[[1, 1, 0]]], dtype=torch.uint8)
    of_one = 0.6 / 3 + 0.4 / 3 + 0.2 / 3
    # Class 0: errors .2 (false), .4 (false), .6 (true); the true one is wrong first, so the IoU is 0 at once.
    assert lovasz_softmax(logits, masks).item() == pytest.approx((of_one + 0.6) / 2, abs=1e-6)


def test_lovasz_of_hard_predictions_is_one_minus_iou():
    torch.manual_seed(0)
    masks, predicted = torch.randint(4, (2, 3, 8, 8))
    masks[0, 0] = VOID
    known = masks != VOID
    lost = []
    for c in masks[known].unique():
        true, given = (masks == c) & known, (predicted == c) & known
        lost.append(1 - (true & given).sum() / (true | given).sum())
    loss = lovasz_softmax(F.one_hot(predicted, 4).movedim(-1, 1) * 100.0, masks.to(torch.uint8))
    assert loss.item() == pytest.approx(torch.stack(lost).mean().item(), abs=1e-5)


def test_binary_cross_entropy_weights_positives():
    logits = torch.zeros(1, 2, 1, 2)
    masks = torch.tensor([[[1, VOID]]], dtype=torch.uint8)
    assert binary_cross_entropy(logits, masks, 9.0).item() == pytest.approx(math.log(2) * (9 + 1) / 2)


def test_weights_have_mean_one_over_pixels():
    counts = np.array([900, 100, 0])
    assert balanced_weights(counts, 0.0).tolist() == pytest.approx([1, 1, 1])
    weights = balanced_weights(counts, 0.5)
    assert (weights[1] / weights[0]).item() == pytest.approx(3)
    assert (weights @ torch.tensor([900.0, 100, 1]) / 1001).item() == pytest.approx(1)
    assert weights.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_void_is_ignored_and_alone_has_zero_loss(loss):
    torch.manual_seed(0)
    criterion = MaskLoss(SegmentConfig(loss=loss), np.array([50, 10, 4]))
    logits = torch.randn(2, 3, 6, 6)
    masks = torch.randint(3, (2, 6, 6)).to(torch.uint8)
    masks[:, :, 3:] = VOID
    value = criterion(logits, masks)
    other = logits.clone()
    other[..., 3:] = torch.randn(2, 3, 6, 3)
    assert criterion(other, masks).item() == pytest.approx(value.item(), rel=1e-5)
    nothing = logits.clone().requires_grad_()
    alone = criterion(nothing, torch.full_like(masks, VOID))
    alone.backward()
    assert alone.item() == 0
    assert not nothing.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_trains(loss):
    torch.manual_seed(0)
    criterion = MaskLoss(SegmentConfig(loss=loss), np.array([50, 10, 4]))
    masks = torch.randint(3, (2, 6, 6)).to(torch.uint8)
    logits = torch.zeros(2, 3, 6, 6, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(logits, masks).backward()
        optimizer.step()
    assert (logits.argmax(1) == masks).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_computed_in_float32(loss, dtype):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (2, 200, 200), generator=generator).byte()  # more pixels than float16 can count
    logits = torch.randn(2, 3, 200, 200, generator=generator).to(dtype)
    criterion = MaskLoss(SegmentConfig(loss=loss), np.ones(3))
    with torch.autocast("cpu", dtype):
        half = criterion(logits, masks)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, criterion(logits.float(), masks))
