"""What Ray Tune prunes: ASHA, with rungs that are refilled from the study."""

import math
from collections.abc import Callable, Container
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from search.cluster.pickling import NotPickled
from search.cluster.searcher import finish
from search.study.rungs import agreements, runs_whole
from search.study.trials import asha_rungs, started_trials


class StudyASHA(NotPickled, ASHAScheduler):
    """ASHA (Li et al., 2020) whose rungs are keyed by the study's trial number and survive a restart.

    The rungs are `asha_rungs`; a third of the trials continues after each. `refill` restores them from the study.

    Some trials run whole, see `runs_whole`. While they show that the scores at a rung do not tell those at the end, no
    trial is pruned there.

    protected: numbers of trials whose configurations are known to be good. One is pruned only at the last rung, and
    only if at both rungs it lies behind the best whole trial by more than `noise`, the uncertainty of a score.
    """

    def __init__(
        self,
        *,
        metric: str,
        epochs: int,
        protected: Container[int] = (),
        noise: Callable[[], float] = lambda: math.inf,
    ):
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=epochs,
            grace_period=max(1, epochs / 9),  # pyright: ignore[reportArgumentType]  # a float, see asha_rungs
            reduction_factor=3,
        )
        self.epochs, self.protected, self.noise = epochs, protected, noise
        self.curves: dict[int, dict[int, float]] = {}  # scores of the trials that run whole, by epoch

    def refill(self, study: optuna.Study) -> None:
        """Restore the rungs, and end the running trials whose last epoch already decided that."""
        trials = sorted(started_trials(study), key=lambda t: (not t.state.is_finished(), t.number))
        for trial in trials:
            key = SimpleNamespace(config={"training": trial.number})
            self.on_trial_add(None, key)
            decision = TrialScheduler.CONTINUE
            for epoch, value in sorted(trial.intermediate_values.items()):
                decision = self.on_trial_result(None, key, {"epoch": epoch, self._metric: value})
            if trial.state == TrialState.RUNNING and decision == TrialScheduler.STOP:
                study.tell(trial.number, *finish(trial.intermediate_values, self.epochs, ended=False))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _by_number(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        decision = super().on_trial_result(tune_controller, _by_number(trial), result)
        number, epoch = trial.config["training"], result[self._time_attr]
        if runs_whole(number, self.protected):
            self.curves.setdefault(number, {})[epoch] = result[self._metric]
            stops = number in self.protected and self._beaten(number, epoch)
        else:
            stops = decision == TrialScheduler.STOP and not self._misleads(epoch)
        return TrialScheduler.STOP if stops or epoch >= self.epochs else TrialScheduler.CONTINUE

    def _misleads(self, epoch: int) -> bool:
        return any(found.misleads for found in agreements(self.curves.values(), self.epochs) if found.rung == epoch)

    def _beaten(self, number: int, epoch: int) -> bool:
        rungs = asha_rungs(self.epochs)
        finished = [curve for curve in self.curves.values() if self.epochs in curve]
        if len(rungs) < 2 or epoch != rungs[-1] or not finished:
            return False
        best = max(finished, key=lambda curve: max(curve.values()))
        behind = min(best[rung] - self.curves[number].get(rung, math.inf) for rung in rungs)
        return behind > 0 and behind > self.noise()

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        super().on_trial_complete(tune_controller, _by_number(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, _by_number(trial))


def _by_number(trial: Any) -> Any:
    return SimpleNamespace(trial_id=trial.config["training"])
