"""What Ray Tune runs next, taken from the study."""

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.cluster.pickling import NotPickled
from search.cluster.worker import ENDED, FAILED, INTERRUPTED, OUT_OF_MEMORY, Job
from search.run_folder.files import StorageError
from search.run_folder.paths import RunPaths
from search.run_folder.records import Configuration
from search.study.sampler import SeededSampler
from search.study.trials import Attr, ask_trial, started_trials
from search.trial.device import MachineError

SAME_FAILURES = 3  # in a row end the search
DRAWS = 500  # random configurations after which a space is considered exhausted
LOST = "the worker was lost several times: see the memory and the logs of its node"
CONTINUED = "the worker was lost; another one continues from the last checkpoint"


class StudySearcher(NotPickled, Searcher):
    """Asks the study for trials and tells it everything they report. The search has no other memory than the study.

    paths: of the run, which contains the study.
    configure: the job of an Optuna trial; what it raises is that trial's failure.
    worst: the score of a trial that diverged or ran out of memory.
    on_change: called with a trial that started, reported an epoch or ended.
    shares_gpus: whether trials share GPUs. One whose share has too little memory then runs again with a GPU to itself,
        after all others.
    fits: whether an enqueued trial may start now; if not, it goes on waiting.

    No configuration runs twice: if the sampler repeats one, a new one is drawn at random instead, and if none is left,
    the search is `exhausted`.

    If the machine fails to write, here or on a worker, or `on_change` raises, `halted` is the error and the study stays
    as it was: trials that have not ended are unfinished.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        paths: RunPaths,
        configure: Callable[[optuna.Trial], Job],
        metric: str,
        epochs: int,
        trials: int,
        worst: float,
        on_change: Callable[[FrozenTrial], None],
        shares_gpus: bool = False,
        fits: Callable[[FrozenTrial], bool] = lambda trial: True,
    ):
        super().__init__(metric=metric, mode="max")
        self.study, self.paths, self.configure, self.epochs = study, paths, configure, epochs
        self.trials, self.worst, self.on_change, self.fits = trials, worst, on_change, fits
        self.shares_gpus = shares_gpus
        self.live: dict[str, optuna.Trial] = {}
        self.spent: dict[int, float] = {}  # seconds of training, by trial number
        started = started_trials(study)
        running = [t for t in started if t.state == TrialState.RUNNING]
        self.unfinished = deque(t._trial_id for t in running)
        self.alone: deque[int] = deque()  # those that run again with a GPU to themselves
        self.asked = len(started) - len(running)
        self.exhausted = False
        self.known: dict[str, int] = {}  # the first trial with a configuration
        for known in started:
            if (config := known.user_attrs.get(Attr.CONFIG)) is not None:
                self.known.setdefault(_key(config), known.number)
        self.failures: deque[str] = deque(maxlen=SAME_FAILURES)
        self.broken: str | None = None  # the message of the failures in a row
        self.halted: Exception | None = None

    @contextmanager
    def halting(self) -> Iterator[None]:
        """Halt the search if what is done fails."""
        try:
            yield
        except OSError as error:  # nothing may follow a journal line that was cut off
            self.halted = StorageError.of(self.paths.folder, error)
        except Exception as error:  # Tune would blame the trial
            self.halted = error

    def suggest(self, trial_id: str) -> Any:  # a job, Searcher.FINISHED, or None if there may be one later
        if self.halted or self.broken:
            return Searcher.FINISHED
        if not self.unfinished and not self.alone and (self.exhausted or self.asked >= self.trials):
            return None if self.live and self.shares_gpus else Searcher.FINISHED  # one of them may have to run again
        with self.halting():
            return self._start(trial_id)
        return Searcher.FINISHED

    def _start(self, trial_id: str) -> Any:
        self.asked += 1
        if self.unfinished:
            trial = optuna.trial.Trial(self.study, self.unfinished.popleft())
        elif self.alone and (self.exhausted or self.asked + len(self.alone) > self.trials):
            trial = optuna.trial.Trial(self.study, self.alone.popleft())
        else:
            trial = ask_trial(self.study, self.fits)
        try:
            job = self.configure(trial)
        except OSError:  # of the journal
            raise
        except Exception as error:  # an impossible configuration, or a mistake in the space
            self._fail(trial, " ".join(f"{type(error).__name__}: {error}".split()))
            self.on_change(self._frozen(trial))
            return self.suggest(trial_id)
        if self.known.setdefault(_key(job.config), trial.number) != trial.number:
            return self._start_another(trial_id, trial, self.known[_key(job.config)])
        self.live[trial_id] = trial
        self.on_change(self._frozen(trial))
        return job.to_tune()

    def _start_another(self, trial_id: str, trial: optuna.Trial, same_as: int) -> Any:
        """Start a new configuration instead of this trial."""
        self.asked -= 1
        trial.set_user_attr(Attr.DUPLICATE, same_as)
        self.study.tell(trial, state=TrialState.FAIL)
        assert isinstance(self.study.sampler, SeededSampler)
        drawn = optuna.create_study(sampler=SeededSampler("random", trial.number, self.study.sampler.pins))
        for _ in range(DRAWS):
            candidate = drawn.ask()
            try:
                key = _key(self.configure(candidate).config)
            except Exception:  # an impossible configuration
                continue
            if key not in self.known:
                self.study.enqueue_trial(candidate.params)
                return self._start(trial_id)
        self.exhausted = True
        return self.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        if self.halted:
            return
        trial = self.live[trial_id]
        self.spent[trial.number] = result.get("seconds", 0.0)
        with self.halting():
            self._record(trial, result)
            self.on_change(self._frozen(trial))

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        trial = self.live.pop(trial_id, None)
        if trial is None or self.halted:
            return
        result = result or {}
        if result.get("outcome") == INTERRUPTED:
            self.halted = MachineError(result["error"])
            return
        with self.halting():
            self._end(trial, result, error)

    def _end(self, trial: optuna.Trial, result: dict, error: bool) -> None:
        self._record(trial, result)
        for cost in (Attr.SECONDS, Attr.MEMORY):
            if cost in result:
                trial.set_user_attr(cost, round(result[cost], 2))
        values = self._frozen(trial).intermediate_values
        outcome, message = result.get("outcome"), result.get("error")
        if error:  # the machine's failure: the trial is unfinished, and continues when the run does
            self._count_loss(trial, LOST)
            self._count_failure(LOST)
        elif outcome == FAILED:
            self._fail(trial, str(message))
        elif outcome == OUT_OF_MEMORY and self.shares_gpus and Attr.ALONE not in self._frozen(trial).user_attrs:
            trial.set_user_attr(Attr.ALONE, True)
            self.paths.note(trial.number, "it runs again with a GPU to itself, after all others")
            self.alone.append(trial._trial_id)
            self.asked -= 1
        elif outcome is not None and outcome != ENDED:
            self.failures.clear()
            trial.set_user_attr(Attr.ERROR, message)
            self.study.tell(trial, self.worst)
        elif values:
            self.failures.clear()
            self.study.tell(trial, *finish(values, self.epochs, ended=outcome == ENDED))
        self.on_change(self._frozen(trial))

    def _record(self, trial: optuna.Trial, result: dict) -> None:
        """Tell the study an epoch that is new to it."""
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

    def on_loss(self, trial_id: str) -> None:
        """The worker of a trial was lost, and Tune starts another one."""
        if (trial := self.live.get(trial_id)) is not None and not self.halted:
            with self.halting():
                self._count_loss(trial, CONTINUED)

    def _count_loss(self, trial: optuna.Trial, message: str) -> None:
        trial.set_user_attr(Attr.LOST, self._frozen(trial).user_attrs.get(Attr.LOST, 0) + 1)
        self.paths.note(trial.number, message)

    def _count_failure(self, message: str) -> None:
        self.failures.append(re.sub(r"\d+", "0", message))  # the same but for addresses and sizes
        if len(self.failures) == SAME_FAILURES and len(set(self.failures)) == 1:
            self.broken = message

    def _fail(self, trial: optuna.Trial, message: str) -> None:
        self._count_failure(message)
        trial.set_user_attr(Attr.ERROR, message)
        self.study.tell(trial, state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is saved whenever it changes."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its study")


def _key(config: Configuration) -> str:
    """Equal for equal configurations."""
    return json.dumps(config, sort_keys=True)


def finish(values: dict[int, float], epochs: int, *, ended: bool) -> tuple[float | None, TrialState]:
    """The value and state of a trial with these scores: complete after all epochs or early stopping, else pruned."""
    if ended or max(values) >= epochs:
        return max(values.values()), TrialState.COMPLETE
    return None, TrialState.PRUNED
