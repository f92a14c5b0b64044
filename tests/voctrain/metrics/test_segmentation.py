import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from voctrain.data.class_names import VOID
from voctrain.metrics.segmentation import all_background, confusion, iou, mask_dice, mask_metrics, score_maps


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (5, 9, 7)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 5, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = VOID
    return truth, predicted


def test_confusion_and_its_metrics_equal_scikit_learn(maps):
    truth, predicted = maps
    counts = confusion(*map(torch.from_numpy, maps), 5).numpy()
    for image in range(5):
        known = truth[image] != VOID
        expected = confusion_matrix(truth[image][known], predicted[image][known], labels=range(5))
        assert counts[image].tolist() == expected.tolist()
    known = truth != VOID
    per_class = jaccard_score(truth[known], predicted[known], labels=range(4), average=None)
    np.testing.assert_allclose(iou(counts.sum(0)), [*per_class, np.nan])  # class 4 is only ever predicted
    metrics = mask_metrics(counts)
    assert metrics["val_mIoU"] == pytest.approx(per_class.mean())
    assert metrics["val_accuracy"] == pytest.approx(accuracy_score(truth[known], predicted[known]))


def test_mean_iou_is_computed_over_the_whole_set():
    truth = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]]])
    predicted = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    assert mask_metrics(confusion(truth, predicted, 2).numpy())["val_mIoU"] == pytest.approx((2 / 3 + 5 / 6) / 2)


def test_dice_equals_that_of_stacked_planes(maps):
    planes = [np.stack([m == c for c in range(1, 5)], 1).reshape(5, -1) for m in maps]  # void is in no plane
    hits = (planes[0] & planes[1]).sum(1)
    expected = 2 * hits / (planes[0].sum(1) + planes[1].sum(1))
    np.testing.assert_allclose(mask_dice(*map(torch.from_numpy, maps)), expected, rtol=1e-6)
    assert mask_dice(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == 0


def test_all_background():
    masks = np.zeros((2, 2, 2), np.uint8)
    masks[0, 0, 0], masks[1, 1, 1] = 3, VOID
    baseline = all_background(masks, 4)
    assert baseline["val_accuracy"] == pytest.approx(6 / 7)
    assert baseline["val_mIoU"] == pytest.approx(6 / 7 / 2)
    assert baseline["val_dice"] == 0


def test_maps_of_different_sizes(maps):
    sizes = [(1, 1), (9, 7), (3, 5)]
    cut = [[m[i][:h, :w] for i, (h, w) in enumerate(sizes)] for m in maps]
    metrics, predictions = score_maps(iter(cut[0]), iter(cut[1]), 5)
    assert predictions["confusion"].shape == (3, 5, 5)
    assert predictions["confusion"].sum() == sum((t != VOID).sum() for t in cut[0])
    assert metrics["val_mIoU"] == pytest.approx(mask_metrics(predictions["confusion"])["val_mIoU"])
    assert metrics["val_dice"] == pytest.approx(predictions["dice"].mean())


def test_all_void_scores_zero():
    void = torch.full((2, 3, 3), VOID, dtype=torch.uint8)
    metrics = mask_metrics(confusion(void, torch.zeros_like(void), 4).numpy())
    assert metrics == {"val_mIoU": 0.0, "val_accuracy": 0.0}
