import numpy as np
import pytest

from search.bootstrap import interval, paired


def test_the_interval_covers_the_truth_about_as_often_as_it_claims():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        scores = rng.beta(2, 5, size=60)  # of 60 images; their mean is 2 / 7 in truth
        low, high = interval(lambda rows, scores=scores: scores[rows].mean(), 60, resamples=300)
        covered += low <= 2 / 7 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_a_paired_interval_is_that_of_the_differences():
    """One score is 0.1 above the other on each image: nothing varies."""
    second = np.random.default_rng(0).random(50)
    first = second + 0.1
    lead = paired(lambda rows: first[rows].mean(), lambda rows: second[rows].mean(), 50)
    assert lead == pytest.approx((0.1, 0.1, 0.1))


def test_it_is_the_same_each_time():
    scores = np.random.default_rng(0).random(20)
    assert len({interval(lambda rows: scores[rows].mean(), 20) for _ in range(3)}) == 1


def test_one_image_tells_nothing_of_others():
    assert np.isnan(interval(lambda rows: np.array([0.5])[rows].mean(), 1)).all()
