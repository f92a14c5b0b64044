import pytest

from search.study.rungs import CONTROL, agreements, runs_whole

EPOCHS = 9  # rungs after 1 and 3


def curves(first, second, ends):
    return [{1: a, 3: b, EPOCHS: c} for a, b, c in zip(first, second, ends, strict=True)]


def test_agreement_by_hand():
    """The first rung reverses the order of the ends, the second swaps the two best."""
    first, second = agreements(curves([5, 4, 3, 2, 1], [1, 2, 3, 5, 4], [6, 7, 8, 9, 10]), EPOCHS)
    assert (first.rung, first.trials, first.correlation) == (1, 5, pytest.approx(-1))
    assert first.misleads
    assert (second.rung, second.correlation) == (3, pytest.approx(1 - 6 * 2 / (5 * 24)))
    # atanh(0.9) = 1.472, and the standard error is the root of 1.06 / 2 = 0.728.
    assert (second.low, second.high) == (pytest.approx(0.632, abs=1e-3), pytest.approx(0.976, abs=1e-3))
    assert not second.misleads


def test_a_trial_ends_with_its_best_score():
    some = curves([1, 2, 3, 4, 5], [1, 2, 3, 4, 9], [2, 3, 4, 5, 1])
    assert [found.correlation for found in agreements(some, EPOCHS)] == pytest.approx([1, 1])


def test_equal_scores_tell_nothing():
    first, second = agreements(curves([0] * 6, range(6), range(6)), EPOCHS)
    assert first.correlation == 0
    assert (first.misleads, second.misleads) == (True, False)


def test_nothing_is_said_of_few_trials_and_unfinished_ones_do_not_count():
    some = curves(range(5), range(5), range(5))
    assert len(agreements(some, EPOCHS)) == 2
    assert agreements([*some[:4], {1: 4, 3: 4}], EPOCHS) == []


def test_protected_trials_and_one_in_eleven_run_whole():
    assert CONTROL == 11
    assert [number for number in range(30) if runs_whole(number, {1, 2})] == [0, 1, 2, 11, 22]
