import math
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from ray.tune.schedulers import TrialScheduler

from search.cluster.asha import StudyASHA
from search.study.trials import asha_rungs

EPOCHS = 9


def tune_trial(number):
    return SimpleNamespace(config={"training": number}, trial_id=f"tune-{number}")


@pytest.mark.parametrize(("epochs", "rungs"), [(27, [3, 9]), (9, [1, 3]), (10, [2, 4]), (3, [1]), (2, [1]), (1, [])])
def test_rungs_are_those_of_the_scheduler(epochs, rungs):
    assert asha_rungs(epochs) == rungs
    (bracket,) = StudyASHA(metric="score", epochs=epochs)._brackets
    assert {math.ceil(milestone) for milestone, _ in bracket._rungs} - {epochs} == set(rungs)


def test_a_third_of_the_trials_continues():
    scheduler = StudyASHA(metric="score", epochs=EPOCHS)
    decisions = []
    for number, value in enumerate([0.5, 0.6, 0.1, 0.7, 0.55]):
        scheduler.on_trial_add(None, tune_trial(number))
        decisions.append(scheduler.on_trial_result(None, tune_trial(number), {"epoch": 1, "score": value}))
    # Cutoffs, the 66.7th percentile of what is there: none, 0.5, 0.567, 0.533, 0.6.
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert decisions == [go, go, stop, go, stop]


def test_protected_trials_count_at_rungs_but_are_not_stopped_early():
    scheduler = StudyASHA(metric="score", epochs=EPOCHS, protected={1, 2})
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    decisions = []
    for number, value in enumerate([0.5, 0.1, 0.2, 0.15]):
        scheduler.on_trial_add(None, tune_trial(number))
        decisions.append(scheduler.on_trial_result(None, tune_trial(number), {"epoch": 1, "score": value}))
    assert decisions == [go, go, go, stop]
    assert scheduler._brackets[0]._rungs[-1][1] == {0: 0.5, 1: 0.1, 2: 0.2, 3: 0.15}
    assert scheduler.on_trial_result(None, tune_trial(1), {"epoch": EPOCHS, "score": 0.1}) == stop


def test_refilled_rungs_decide_as_before_and_end_decided_trials():
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=0.9, intermediate_values={EPOCHS: 0.9}))
    for scores in ({1: 0.6}, {1: 0.1}, {EPOCHS: 0.8}):  # the second's decision and the third's end were lost
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values=scores))
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


class TestBestKnownRecipes:
    """Trials 0 to 2 are the portfolio; of nine epochs the rungs are after 1 and 3."""

    def decide(self, scores, noise):
        """Decisions on trial 1 at both rungs, after trial 0 has finished with 0.5 and 0.6 there, and 0.7 at the end."""
        scheduler = StudyASHA(metric="score", epochs=EPOCHS, protected={0, 1, 2}, noise=lambda: noise)
        curves = {0: {1: 0.5, 3: 0.6, EPOCHS: 0.7}, 1: dict(zip((1, 3), scores, strict=True))}
        for number, curve in curves.items():
            scheduler.on_trial_add(None, tune_trial(number))
            decisions = [
                scheduler.on_trial_result(None, tune_trial(number), {"epoch": epoch, "score": score})
                for epoch, score in curve.items()
            ]
        return [decision == TrialScheduler.STOP for decision in decisions]

    @pytest.mark.parametrize(
        ("scores", "noise", "stopped"),
        [
            ((0.3, 0.4), 0.1, True),  # behind by 0.2 at both rungs
            ((0.3, 0.4), 0.25, False),  # the validation set cannot tell
            ((0.3, 0.55), 0.1, False),  # a slow starter
            ((0.45, 0.3), 0.1, False),
            ((0.6, 0.7), 0.0, False),
            ((0.3, 0.4), math.inf, False),  # nothing is known of the noise
        ],
    )
    def test_a_recipe_clearly_behind_at_both_rungs_is_stopped_at_the_second(self, scores, noise, stopped):
        assert self.decide(scores, noise) == [False, stopped]

    def test_no_recipe_is_stopped_before_one_has_finished(self):
        scheduler = StudyASHA(metric="score", epochs=EPOCHS, protected={0, 1}, noise=lambda: 0.0)
        for number, score in ((0, 0.5), (1, 0.1)):
            scheduler.on_trial_add(None, tune_trial(number))
            for epoch in (1, 3):
                result = {"epoch": epoch, "score": score}
                assert scheduler.on_trial_result(None, tune_trial(number), result) == TrialScheduler.CONTINUE

    def test_a_resumed_search_remembers_finished_recipes(self):
        study = optuna.create_study(direction="maximize")
        study.add_trial(create_trial(value=0.7, intermediate_values={1: 0.5, 3: 0.6, EPOCHS: 0.7}))
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values={1: 0.3}))
        scheduler = StudyASHA(metric="score", epochs=EPOCHS, protected={0, 1}, noise=lambda: 0.1)
        scheduler.refill(study)
        assert scheduler.on_trial_result(None, tune_trial(1), {"epoch": 3, "score": 0.4}) == TrialScheduler.STOP


class TestMisleadingRungs:
    """Trials 0 to 4 and every eleventh run whole; of nine epochs the rungs are after 1 and 3."""

    def study(self, first_scores):
        """The whole trials end with 0.5 to 0.9, in this order; the second rung has the scores of the end."""
        study = optuna.create_study(direction="maximize")
        for number, score in enumerate(first_scores):
            end = 0.5 + 0.1 * number
            study.add_trial(create_trial(value=end, intermediate_values={1: score, 3: end, EPOCHS: end}))
        return study

    def scheduler(self, study):
        scheduler = StudyASHA(metric="score", epochs=EPOCHS, protected=range(5))
        scheduler.refill(study)
        return scheduler

    def decide(self, scheduler, number, epoch, score):
        scheduler.on_trial_add(None, tune_trial(number))
        return scheduler.on_trial_result(None, tune_trial(number), {"epoch": epoch, "score": score})

    @pytest.mark.parametrize(
        ("first_scores", "decision"),
        [
            ((0.1, 0.2, 0.3, 0.4, 0.5), TrialScheduler.STOP),
            ((0.5, 0.4, 0.3, 0.2, 0.1), TrialScheduler.CONTINUE),
            ((0.3, 0.2, 0.5, 0.1, 0.4), TrialScheduler.CONTINUE),  # no order at all
        ],
    )
    def test_no_trial_is_pruned_at_a_rung_that_does_not_tell_the_end(self, first_scores, decision):
        scheduler = self.scheduler(self.study(first_scores))
        assert self.decide(scheduler, 5, 1, 0.01) == decision
        assert self.decide(scheduler, 6, 3, 0.01) == TrialScheduler.STOP  # the second does

    def test_a_resumed_search_ends_no_trial_that_was_spared(self):
        study = self.study((0.5, 0.4, 0.3, 0.2, 0.1))
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values={1: 0.01}))
        self.scheduler(study)
        assert study.trials[5].state == TrialState.RUNNING

    def test_one_in_eleven_runs_whole_however_bad(self):
        scheduler = self.scheduler(self.study((0.1, 0.2, 0.3, 0.4, 0.5)))
        for number, decision in ((10, TrialScheduler.STOP), (11, TrialScheduler.CONTINUE)):
            assert self.decide(scheduler, number, 1, 0.01) == decision
        assert self.decide(scheduler, 11, 3, 0.01) == TrialScheduler.CONTINUE
        assert self.decide(scheduler, 11, EPOCHS, 0.01) == TrialScheduler.STOP
