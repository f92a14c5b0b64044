import math

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search import study as studies
from search.time_left import FADING, LEARNED_SHARE, RANDOM_SHARE, TRUST, Plan, expected_epochs, seconds_left


def plan(**changes):
    known = {"trials": 4, "epochs": 9, "concurrent": 1, "whole": range(2), "startup": 2}
    return Plan(**(known | changes))


def study_of(*trials):
    """Of the epochs run, the seconds they took, and whether the trial has ended; scores fall from trial to trial."""
    study = optuna.create_study(direction="maximize")
    for number, (epochs, seconds, ended) in enumerate(trials):
        scores = dict.fromkeys(range(1, epochs + 1), 0.9 - 0.1 * number)
        state = TrialState.PRUNED if ended else TrialState.RUNNING
        costs = {studies.SECONDS: seconds} if ended else {}
        study.add_trial(create_trial(state=state, intermediate_values=scores, user_attrs=costs))
    spent = {number: seconds for number, (_, seconds, ended) in enumerate(trials) if not ended and seconds}
    return study.trials, spent


def test_nothing_is_known_before_an_epoch():
    assert seconds_left(plan(), *study_of()) == math.inf
    assert seconds_left(plan(), *study_of((0, 0, False))) == math.inf


def test_trials_that_run_whole_by_hand():
    """Ten seconds an epoch: three of nine are done, and another trial of nine is to come."""
    assert seconds_left(plan(trials=2), *study_of((3, 30, False))) == pytest.approx(6 * 10 + 9 * 10)
    assert seconds_left(plan(trials=2, concurrent=2), *study_of((3, 30, False))) == pytest.approx((60 + 90) / 2)


def test_the_last_trial_takes_as_long_as_it_takes():
    trials = study_of((9, 90, True), (5, 50, False))
    assert seconds_left(plan(trials=2, concurrent=4), *trials) == pytest.approx(40)


def test_trials_to_come_cost_what_the_best_cost():
    """Two of the portfolio, the better one dear: the sampler's trials are expected to be like both."""
    share = plan().share(2) + plan().share(3)
    left = seconds_left(plan(), *study_of((9, 270, True), (9, 90, True)))
    assert left == pytest.approx(share * 9 * (360 / 18))
    dear = seconds_left(plan(), *study_of((9, 270, True), (9, 270, True)))
    assert dear == pytest.approx(share * 9 * 30)


def test_what_trials_are_expected_to_run():
    """Whole ones all epochs, random ones as ASHA has it; what learned ones run longer fades."""
    many = plan(trials=60, startup=20)
    assert [many.share(n) for n in (0, 1, 2, 19)] == [1, 1, RANDOM_SHARE, RANDOM_SHARE]
    assert many.share(20) == pytest.approx(RANDOM_SHARE + LEARNED_SHARE)
    assert many.share(20 + FADING) == pytest.approx(RANDOM_SHARE + LEARNED_SHARE / math.e)


def test_what_trials_of_a_kind_cost_counts_more_the_more_there_are():
    """One random trial of one second an epoch, one epoch long, beside two whole ones of ten."""
    left = seconds_left(plan(startup=4), *study_of((9, 90, True), (9, 90, True), (1, 1, True)))
    weight = TRUST * RANDOM_SHARE * 9
    price = (weight * 181 / 19 + 1) / (weight + 1)
    longer = (weight + 1) / (weight + RANDOM_SHARE * 9)
    assert left == pytest.approx(longer * RANDOM_SHARE * 9 * price)


def test_a_promoted_trial_goes_on():
    """Past the first rung, epoch 1, a third of random trials goes past the second, epoch 3; past that to the end."""
    begun = study_of((9, 9, True), (9, 9, True), (1, 1, False))
    assert seconds_left(plan(trials=3, startup=4), *begun) == pytest.approx(2 + 6 / 3)
    begun = study_of((9, 9, True), (9, 9, True), (4, 4, False))
    assert seconds_left(plan(trials=3, startup=4), *begun) == pytest.approx(5)


def test_without_pruning_all_run_whole():
    assert expected_epochs(plan(prunes=False)) == 4 * 9
    assert seconds_left(plan(prunes=False), *study_of((9, 90, True))) == pytest.approx(3 * 90)
    assert expected_epochs(plan()) == pytest.approx(9 * (2 + plan().share(2) + plan().share(3)))


def test_nothing_is_left_at_the_end():
    assert seconds_left(plan(trials=2), *study_of((9, 90, True), (1, 10, True))) == 0
