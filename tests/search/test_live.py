import math

import optuna
import pytest

from search import study as studies
from search.live import duration, seconds_left
from search.searcher import PRUNED_SHARE


@pytest.fixture
def study():
    """Two trials of the portfolio, and then the sampler's."""
    study = optuna.create_study(direction="maximize")
    for i in (1, 2):
        study.enqueue_trial({}, user_attrs={studies.ORIGIN: f"{studies.PORTFOLIO} {i}"})
    return study


def trial(study, epochs, seconds=None):
    """A trial of so many epochs, ended if it has seconds."""
    new = study.ask()
    for epoch in range(1, epochs + 1):
        new.report(0.1, epoch)
    if seconds is not None:
        new.set_user_attr(studies.SECONDS, seconds)
        study.tell(new, 0.1)


def test_nothing_is_known_before_a_trial_has_ended(study):
    assert seconds_left(study, 10, 9) == math.inf
    trial(study, 4)
    assert seconds_left(study, 10, 9) == math.inf


def test_trials_to_come_are_judged_by_their_kind(study):
    trial(study, 9, seconds=90)
    assert seconds_left(study, 10, 9) == pytest.approx(90 + 8 * PRUNED_SHARE * 90)
    trial(study, 3)  # the portfolio's second is running
    assert seconds_left(study, 10, 9) == pytest.approx(90 * 6 / 9 + 8 * PRUNED_SHARE * 90)
    trial(study, 1, seconds=10)  # the sampler's first was pruned
    trial(study, 3, seconds=20)
    assert seconds_left(study, 10, 9) == pytest.approx(90 * 6 / 9 + 6 * 15)


def test_without_a_portfolio_and_at_the_end():
    study = optuna.create_study(direction="maximize")
    trial(study, 9, seconds=30)
    assert seconds_left(study, 3, 9) == pytest.approx(60)
    trial(study, 9, seconds=30)
    trial(study, 9, seconds=30)
    assert seconds_left(study, 3, 9) == 0


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]
