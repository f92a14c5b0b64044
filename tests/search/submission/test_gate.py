import numpy as np
import pytest

from search.submission.gate import STRENGTHS, fit_gate, log_prior


def test_the_prior_suppresses_what_the_classifier_does_not_see():
    prior = log_prior(np.array([[1.0, 0.1], [0.5, 0.0]]), 2.0)
    np.testing.assert_allclose(prior[0], [0, 0, 2 * np.log(0.1)])
    np.testing.assert_allclose(prior[1], [0, 2 * np.log(0.5), 2 * np.log(1e-6)])
    assert not log_prior(np.array([[1.0, 0.1]]), 0.0).any()


def test_a_strength_that_helps_everywhere_is_chosen():
    gain = dict(zip(STRENGTHS, (0, 0.01, 0.02, 0.05, 0.2, 0.1, 0), strict=True))
    base = np.random.default_rng(0).random(50) / 2
    strength, crossed, without = fit_gate(np.stack([base + gain[s] for s in STRENGTHS]))
    assert strength == 1.0
    assert without == pytest.approx(base.mean())
    assert crossed == pytest.approx(base.mean() + 0.2)


def test_a_gain_that_does_not_generalize_is_ignored():
    rng = np.random.default_rng(1)
    dice = rng.random((len(STRENGTHS), 5))
    dice[0] = 0.6
    strength, crossed, without = fit_gate(dice)
    assert (strength, crossed, without) == (0.0, pytest.approx(0.6), pytest.approx(0.6))
