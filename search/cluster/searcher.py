"""What Ray Tune tries next, taken from the study."""

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.run_folder.files import StorageError
from search.study.sampler import SeededSampler
from search.study.trials import Attr, ask_trial, started_trials

SAME_FAILURES = 3  # in a row end the search
DRAWS = 500  # random configurations after which a space is taken to hold no other one


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
    fits: whether an enqueued trial may start now; one that does not fit goes on waiting.

    No configuration is run twice: where the sampler repeats one, a new one is drawn at random in its place, and where
    none is left, the search is `exhausted`.

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
        fits: Callable[[FrozenTrial], bool] = lambda trial: True,
    ):
        super().__init__(metric=metric, mode="max")
        self.study, self.folder, self.configure, self.epochs = study, folder, configure, epochs
        self.trials, self.worst, self.on_change, self.fits = trials, worst, on_change, fits
        self.live: dict[str, optuna.Trial] = {}
        self.spent: dict[int, float] = {}  # seconds of training of a trial, by its number
        started = started_trials(study)
        running = [t for t in started if t.state == TrialState.RUNNING]
        self.unfinished = deque(t._trial_id for t in running)
        self.asked = len(started) - len(running)
        self.exhausted = False
        self.known: dict[str, int] = {}  # of each configuration, the first trial that has it
        for known in started:
            if (config := known.user_attrs.get(Attr.CONFIG)) is not None:
                self.known.setdefault(_key({"config": config}), known.number)
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
        if self.halted or self.broken or self.exhausted or (not self.unfinished and self.asked >= self.trials):
            return Searcher.FINISHED
        with self._halting():
            return self._start(trial_id)
        return Searcher.FINISHED

    def _start(self, trial_id: str) -> dict[str, Any] | str | None:
        self.asked += 1
        if self.unfinished:
            trial = optuna.trial.Trial(self.study, self.unfinished.popleft())
        else:
            trial = ask_trial(self.study, self.fits)
        try:
            config = self.configure(trial)
        except ValueError as error:
            self._fail(trial, f"ValueError: {error}")
            return self.suggest(trial_id)
        if self.known.setdefault(_key(config), trial.number) != trial.number:
            return self._start_another(trial_id, trial, self.known[_key(config)])
        self.live[trial_id] = trial
        self.on_change(self._frozen(trial))
        return config

    def _start_another(self, trial_id: str, trial: optuna.Trial, same_as: int) -> dict[str, Any] | str | None:
        """Start a configuration that no trial has, in place of this trial."""
        self.asked -= 1
        trial.set_user_attr(Attr.DUPLICATE, same_as)
        self.study.tell(trial, state=TrialState.FAIL)
        drawn = optuna.create_study(sampler=SeededSampler("random", trial.number, self.study.sampler.pins))
        for _ in range(DRAWS):
            candidate = drawn.ask()
            with suppress(ValueError):  # no configuration can be made of it
                if _key(self.configure(candidate)) not in self.known:
                    self.study.enqueue_trial(candidate.params)
                    return self._start(trial_id)
        self.exhausted = True
        return Searcher.FINISHED

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
        for cost in (Attr.SECONDS, Attr.MEMORY):
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
            trial.set_user_attr(Attr.ERROR, message)
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
        if Attr.WORKER not in frozen.user_attrs:
            trial.set_user_attr(Attr.WORKER, [result["hostname"], result["pid"]])
        if result[self.metric] > max(frozen.intermediate_values.values(), default=-math.inf):
            metrics = {name: value for name, value in result.items() if name.startswith(("train_", "val_"))}
            trial.set_user_attr(Attr.METRICS, metrics)
        trial.report(result[self.metric], result["epoch"])

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self.study._storage.get_trial(trial._trial_id)

    def _fail(self, trial: optuna.Trial, message: str) -> None:
        self.failures.append(re.sub(r"\d+", "0", message))  # the same but for addresses and sizes
        if len(self.failures) == SAME_FAILURES and len(set(self.failures)) == 1:
            self.broken = message
        trial.set_user_attr(Attr.ERROR, message)
        self.study.tell(trial, state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is saved as it changes."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its study")


def _key(configured: dict[str, Any]) -> str:
    """What two equal configurations have in common."""
    return json.dumps(configured["config"], sort_keys=True)


def finish(values: dict[int, float], epochs: int, *, ended: bool) -> tuple[float | None, TrialState]:
    """How a trial with these scores ends: complete after all epochs or by itself, else pruned."""
    if ended or max(values) >= epochs:
        return max(values.values()), TrialState.COMPLETE
    return None, TrialState.PRUNED
