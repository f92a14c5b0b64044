import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from voctrain.config import ClassifyConfig
from voctrain.losses.classification import cell_shares, classification_loss, object_cross_entropy

LABELS = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.uint8)  # 1, 0 and 4 of 4 positive
EVERY_LOSS = [
    {"loss": "bce"},
    {"loss": "bce", "pos_weight_cap": 10.0},
    {"loss": "bce_weight"},
    {"loss": "focal"},
    {"loss": "focal", "pos_weight_cap": 10.0, "focal_gamma": 0.5},
    {"loss": "asymmetric"},
    {"loss": "asymmetric", "gamma_neg": 0.5, "gamma_pos": 0.5, "prob_shift": 0.05},
]


def loss_of(logits, target, labels=LABELS, **options):
    return classification_loss(ClassifyConfig(**options), labels)(torch.as_tensor(logits), torch.as_tensor(target))


def batch(soft=False):
    torch.manual_seed(0)
    target = torch.rand(5, 3)
    return torch.randn(5, 3) * 3, target if soft else (target < 0.4).float()


def test_bce_by_hand():
    # p = 3/4 and 1/4: -log(3/4) for the positive, -log(3/4) for the negative, -log(1/4) for the missed positive
    logits = [[math.log(3), -math.log(3), -math.log(3)]]
    expected = -2 * math.log(3 / 4) - math.log(1 / 4)
    assert loss_of(logits, [[1.0, 0.0, 1.0]], reduction="sum").item() == pytest.approx(expected, rel=1e-6)
    assert loss_of(logits, [[1.0, 0.0, 1.0]]).item() == pytest.approx(expected / 3, rel=1e-6)


def test_positive_weights_are_negatives_per_positive():
    # three negatives per positive; no positive: the cap; no negative: 1. At logit 0, losses are log 2 times these.
    positive = loss_of(torch.zeros(1, 3), [[1.0, 1.0, 1.0]], pos_weight_cap=10.0, reduction="sum")
    assert positive.item() == pytest.approx((3 + 10 + 1) * math.log(2))
    capped = loss_of(torch.zeros(1, 3), [[1.0, 1.0, 1.0]], pos_weight_cap=2.0, reduction="sum")
    assert capped.item() == pytest.approx((2 + 2 + 1) * math.log(2))
    negative = loss_of(torch.zeros(1, 3), [[0.0, 0.0, 0.0]], pos_weight_cap=10.0, reduction="sum")
    assert negative.item() == pytest.approx(3 * math.log(2))


def test_bce_weight_scales_positives_and_negatives_alike():
    # 1 / (1, 1, 4) with mean 1: 4/3, 4/3, 1/3
    for target in (0.0, 1.0):
        easy = 50.0 * (2 * target - 1)  # no loss, whatever the weight
        for only, weight in enumerate((4 / 3, 4 / 3, 1 / 3)):
            logits = torch.full((1, 3), easy).index_fill(1, torch.tensor(only), 0.0)
            loss = loss_of(logits, torch.full((1, 3), target), loss="bce_weight", reduction="sum")
            assert loss.item() == pytest.approx(weight * math.log(2))


def test_label_smoothing_by_hand():
    # at logit x, the loss for target 0.9 is 0.9 softplus(-x) + 0.1 softplus(x)
    x = 1.5
    expected = 0.9 * math.log1p(math.exp(-x)) + 0.1 * math.log1p(math.exp(x))
    smooth = loss_of([[x, x, x]], [[1.0, 1.0, 1.0]], label_smoothing=0.2)
    assert smooth.item() == pytest.approx(expected, rel=1e-6)


def test_focal_equals_torchvision():
    logits, target = batch()
    actual = loss_of(logits, target, loss="focal", focal_gamma=1.7)
    torch.testing.assert_close(actual, sigmoid_focal_loss(logits, target, alpha=-1, gamma=1.7, reduction="mean"))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_focal_without_gamma_is_bce(soft, cap):
    logits, target = batch(soft)
    actual = loss_of(logits, target, loss="focal", focal_gamma=0.0, pos_weight_cap=cap)
    torch.testing.assert_close(actual, loss_of(logits, target, pos_weight_cap=cap))


@pytest.mark.parametrize("soft", [False, True])
def test_asymmetric_without_gammas_and_shift_is_bce(soft):
    logits, target = batch(soft)
    actual = loss_of(logits, target, loss="asymmetric", gamma_neg=0.0, gamma_pos=0.0, prob_shift=0.0)
    torch.testing.assert_close(actual, loss_of(logits, target))


def test_asymmetric_by_formula():
    logits, target = batch(soft=True)
    p = logits.double().sigmoid()
    q = (p - 0.1).clamp(min=0)
    expected = -target * (1 - p) ** 1.5 * p.log() - (1 - target) * q**3 * (1 - q).log()
    actual = loss_of(logits, target, loss="asymmetric", gamma_neg=3.0, gamma_pos=1.5, prob_shift=0.1)
    torch.testing.assert_close(actual, expected.mean().float())


def test_easy_negatives_below_the_shift_cost_nothing():
    easy = loss_of([[-3.0, -4.0, -9.0]], torch.zeros(1, 3), loss="asymmetric", gamma_neg=0.0, prob_shift=0.05)
    assert easy.item() == 0
    assert loss_of([[-2.0, -4.0, -9.0]], torch.zeros(1, 3), loss="asymmetric").item() > 0


@pytest.mark.parametrize("options", EVERY_LOSS, ids=str)
def test_loss_is_linear_in_soft_targets(options):
    logits, _ = batch()
    ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
    mixed = loss_of(logits, 0.3 * ones, **options)
    torch.testing.assert_close(mixed, 0.3 * loss_of(logits, ones, **options) + 0.7 * loss_of(logits, zeros, **options))


@pytest.mark.parametrize("options", EVERY_LOSS, ids=str)
def test_extreme_logits_keep_finite_losses_and_gradients(options):
    logits = torch.tensor([[-1e4, -90.0, -20.0], [20.0, 90.0, 1e4], [0.0, 30.0, -30.0]], requires_grad=True)
    for target in (torch.zeros(3, 3), torch.ones(3, 3), torch.full((3, 3), 0.5)):
        loss = loss_of(logits, target, **options)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", EVERY_LOSS, ids=str)
def test_half_precision_logits_are_computed_in_float32(options, dtype):
    logits, target = batch()
    with torch.autocast("cpu", dtype):
        half = loss_of(logits.to(dtype), target, **options)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss_of(logits.to(dtype).float(), target, **options))


@pytest.mark.parametrize("options", EVERY_LOSS, ids=str)
def test_reductions_differ_by_the_number_of_decisions(options):
    logits, target = batch()
    total = loss_of(logits, target, reduction="sum", **options)
    torch.testing.assert_close(total, loss_of(logits, target, **options) * logits.numel())


def test_class_weights_move_with_the_module():
    criterion = classification_loss(ClassifyConfig(pos_weight_cap=10.0), LABELS)
    assert criterion.to("meta").pos_weight.device.type == "meta"
    assert not list(criterion.parameters())


def test_bce_equals_torch_with_soft_targets():
    logits, target = batch(soft=True)
    torch.testing.assert_close(loss_of(logits, target), F.binary_cross_entropy_with_logits(logits, target))


VOID = 255


def halves() -> torch.Tensor:
    """A mask of 4 × 4: background on the left, class 1 in the upper right, void in the lower right."""
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[:, :2, 2:], mask[:, 2:, 2:] = 1, VOID
    return mask


def test_cell_shares_ignore_void():
    shares = cell_shares(halves(), 3, (2, 2))
    assert shares[0, 0].tolist() == [[1, 0], [1, 0]]
    assert shares[0, 1].tolist() == [[0, 1], [0, 0]]
    assert shares[0, 2].tolist() == [[0, 0], [0, 0]]
    assert cell_shares(halves(), 3, (1, 1)).flatten().tolist() == [0.5, 0.25, 0]


def test_cells_of_unequal_size_cover_all_pixels():
    mask = torch.tensor([[[0, 1, 1, 2, VOID]]])  # in cells of three and two pixels
    torch.testing.assert_close(cell_shares(mask, 3, (1, 2))[0, :, 0].T, torch.tensor([[1 / 3, 2 / 3, 0], [0, 0, 0.5]]))


def test_objects_have_the_weight_of_the_background():
    probabilities = torch.full((1, 3, 2, 2), 0.1)
    probabilities[0, 0, :, 0] = torch.tensor([0.5, 0.25])  # the background, in its two cells
    probabilities[0, 1, 0, 1] = 0.2  # class 1, in its one cell
    logits = (probabilities / probabilities.sum(1, keepdim=True)).log()
    right = [0.5 / 0.7, 0.25 / 0.45, 0.2 / 0.4]
    expected = (-(math.log(right[0]) + math.log(right[1])) / 2 - math.log(right[2])) / 2
    assert object_cross_entropy(logits, halves()).item() == pytest.approx(expected, rel=1e-5)


def test_classes_smaller_than_a_quarter_cell_are_ignored():
    logits, mask = torch.randn(1, 3, 2, 2), torch.zeros(1, 8, 8, dtype=torch.uint8)
    nothing = object_cross_entropy(logits, mask)
    mask[0, 0, :3] = 2  # 3 of the 16 pixels of a cell
    small = object_cross_entropy(logits, mask)
    mask[0, 0, :4] = 2
    shares = cell_shares(mask, 3, (2, 2))
    assert shares[0, 2, 0, 0] == 0.25
    terms = [-(shares[0, k] * logits[0].log_softmax(0)[k]).sum() / shares[0, k].sum() for k in (0, 2)]
    assert object_cross_entropy(logits, mask).item() == pytest.approx(sum(terms).item() / 2, rel=1e-5)
    assert small.item() == pytest.approx(nothing.item(), abs=0.5)
    assert small != nothing  # its pixels do not become background


def test_all_void_has_zero_loss():
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = object_cross_entropy(logits, torch.full((2, 4, 4), VOID))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_map_finer_than_the_mask_has_empty_cells():
    shares = cell_shares(torch.tensor([[[0, 1]]]), 2, (1, 4))
    assert shares[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
