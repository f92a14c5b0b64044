"""Ray Tune's two decisions, taken from the study: what to try next, and what to stop."""

import math
import re
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from search import study as studies
from search.files import StorageError

SAME_FAILURES = 3  # in a row end the search


class NeverRestored:
    """Tune pickles what it is given, to restore it some day. We never do that: these pickle as nothing."""

    def __reduce__(self) -> tuple:
        return object, ()


class StudySearcher(NeverRestored, Searcher):
    """Asks the study for trials and tells it everything they report; the study alone is the search's memory.

    folder: of the run, where the study is kept.
    configure: the worker's configuration of an Optuna trial (raises ValueError for one that cannot be).
    worst: the score told for a trial that diverged or ran out of memory.
    on_change: called with a trial that started, reported an epoch or ended.

    Where the machine fails to write, here or on a worker, `halted` says so and the study is left as it was: what has
    not ended is unfinished.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        folder: Path,
        configure: Callable[[optuna.Trial], dict[str, Any]],
        metric: str,
        epochs: int,
        trials: int,
        worst: float,
        on_change: Callable[[FrozenTrial], None],
    ):
        super().__init__(metric=metric, mode="max")
        self.study, self.folder, self.configure, self.epochs = study, folder, configure, epochs
        self.trials, self.worst, self.on_change = trials, worst, on_change
        self.live: dict[str, optuna.Trial] = {}
        self.spent: dict[int, float] = {}  # seconds of training of a trial, by its number
        running = [t for t in studies.started(study) if t.state == TrialState.RUNNING]
        self.unfinished = deque(t._trial_id for t in running)
        self.asked = len(studies.started(study)) - len(running)
        self.failures: deque[str] = deque(maxlen=SAME_FAILURES)
        self.broken: str | None = None  # the message with which trials failed one after the other
        self.halted: str | None = None  # how the machine failed

    @contextmanager
    def _halting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # after a line that was cut off, nothing may be written to the journal
            self.halted = str(StorageError.of(self.folder, error))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.halted or self.broken or (not self.unfinished and self.asked >= self.trials):
            return Searcher.FINISHED
        with self._halting():
            return self._start(trial_id)
        return Searcher.FINISHED

    def _start(self, trial_id: str) -> dict[str, Any] | str | None:
        self.asked += 1
        trial = optuna.trial.Trial(self.study, self.unfinished.popleft()) if self.unfinished else self.study.ask()
        try:
            config = self.configure(trial)
        except ValueError as error:
            self._fail(trial, f"ValueError: {error}")
            return self.suggest(trial_id)
        self.live[trial_id] = trial
        self.on_change(self._frozen(trial))
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.halted:
            return
        trial = self.live[trial_id]
        self.spent[trial.number] = result.get("seconds", 0.0)
        with self._halting():
            self._record(trial, result)
            self.on_change(self._frozen(trial))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.live.pop(trial_id, None)
        if trial is None or self.halted:
            return
        if (result or {}).get("outcome") == "interrupted":
            self.halted = result["error"]
            return
        with self._halting():
            self._end(trial, result or {}, error)

    def _end(self, trial: optuna.Trial, result: dict[str, Any], error: bool) -> None:
        self._record(trial, result)
        for cost in (studies.SECONDS, studies.MEMORY):
            if cost in result:
                trial.set_user_attr(cost, round(result[cost], 2))
        values = self._frozen(trial).intermediate_values
        outcome, message = result.get("outcome"), result.get("error")
        if error:
            self._fail(trial, "the worker was lost again and again: see its node's memory and log")
        elif outcome == "failed":
            self._fail(trial, message)
        elif outcome is not None and outcome != "ended":
            self.failures.clear()
            trial.set_user_attr(studies.ERROR, message)
            self.study.tell(trial, self.worst)
        elif values:
            self.failures.clear()
            self.study.tell(trial, *finish(values, self.epochs, ended=outcome == "ended"))
        self.on_change(self._frozen(trial))

    def _record(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        """Tell the study an epoch that it does not know yet."""
        frozen = self._frozen(trial)
        if self.metric not in result or result["epoch"] in frozen.intermediate_values:
            return
        if studies.WORKER not in frozen.user_attrs:
            trial.set_user_attr(studies.WORKER, [result["hostname"], result["pid"]])
        if result[self.metric] > max(frozen.intermediate_values.values(), default=-math.inf):
            metrics = {name: value for name, value in result.items() if name.startswith(("train_", "val_"))}
            trial.set_user_attr(studies.METRICS, metrics)
        trial.report(result[self.metric], result["epoch"])

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self.study._storage.get_trial(trial._trial_id)

    def _fail(self, trial: optuna.Trial, message: str) -> None:
        self.failures.append(re.sub(r"\d+", "0", message))  # the same but for addresses and sizes
        if len(self.failures) == SAME_FAILURES and len(set(self.failures)) == 1:
            self.broken = message
        trial.set_user_attr(studies.ERROR, message)
        self.study.tell(trial, state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is saved as it changes."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its study")


def finish(values: dict[int, float], epochs: int, *, ended: bool) -> tuple[float | None, TrialState]:
    """How a trial with these scores ends: complete after all epochs or by itself, else pruned."""
    if ended or max(values) >= epochs:
        return max(values.values()), TrialState.COMPLETE
    return None, TrialState.PRUNED


class StudyASHA(NeverRestored, ASHAScheduler):
    """ASHA (Li et al., 2020) whose rungs are keyed by the study's trial number and survive a restart.

    Rungs as `study.rungs` has them, a third goes on. `refill` feeds it what the study holds.
    whole: numbers of trials that are compared with but never stopped.
    """

    def __init__(self, *, metric: str, epochs: int, whole: Container[int] = ()):
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=epochs,
            grace_period=max(1, epochs / 9),
            reduction_factor=3,
        )
        self.epochs, self.whole = epochs, whole

    def refill(self, study: optuna.Study) -> None:
        """Restore the rungs, and end the running trials whose last epoch already decided it."""
        trials = sorted(studies.started(study), key=lambda t: (not t.state.is_finished(), t.number))
        for trial in trials:
            key = SimpleNamespace(config={"number": trial.number})
            self.on_trial_add(None, key)
            decision = TrialScheduler.CONTINUE
            for epoch, value in sorted(trial.intermediate_values.items()):
                decision = self.on_trial_result(None, key, {"epoch": epoch, self._metric: value})
            if trial.state == TrialState.RUNNING and decision == TrialScheduler.STOP:
                study.tell(trial.number, *finish(trial.intermediate_values, self.epochs, ended=False))

    def on_trial_add(self, controller, trial):
        super().on_trial_add(controller, _by_number(trial))

    def on_trial_result(self, controller, trial, result):
        decision = super().on_trial_result(controller, _by_number(trial), result)
        spared = trial.config["number"] in self.whole and result[self._time_attr] < self.epochs
        return TrialScheduler.CONTINUE if spared else decision

    def on_trial_complete(self, controller, trial, result):
        super().on_trial_complete(controller, _by_number(trial), result)

    def on_trial_remove(self, controller, trial):
        super().on_trial_remove(controller, _by_number(trial))


def _by_number(trial: Any) -> SimpleNamespace:
    return SimpleNamespace(trial_id=trial.config["number"])
