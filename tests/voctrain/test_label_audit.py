import numpy as np
import pytest

from voctrain.label_audit import doubtful_labels, doubtful_masks


def test_labels_are_ranked_by_the_mean_probability_that_they_are_wrong():
    y_true = np.array([[1, 0], [0, 1]], np.uint8)
    y_prob = np.array([[[0.9, 0.7], [0.2, 0.1]], [[0.7, 0.4], [0.0, 0.3]]], np.float32)
    found = doubtful_labels(y_true, y_prob)
    assert list(zip(found.image, found.label, found.given, strict=True)) == [
        (1, 1, True),
        (0, 1, False),
        (0, 0, True),
        (1, 0, False),
    ]
    assert found.doubt == pytest.approx([0.8, 0.55, 0.2, 0.1])
    assert found.agreement == pytest.approx([1, 0.5, 0, 0])


def test_labels_that_all_models_are_sure_of_are_not_listed():
    y_true = np.array([[1, 0, 1]], np.uint8)
    found = doubtful_labels(y_true, np.array([[[1.0, 0.0, 0.9]]]))
    assert found.label.tolist() == [2]


def test_flipped_labels_come_first():
    rng = np.random.default_rng(0)
    truth = rng.random((200, 5)) < 0.3
    flipped = rng.random(truth.shape) < 0.05
    logit = np.where(truth, 2.0, -2.0) + rng.normal(size=(4, *truth.shape))
    found = doubtful_labels(truth ^ flipped, 1 / (1 + np.exp(-logit)))
    tenth = len(found.image) // 10
    assert flipped[found.image[:tenth], found.label[:tenth]].sum() >= 0.9 * flipped.sum()


def confusion(*counts):
    """Of one image with 100 pixels and two classes, from (true, predicted, pixels); the rest is background."""
    matrix = np.zeros((3, 3), np.int32)
    for true, predicted, pixels in counts:
        matrix[true, predicted] = pixels
    matrix[0, 0] = 100 - matrix.sum()
    return matrix


def test_masks_are_ranked_by_the_size_of_what_is_missing_or_too_much():
    images = [
        confusion((1, 1, 10)),
        confusion((0, 2, 30)),  # found, but not in the mask
        confusion((1, 0, 20)),  # in the mask, but not found
        confusion((1, 1, 60), (1, 0, 20)),  # its outline differs
    ]
    found = doubtful_masks(np.array([images, images]))
    assert list(zip(found.image, found.label, found.given, strict=True)) == [(1, 1, False), (2, 0, True), (3, 0, True)]
    assert found.doubt == pytest.approx([0.3, 0.2, 0.2 * (1 - 120 / 140)])
    assert found.agreement.tolist() == [1, 1, 0]


def test_an_image_without_a_mask_is_not_doubted():
    assert not len(doubtful_masks(np.zeros((2, 1, 3, 3), np.int32)).image)
