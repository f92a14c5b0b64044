import math
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search import study as studies
from search.searcher import StudyASHA, StudySearcher
from search.study import SeededSampler

EPOCHS = 9


def make(study=None, trials=3, configure=None):
    study = study or optuna.create_study(direction="maximize", sampler=SeededSampler("random", 0, {}))

    def plain(trial):
        return {"number": trial.number, "x": trial.suggest_float("x", 0, 1)}

    seen = []
    searcher = StudySearcher(
        study,
        folder=Path("run"),
        configure=configure or plain,
        metric="score",
        epochs=EPOCHS,
        trials=trials,
        worst=0.0,
        on_change=lambda trial: seen.append((trial.number, trial.state.name)),
    )
    searcher.seen = seen
    return searcher


def report(epoch, score, **more):
    return {"epoch": epoch, "score": score, "seconds": 1.5 * epoch, "hostname": "node", "pid": 7, **more}


def test_no_more_than_trials():
    searcher = make()
    assert [searcher.suggest(name)["number"] for name in "abc"] == [0, 1, 2]
    searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
    assert searcher.suggest("d") == Searcher.FINISHED


def test_states_scores_and_costs():
    searcher = make(trials=5)
    study = searcher.study
    for name in "abcde":
        searcher.suggest(name)
    searcher.on_trial_result("a", report(1, 0.7))
    searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))  # all epochs
    searcher.on_trial_complete("b", report(3, 0.2, done=True))  # stopped by the scheduler
    searcher.on_trial_result("c", report(1, 0.3))
    searcher.on_trial_complete("c", {"done": True, "outcome": "ended"})  # early stopping
    searcher.on_trial_complete("d", {"done": True, "outcome": "diverged", "error": "diverged: nan"})
    searcher.on_trial_complete("e", {"done": True, "outcome": "failed", "error": "KeyError: 'x'"})
    states = [t.state for t in study.trials]
    assert states == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.FAIL,
    ]
    assert [t.value for t in study.trials] == [0.7, 0.2, 0.3, 0.0, None]
    assert study.trials[3].user_attrs[studies.ERROR] == "diverged: nan"
    assert study.trials[0].user_attrs[studies.WORKER] == ["node", 7]
    assert study.trials[0].user_attrs[studies.SECONDS] == 13.5
    assert searcher.seen[-1] == (4, "FAIL")


def test_an_epoch_told_twice_counts_once_and_a_lost_one_is_told():
    searcher = make()
    searcher.suggest("a")
    for epoch, score in [(1, 0.1), (2, 0.2), (1, 0.1), (2, 0.2), (3, 0.3)]:  # a worker that came back
        searcher.on_trial_result("a", report(epoch, score))
    assert searcher.study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}


def test_unfinished_trials_come_first_and_stopping_leaves_them_unfinished():
    first = make()
    first.suggest("a")
    first.suggest("b")
    first.on_trial_result("b", report(1, 0.1))
    first.on_trial_complete("a", None)  # the whole search was stopped
    second = make(first.study)
    assert [second.suggest(name)["number"] for name in "ab"] == [0, 1]
    second.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
    assert second.suggest("c")["number"] == 2


def test_three_equal_failures_in_a_row_end_the_search():
    searcher = make(trials=9)
    for name, error in zip("abcd", ["x", "y", "y", "y"], strict=True):
        assert searcher.broken is None
        searcher.suggest(name)
        searcher.on_trial_complete(name, {"done": True, "outcome": "failed", "error": error})
    assert searcher.broken == "y"
    assert searcher.suggest("e") == Searcher.FINISHED


def test_failures_end_the_search_though_an_earlier_trial_still_ends_well():
    searcher = make(trials=9)
    for name in "abcd":
        searcher.suggest(name)
    for name, place in zip("bcd", (12, 900, 4), strict=True):
        searcher.on_trial_complete(name, {"done": True, "outcome": "failed", "error": f"no space at {place}"})
    searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
    assert searcher.broken == "no space at 4"


def test_a_configuration_that_cannot_be_is_a_failed_trial():
    def configure(trial):
        if trial.number == 0:
            raise ValueError("no such thing")
        return {"number": trial.number}

    searcher = make(configure=configure)
    assert searcher.suggest("a")["number"] == 1
    assert searcher.study.trials[0].state == TrialState.FAIL
    assert searcher.study.trials[0].user_attrs[studies.ERROR] == "ValueError: no such thing"


def test_a_lost_worker_fails_the_trial():
    searcher = make()
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    assert searcher.study.trials[0].state == TrialState.FAIL


def tune_trial(number):
    return SimpleNamespace(config={"number": number}, trial_id=f"tune-{number}")


@pytest.mark.parametrize(("epochs", "rungs"), [(27, [3, 9]), (9, [1, 3]), (10, [2, 4]), (3, [1]), (2, [1]), (1, [])])
def test_rungs_are_those_of_the_scheduler(epochs, rungs):
    assert studies.rungs(epochs) == rungs
    (bracket,) = StudyASHA(metric="score", epochs=epochs)._brackets
    assert {math.ceil(milestone) for milestone, _ in bracket._rungs} - {epochs} == set(rungs)


def test_a_third_goes_on():
    scheduler = StudyASHA(metric="score", epochs=EPOCHS)
    decisions = []
    for number, value in enumerate([0.5, 0.6, 0.1, 0.7, 0.55]):
        scheduler.on_trial_add(None, tune_trial(number))
        decisions.append(scheduler.on_trial_result(None, tune_trial(number), {"epoch": 1, "score": value}))
    # Cutoffs, the 66.7th percentile of what is there: none, 0.5, 0.567, 0.533, 0.6.
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert decisions == [go, go, stop, go, stop]


def test_whole_trials_are_compared_with_but_never_stopped_early():
    scheduler = StudyASHA(metric="score", epochs=EPOCHS, whole={1, 2})
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    decisions = []
    for number, value in enumerate([0.5, 0.1, 0.2, 0.15]):
        scheduler.on_trial_add(None, tune_trial(number))
        decisions.append(scheduler.on_trial_result(None, tune_trial(number), {"epoch": 1, "score": value}))
    assert decisions == [go, go, go, stop]
    assert scheduler._brackets[0]._rungs[-1][1] == {0: 0.5, 1: 0.1, 2: 0.2, 3: 0.15}
    assert scheduler.on_trial_result(None, tune_trial(1), {"epoch": EPOCHS, "score": 0.1}) == stop


def test_refilled_rungs_decide_as_before_and_end_what_was_decided():
    searcher = make(trials=4)
    for name in "abcd":
        searcher.suggest(name)
    searcher.on_trial_complete("a", report(EPOCHS, 0.9, done=True))
    study = searcher.study
    searcher.on_trial_result("b", report(1, 0.6))
    searcher.on_trial_result("c", report(1, 0.1))  # told, but the decision was lost
    searcher.on_trial_result("d", report(EPOCHS, 0.8))  # the last epoch, too
    scheduler = StudyASHA(metric="score", epochs=EPOCHS)
    scheduler.refill(study)
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED, TrialState.COMPLETE]
    assert study.trials[3].value == 0.8
    recorded = scheduler._brackets[0]._rungs[-1][1]
    assert recorded == {1: 0.6, 2: 0.1}
    # A continued trial that tells an epoch again is neither counted twice nor judged again.
    assert scheduler.on_trial_result(None, tune_trial(1), {"epoch": 1, "score": 0.6}) == TrialScheduler.CONTINUE
    assert recorded == {1: 0.6, 2: 0.1}
