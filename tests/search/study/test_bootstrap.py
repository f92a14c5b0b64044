import numpy as np
import pytest

from search.study.bootstrap import TOO_FEW, Estimate, estimated, paired


def test_the_interval_has_its_nominal_coverage():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        scores = rng.beta(2, 5, size=60)  # of 60 images; their mean is 2 / 7 in truth
        _, low, high = estimated(lambda rows, scores=scores: scores[rows].mean(), 60, resamples=300)
        covered += low <= 2 / 7 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_a_paired_interval_is_the_interval_of_the_differences():
    """One score is 0.1 above the other on each image: nothing varies."""
    second = np.random.default_rng(0).random(50)
    first = second + 0.1
    lead = paired(lambda rows: first[rows].mean(), lambda rows: second[rows].mean(), 50)
    assert lead == pytest.approx((0.1, 0.1, 0.1))


def test_the_fit_is_deterministic():
    scores = np.random.default_rng(0).random(20)
    assert len({estimated(lambda rows: scores[rows].mean(), 20) for _ in range(3)}) == 1


def test_one_image_has_no_interval():
    found = estimated(lambda rows: np.array([0.5])[rows].mean(), 1)
    assert found.value == 0.5
    assert found.interval() == TOO_FEW


def test_an_interval_that_excludes_its_value_is_not_shown():
    assert Estimate(0.2763, 0.006, 0.2755).interval() == "too few images to tell"
    assert Estimate(0.2763, 0.006, 0.2755).lead() == "+0.2763 (too few images to tell)"
    assert Estimate(0.2763, 0.006, 0.2863).interval() == "0.0060 to 0.2863"
    assert Estimate(-0.01, -0.02, 0.03).lead() == "-0.0100 (-0.0200 to +0.0300)"


def test_a_score_that_repetition_inflates_has_no_interval():
    """The largest count of any image in a resample is never below that of the images themselves, which is one."""
    score = lambda rows: float(np.bincount(np.arange(14)[rows]).max())  # noqa: E731
    found = estimated(score, 14)
    assert found.value == 1
    assert np.isnan(found[1:]).all()
