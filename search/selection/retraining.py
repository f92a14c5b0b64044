"""The trainings of `search.final`, run by the same workers as trials, each one kept under a name of its own."""

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from search.cluster.execution import Ticker, execute
from search.cluster.interrupt import Interrupt, Stopped
from search.cluster.pickling import NotPickled
from search.cluster.resources import Resources
from search.cluster.searcher import CONTINUED, LOST
from search.cluster.worker import DIVERGED, FAILED, INTERRUPTED, OUT_OF_MEMORY, Job
from search.reporter import Reporter
from search.run_folder.files import read_arrays, read_json, read_torch, write_arrays, write_json
from search.run_folder.history import EpochRecord
from search.run_folder.paths import RunPaths
from search.run_folder.records import Checkpoint
from search.tasks import Predictions, Task
from search.text import shell_path
from search.trial.training import STATE, WEIGHTS, unpack
from voctrain.config import TrainConfig
from voctrain.data import Data

RESULT, PREDICTIONS, HELD_OUT = "result.json", "predictions.npz", "held_out.npz"  # beside a training's weights
STATUS_SECONDS = 30.0  # between two lines about the trainings done


class SelectionFailed(RuntimeError):
    """There is no final model. The message is one line that tells the cause and what to do."""


@dataclass(frozen=True)
class Retraining:
    """A training: what people call it, its configuration, and its name in the folder."""

    name: str
    config: TrainConfig
    training: str
    epochs: int  # it ends after these, and its last weights count: choosing the best would look at the held-out images
    fold: tuple[int, int] | None = None  # fold K of N is held out; None: what the data's split says


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    training: str
    history: list[EpochRecord]
    error: str | None = None  # "diverged: …" or "ran out of memory: …"


class Retrainings:
    """Runs trainings on the connected cluster and keeps their results in `paths`."""

    def __init__(self, paths: RunPaths, task: Task, data: Data, resources: Resources, reporter: Reporter):
        self.paths, self.task, self.data, self.resources, self.reporter = paths, task, data, resources, reporter

    def run(
        self,
        jobs: Sequence[Retraining],
        interrupt: Interrupt,
        pointless: Callable[[Mapping[str, Result]], Container[str]] = lambda results: (),
    ) -> dict[str, Result]:
        """The results by training; only those that have none yet are trained.

        pointless: the trainings that need not start any more, from the results so far. Raises `Stopped` after a signal,
        and `SelectionFailed` for a training or a machine that fails.
        """
        results = {job.training: result for job in jobs if (result := self._read(job)) is not None}
        left = [job for job in jobs if job.training not in results]
        searcher = RetrainingSearcher(left, self.task.metric, self.paths)
        searcher.skip(pointless(results))
        printed = time.monotonic()

        def tick() -> None:
            nonlocal printed
            while searcher.ended:
                job, result = searcher.ended.popleft()
                results[job.training] = self._keep(job, result)
                searcher.skip(pointless(results))
            if time.monotonic() - printed > STATUS_SECONDS:
                printed = time.monotonic()
                self.reporter.status(f"{len(results)} of {len(results) + searcher.to_go} trainings done")

        if searcher.waiting:
            execute(
                searcher,
                None,
                data=self.data,
                task=self.task,
                paths=self.paths,
                rungs=(),
                resources=self.resources,
                stop=lambda: bool(interrupt.signal or searcher.failure),
                ticker=Ticker(on_start=lambda: None, on_loss=searcher.on_loss, on_step=tick),
            )
        tick()
        if searcher.failure is not None:
            raise searcher.failure
        if interrupt.signal is not None:
            raise Stopped(interrupt.signal)
        return results

    def predictions(self, job: Retraining) -> Predictions:
        """The predictions of the images that a training has not seen."""
        arrays = read_arrays(self._file(job, PREDICTIONS))
        return unpack(self.weights(job)["predictions"]) if arrays is None else arrays

    def held_out(self, job: Retraining) -> Predictions:
        """See `Task.held_out`; its weights are needed the first time."""
        file = self._file(job, HELD_OUT)
        if (arrays := read_arrays(file)) is None:
            arrays = self.task.held_out(self.weights(job), self.held(job))
            write_arrays(file, arrays)
        return arrays

    def held(self, job: Retraining) -> Data:
        """The data with the split of a training."""
        return self.data if job.fold is None else self.data.fold(*job.fold)

    def weights(self, job: Retraining) -> Checkpoint:
        """The checkpoint of a training."""
        file = self._file(job, WEIGHTS)
        saved = read_torch(self.paths.fetched(file))
        if saved is None:
            self.paths.drop(self._file(job, RESULT))
            raise SelectionFailed(f"{shell_path(file)} is damaged: the same command trains {job.name} again")
        return saved

    def has_weights(self, job: Retraining) -> bool:
        return self.paths.fetched(self._file(job, WEIGHTS)).exists()

    def forget(self, jobs: Iterable[Retraining]) -> None:
        """Let trainings run again whose weights are gone."""
        for job in jobs:
            if not self.has_weights(job):
                self.paths.drop(self._file(job, RESULT))

    def drop_weights(self, jobs: Iterable[Retraining]) -> None:
        for job in jobs:
            self.paths.drop(self._file(job, WEIGHTS))

    def _read(self, job: Retraining) -> Result | None:
        """The result of an earlier call; None if it, or a file that belongs to it, is missing."""
        values = read_json(self._file(job, RESULT))
        if values is None:
            return None
        result = Result(**values)
        needed = (PREDICTIONS,) if self.task.submits is None else (PREDICTIONS, HELD_OUT)
        known = all(self._file(job, name).exists() for name in needed)
        return result if result.error or known or self.has_weights(job) else None

    def _keep(self, job: Retraining, result: Result) -> Result:
        """Write the result of a training that has just ended."""
        if result.error:
            self.reporter.status(f"{job.name}: {result.error}")
        else:
            saved = self.weights(job)
            if saved["predictions"]:
                write_arrays(self._file(job, PREDICTIONS), unpack(saved["predictions"]))
                self.reporter.status(f"{job.name}: {self.task.metric} {result.history[-1][self.task.metric]:.4f}")
        self.paths.drop(self._file(job, STATE))
        write_json(self._file(job, RESULT), asdict(result))
        return result

    def _file(self, job: Retraining, name: str) -> Path:
        return self.paths.checkpoint(job.training) / name


class RetrainingSearcher(NotPickled, Searcher):
    """Hands a list of trainings to Ray Tune, and collects their epochs."""

    def __init__(self, jobs: Sequence[Retraining], metric: str, paths: RunPaths):
        super().__init__(metric=metric, mode="max")
        self.paths = paths
        self.waiting = deque(jobs)
        self.live: dict[str, tuple[Retraining, dict[int, EpochRecord]]] = {}
        self.ended: deque[tuple[Retraining, Result]] = deque()
        self.failure: SelectionFailed | None = None

    @property
    def to_go(self) -> int:
        return len(self.waiting) + len(self.live)

    def skip(self, trainings: Container[str]) -> None:
        """Do not start these."""
        self.waiting = deque(job for job in self.waiting if job.training not in trainings)

    def suggest(self, trial_id: str) -> Any:  # a job, or Searcher.FINISHED
        if not self.waiting:
            return Searcher.FINISHED
        job = self.waiting.popleft()
        self.live[trial_id] = job, {}
        config = job.config.to_dict()
        work = {"last_epoch": job.epochs, "fold": job.fold}
        return Job(job.training, config, config, min_score=-math.inf, **work).to_tune()

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        self._record(self.live[trial_id][1], result)

    def on_loss(self, trial_id: str) -> None:
        """The worker of a training was lost, and Tune starts another one."""
        if trial_id in self.live:
            self.paths.note(self.live[trial_id][0].training, CONTINUED)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        job, history = self.live.pop(trial_id, (None, {}))
        result = result or {}
        if job is None or (not error and "outcome" not in result):  # everything was stopped
            return
        self._record(history, result)
        outcome, message = result.get("outcome"), result.get("error")
        if error or outcome == FAILED:
            cause = LOST if error else message
            self.failure = SelectionFailed(f"the training of {job.name} failed: {cause}")
        elif outcome == INTERRUPTED:
            self.failure = SelectionFailed(str(message))
        else:
            lost = message if outcome in (DIVERGED, OUT_OF_MEMORY) else None
            self.ended.append((job, Result(job.training, [history[number] for number in sorted(history)], lost)))

    @staticmethod
    def _record(history: dict[int, EpochRecord], result: dict) -> None:
        if "epoch" in result:
            known = ("epoch", "seconds", "memory_gb", "lr")
            history[result["epoch"]] = {
                name: value for name, value in result.items() if name in known or name.startswith(("train_", "val_"))
            }

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: results are kept as they come."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a selection is continued from its results")


def training_name(data: Data, config: TrainConfig, **work: Any) -> str:
    """A hash of all that decides the result of a training."""
    if data.resize != "squash":  # names of earlier versions stay what they were
        work["resize"] = data.resize
    text = json.dumps([data.fingerprint, data.train.tolist(), config.to_dict(), work], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
