import numpy as np
import pytest

from search.study.bootstrap import estimated
from search.study.expected import expected_score
from voctrain.metrics.classification import average_precision


def means(values):
    """The scores of candidates that score `values` (K, N) per image."""
    return [lambda rows, own=own: own[rows].mean() for own in values]


def searches(number, spread, *, images=60, candidates=20):
    """Simulated results: scores per image (K, N), of which half of the noise is shared, and the true means (K,)."""
    rng = np.random.default_rng(3)
    for _ in range(number):
        truth = 0.5 + spread * rng.normal(size=candidates)
        noise = rng.normal(size=(1, images)) + rng.normal(size=(candidates, images))
        yield truth[:, None] + 0.2 * noise, truth


@pytest.mark.parametrize("spread", [0, 0.02, 0.1])
def test_the_interval_contains_the_true_score_of_the_best(spread):
    covered, bias, naive = [], [], []
    for values, truth in searches(150, spread):
        found = expected_score(means(values), 60, splits=20)
        true = truth[found.chosen]
        covered.append(found.score.low <= true <= found.score.high)
        bias.append(found.score.value - true)
        naive.append(found.naive - true)
    assert np.mean(covered) >= 0.92
    assert abs(np.mean(bias)) < 0.012 < np.std(bias) / 2
    if spread < 0.1:
        assert np.mean(naive) > 0.03


def test_the_best_of_many_equal_candidates_is_worth_no_more_than_the_others():
    errors = []
    for values, _ in searches(60, 0, candidates=50):
        found = expected_score(means(values), 60, splits=20)
        errors.append((found.naive - 0.5, found.score.value - 0.5, found.is_distinguishable))
    naive, corrected, distinguishable = np.mean(errors, axis=0)
    assert naive > 0.05
    assert abs(corrected) < 0.015
    assert distinguishable < 0.15


def test_the_interval_of_one_candidate_is_that_of_a_bootstrap():
    values = np.random.default_rng(0).beta(2, 5, size=(1, 80))
    found = expected_score(means(values), 80, splits=1000).score
    plain = estimated(means(values)[0], 80)
    assert found.value == pytest.approx(plain.value)
    assert found[1:] == pytest.approx(plain[1:], abs=0.004)


def test_fewer_images_do_not_raise_the_average_precision():
    """It is higher on halves, which have fewer positives."""
    rng = np.random.default_rng(0)
    y = rng.random((60, 5)) < 0.15
    score = [lambda rows, p=p: average_precision(y[rows], p[rows]).mean() for p in rng.random((3, 60, 5)) + 0.1 * y]
    halves = [score[0](rows) for _ in range(200) for rows in [rng.permutation(60)[:30]]]
    assert np.mean(halves) > score[0](slice(None)) + 0.02
    assert expected_score(score[:1], 60).score.value == pytest.approx(score[0](slice(None)))
    assert expected_score(score, 60).score.value <= max(s(slice(None)) for s in score)


def test_the_score_on_few_new_images_is_less_certain():
    values = np.random.default_rng(0).random((4, 50))
    truth, half = (expected_score(means(values), 50, unseen=unseen) for unseen in (None, 50))
    assert half.score.value == truth.score.value
    assert half.score.high - half.score.low == pytest.approx(2**0.5 * (truth.score.high - truth.score.low))
    assert half.lead == truth.lead


def test_a_candidate_that_is_better_on_each_image_is_told_from_the_default():
    default = np.random.default_rng(0).random(50)
    found = expected_score(means([default, default + 0.1]), 50)
    assert found.chosen == 1
    assert found.is_distinguishable
    assert found.lead == pytest.approx((0.1, 0.1, 0.1))
    assert not expected_score(means([default, default - 0.1]), 50).is_distinguishable


def test_the_choice_among_very_few_images_has_no_interval():
    found = expected_score(means(np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]])), 3)
    assert (found.chosen, found.naive) == (1, pytest.approx(0.3))
    assert not found.score.is_valid
    assert not found.is_distinguishable
