import math
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.study.time_left import Workload, expected_epochs, seconds_left
from search.study.trials import Attr


def workload(**changes):
    known = {"trials": 4, "epochs": 9, "concurrent": 1, "protected": range(2), "sampler": "tpe"}
    return Workload(**(known | changes))


@pytest.fixture(autouse=True)
def two_startup_trials(monkeypatch):
    monkeypatch.setattr("search.study.sampler.STARTUP_TRIALS", 2)


def study_of(*trials):
    """Of the epochs run, the seconds they took, and whether the trial has ended; scores fall from trial to trial."""
    study = optuna.create_study(direction="maximize")
    for number, (epochs, seconds, ended) in enumerate(trials):
        scores = dict.fromkeys(range(1, epochs + 1), 0.9 - 0.1 * number)
        state = TrialState.PRUNED if ended else TrialState.RUNNING
        costs = {Attr.SECONDS: seconds} if ended else {}
        study.add_trial(create_trial(state=state, intermediate_values=scores, user_attrs=costs))
    spent = {number: seconds for number, (_, seconds, ended) in enumerate(trials) if not ended and seconds}
    return study.trials, spent


def test_the_time_left_is_unknown_before_an_epoch():
    assert seconds_left(workload(), *study_of()) == math.inf
    assert seconds_left(workload(), *study_of((0, 0, False))) == math.inf


def test_full_trials_by_hand():
    """Ten seconds an epoch: three of nine are done, and another trial of nine is to come."""
    assert seconds_left(workload(trials=2), *study_of((3, 30, False))) == pytest.approx(6 * 10 + 9 * 10)
    assert seconds_left(workload(trials=2, concurrent=2), *study_of((3, 30, False))) == pytest.approx((60 + 90) / 2)


def test_the_last_trial_bounds_the_time_left():
    trials = study_of((9, 90, True), (5, 50, False))
    assert seconds_left(workload(trials=2, concurrent=4), *trials) == pytest.approx(40)


# Of nine epochs, with rungs after 1 and 3: all run 1, the part that goes on 2 more, and what goes on again 6 more.
RANDOM = 1 + 2 / 3 + 6 / 9
LEARNED = 1 + 2 * 2 / 3 + 6 * 2 / 3 / 2


def test_expected_epochs_by_kind_of_trial(monkeypatch):
    monkeypatch.setattr("search.study.sampler.STARTUP_TRIALS", 20)
    many = workload(trials=60)
    assert [many.kind(n) for n in (0, 1, 2, 19, 20, 59)] == ["full"] * 2 + ["random"] * 2 + ["learned"] * 2
    assert [many.to_go(kind) for kind in ("full", "random", "learned")] == pytest.approx([9, RANDOM, LEARNED])
    # Two epochs have one rung, after the first; one epoch has none.
    assert [workload(epochs=epochs).to_go("random") for epochs in (2, 1)] == pytest.approx([1 + 1 / 3, 1])


@pytest.mark.parametrize(("sampler", "kinds"), [("tpe", "FRL"), ("random", "FRR"), ("qmc", "FRR"), ("gp", "FFF")])
def test_the_sampler_determines_the_kinds_of_trials(sampler, kinds):
    record = SimpleNamespace(options=SimpleNamespace(sampler=sampler, trials=50), epochs=9)
    run_workload = Workload.of(record, concurrent=2, protected=range(1))
    assert "".join(run_workload.kind(number)[0].upper() for number in (0, 1, 2)) == kinds


def test_learned_trials_cost_as_much_as_the_best():
    """Three of the portfolio, the worst one cheap: the sampler's trial is expected to be like the other two."""
    left = seconds_left(workload(protected=range(3)), *study_of((9, 270, True), (9, 90, True), (9, 9, True)))
    assert left == pytest.approx(LEARNED * (360 / 18))


def test_the_own_cost_of_a_kind_counts_more_with_more_trials():
    """One random trial of one second an epoch, one epoch long, beside two whole ones of ten."""
    left = seconds_left(workload(sampler="random"), *study_of((9, 90, True), (9, 90, True), (1, 1, True)))
    price = (18 * 181 / 19 + 1) / (18 + 1)
    assert left == pytest.approx(RANDOM * price)


def test_a_promoted_trial_continues():
    """Past the first rung, epoch 1, a third of random trials goes past the second, epoch 3; past that to the end."""
    begun = study_of((9, 9, True), (9, 9, True), (1, 1, False))
    assert seconds_left(workload(trials=3, sampler="random"), *begun) == pytest.approx(2 + 6 / 3)
    begun = study_of((9, 9, True), (9, 9, True), (4, 4, False))
    assert seconds_left(workload(trials=3, sampler="random"), *begun) == pytest.approx(5)


def test_without_pruning_all_trials_are_full():
    assert expected_epochs(workload(sampler="gp")) == 4 * 9
    assert seconds_left(workload(sampler="gp"), *study_of((9, 90, True))) == pytest.approx(3 * 90)
    assert expected_epochs(workload()) == pytest.approx(2 * 9 + 2 * LEARNED)


def test_no_time_is_left_at_the_end():
    assert seconds_left(workload(trials=2), *study_of((9, 90, True), (1, 10, True))) == 0
