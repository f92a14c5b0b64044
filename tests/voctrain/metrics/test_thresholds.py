import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voctrain.metrics.classification import at_least_one, decide, row_dice
from voctrain.metrics.thresholds import _best_cut, _class_thresholds, _common_threshold, fit_thresholds


def sample(images, seed=0, classes=20, shift=0.0, signal=2.0):
    """Labels, and probabilities of a model better than chance; `shift` (C,) miscalibrates classes."""
    rng = np.random.default_rng(seed)
    y_true = rng.random((images, classes)) < np.linspace(0.25, 0.02, classes)
    logits = rng.normal(size=y_true.shape) + signal * y_true - 2 + shift
    return y_true.astype(np.uint8), (1 / (1 + np.exp(-logits))).astype(np.float32)


def dice(y_true, y_prob, thresholds):
    return row_dice(y_true, decide(y_prob, thresholds, at_least_one=at_least_one(y_true))).mean()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 25), st.sampled_from([1, 2, 8]))
def test_common_threshold_is_optimal(seed, images, decimals):
    y_true, y_prob = sample(images, seed, classes=4)
    y_prob = np.round(y_prob, decimals).astype(float)  # with ties
    cuts = np.unique(np.concatenate([[0, 1], y_prob.ravel()]))
    best = max(dice(y_true, y_prob, cut) for cut in (cuts[1:] + cuts[:-1]) / 2)
    assert dice(y_true, y_prob, _common_threshold(y_true.astype(bool), y_prob, at_least_one(y_true))) == pytest.approx(
        best
    )


def test_best_cut_by_hand():
    assert _best_cut(np.array([0.2, 0.8, 0.6]), np.array([-1.0, 1.0, 1.0])) == pytest.approx(0.4)
    assert _best_cut(np.array([0.2, 0.8]), np.array([-1.0, -1.0])) == pytest.approx(0.9)  # none
    assert _best_cut(np.array([0.2, 0.8]), np.array([1.0, 1.0])) == pytest.approx(0.1)  # all
    assert _best_cut(np.array([0.5, 0.5, 0.1]), np.array([2.0, -3.0, 0.0])) == pytest.approx(0.75)  # ties stay together


def test_coordinate_ascent_improves_the_fitted_score():
    # with many positives, there is hardly any shrinkage
    shift = np.linspace(-2, 2, 20)
    y_true, y_prob = sample(800, shift=shift)
    common = np.full(20, _common_threshold(y_true.astype(bool), y_prob.astype(float), at_least_one(y_true)))
    own = _class_thresholds(y_true.astype(bool), y_prob.astype(float), common, forced=at_least_one(y_true))
    assert dice(y_true, y_prob, own) > dice(y_true, y_prob, common) + 0.05
    assert np.corrcoef(own, shift)[0, 1] > 0.8


def test_rare_classes_stay_near_the_common_threshold():
    y_true, y_prob = sample(60)
    y_true[:, 5] = 0
    start = np.full(20, 0.4)
    thresholds = _class_thresholds(y_true.astype(bool), y_prob.astype(float), start, forced=at_least_one(y_true))
    assert thresholds[5] == 0.4
    assert np.abs(thresholds - start)[y_true.sum(0) <= 2].max() < 0.6 * 2 / 12 + 1e-9


@pytest.mark.parametrize("images", [40, 400])
def test_rows_of_one_image_count_as_one_observation(images):
    y_true, y_prob = sample(images, seed=3, shift=np.linspace(-1, 1, 20))
    y_true[~y_true.any(1), 0] = 1  # fewer equally good thresholds, among which rounding would choose
    once = fit_thresholds(y_true, y_prob)
    copied = fit_thresholds(*(np.tile(a, (9, 1)) for a in (y_true, y_prob)), groups=np.tile(np.arange(images), 9))
    np.testing.assert_allclose(copied[0], once[0])
    assert copied[1] == pytest.approx(once[1])


def test_miscalibrated_classes_get_their_own_thresholds():
    y_true, y_prob = sample(500, shift=np.where(np.arange(20) % 2, 2.0, -1.0))
    thresholds, score = fit_thresholds(y_true, y_prob)
    assert thresholds.shape == (20,)
    assert thresholds[1::2].mean() > thresholds[::2].mean() + 0.1
    assert score > dice(y_true, y_prob, 0.5) + 0.05


def test_few_calibrated_images_get_one_common_threshold():
    thresholds, _ = fit_thresholds(*sample(95))
    assert len(set(thresholds)) == 1


def test_score_is_cross_validated():
    # thresholds fitted to noise score well on the same data; the cross-validated score must not
    scores, flattering, fresh = [], [], []
    for seed in range(12):
        y_true, y_prob = sample(60, seed, signal=1.0)
        thresholds, score = fit_thresholds(y_true, y_prob)
        scores.append(score)
        flattering.append(dice(y_true, y_prob, thresholds))
        fresh.append(dice(*sample(1000, seed + 1000, signal=1.0), thresholds))
    assert np.mean(scores) < np.mean(flattering)
    assert np.mean(scores) == pytest.approx(np.mean(fresh), abs=0.03)


def test_rows_of_one_image_share_a_fold():
    # pure noise, seen five times: whoever splits the copies finds the memory of them useful
    y_true, y_prob = sample(12, signal=0.0)
    copies = np.tile(np.arange(12), 5)
    _, grouped = fit_thresholds(np.tile(y_true, (5, 1)), np.tile(y_prob, (5, 1)), groups=copies)
    _, single = fit_thresholds(y_true, y_prob)
    assert grouped == pytest.approx(single)


def test_same_seed_same_thresholds():
    y_true, y_prob = sample(95)
    first, second = fit_thresholds(y_true, y_prob, seed=1), fit_thresholds(y_true, y_prob, seed=1)
    assert first[0].tolist() == second[0].tolist()
    assert first[1] == second[1]
    assert fit_thresholds(y_true, y_prob, seed=2)[1] != first[1]


@pytest.mark.parametrize("images", [1, 2, 3])
def test_tiny_sets(images):
    y_true, y_prob = sample(images)
    thresholds, score = fit_thresholds(y_true, y_prob)
    assert ((thresholds >= 0) & (thresholds <= 1)).all()
    assert 0 <= score <= 1


def test_perfect_predictions_score_one():
    y_true, _ = sample(50)
    y_true[:, 0] |= ~y_true.any(1)  # no image is empty
    assert fit_thresholds(y_true, y_true * 0.8 + 0.1)[1] == 1


def test_thousand_images_take_less_than_half_a_second():
    case = sample(1000)
    fit_thresholds(*case)
    start = time.perf_counter()
    fit_thresholds(*case)
    assert time.perf_counter() - start < 0.5


def test_images_without_a_class_are_decided_so():
    y_true = np.array([[1], [0], [1], [0]] * 10)
    y_prob = np.array([[0.9], [0.3], [0.8], [0.2]] * 10)
    thresholds, score = fit_thresholds(y_true, y_prob)
    assert 0.3 < thresholds[0] < 0.8
    assert score == 1
