"""The trainings of `search.final`, run by the same workers as trials, each one kept under a name of its own."""

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
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
from search.tasks import Task
from search.text import shell_path
from search.trial.training import STATE, WEIGHTS, unpack
from voctrain.config import TrainConfig
from voctrain.data import Data

STATUS_SECONDS = 30.0  # between two lines about the trainings done


class SelectionFailed(RuntimeError):
    """There is no final model. The message is one line that tells the cause and what to do."""


@dataclass(frozen=True)
class Retraining:
    """A training: what people call it, its configuration, and its name in the folder."""

    name: str
    config: TrainConfig
    training: str
    last_epoch: int | None = None  # without validation images: it ends after this epoch and keeps its weights
    teaches: bool = False  # whether it keeps the weights of its best epoch


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    training: str
    history: list[EpochRecord]
    error: str | None = None  # "diverged: …" or "ran out of memory: …"
    original_size: dict[str, float] | None = None  # metrics at the images' original sizes, once they are known


class Retrainings:
    """Runs trainings on the connected cluster and keeps their results in `paths`."""

    def __init__(self, paths: RunPaths, task: Task, data: Data, resources: Resources, reporter: Reporter):
        self.paths, self.task, self.data, self.resources, self.reporter = paths, task, data, resources, reporter

    def run(self, jobs: Sequence[Retraining], interrupt: Interrupt) -> dict[str, Result]:
        """The results by training; only those that have none yet are trained.

        Raises `Stopped` after a signal, and `SelectionFailed` for a training or a machine that fails.
        """
        results = {job.training: result for job in jobs if (result := self._read(job)) is not None}
        left = [job for job in jobs if job.training not in results]
        searcher = RetrainingSearcher(left, self.task.metric, self.paths)
        printed = time.monotonic()

        def tick() -> None:
            nonlocal printed
            while searcher.ended:
                job, result = searcher.ended.popleft()
                results[job.training] = self._keep(job, result)
            if time.monotonic() - printed > STATUS_SECONDS:
                printed = time.monotonic()
                self.reporter.status(f"{len(results)} of {len(jobs)} trainings done")

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
        return {job.training: self._measured(job, results[job.training]) for job in jobs}

    def predictions(self, training: str) -> dict[str, np.ndarray]:
        """The validation predictions of a training's best epoch."""
        arrays = read_arrays(self._predictions_file(training))
        assert arrays is not None
        return arrays

    def weights(self, training: str) -> Checkpoint:
        """The checkpoint of a training that keeps its weights."""
        return read_torch(self.paths.fetched(self.paths.checkpoint(training) / WEIGHTS)) or {}

    def _read(self, job: Retraining) -> Result | None:
        """The result of an earlier call; None if it, or a file that belongs to it, is missing."""
        values = read_json(self._result_file(job.training))
        if values is None:
            return None
        result = Result(**values)
        needed = [] if job.last_epoch else [self._predictions_file(job.training)]
        if job.last_epoch or job.teaches or result.original_size is None:
            needed.append(self.paths.fetched(self.paths.checkpoint(job.training) / WEIGHTS))
        return result if result.error or all(file.exists() for file in needed) else None

    def _keep(self, job: Retraining, result: Result) -> Result:
        """Write the result of a training that has just ended."""
        folder, metric = self.paths.checkpoint(job.training), self.task.metric
        if result.error:
            self.reporter.status(f"{job.name}: {result.error}")
        elif job.last_epoch is None:
            scores = [epoch[metric] for epoch in result.history]
            self.reporter.status(f"{job.name}: {metric} best {max(scores):.4f}, last {scores[-1]:.4f}")
            saved = read_torch(self.paths.fetched(folder / WEIGHTS))
            if saved is None:
                raise SelectionFailed(f"the training of {job.name} left no weights in {shell_path(folder)}")
            write_arrays(self._predictions_file(job.training), unpack(saved["predictions"]))
        self.paths.drop(folder / STATE)
        write_json(self._result_file(job.training), asdict(result))
        return result

    def _measured(self, job: Retraining, result: Result) -> Result:
        """The result with its metrics at the images' original sizes; weights that are no longer needed are deleted.

        After all trainings: until then they have the GPU to themselves.
        """
        if result.error or job.last_epoch or result.original_size is not None:
            return result
        weights = self.paths.checkpoint(job.training) / WEIGHTS
        saved = read_torch(self.paths.fetched(weights))
        if saved is None:
            self.paths.drop(self._result_file(job.training))
            raise SelectionFailed(f"{shell_path(weights)} is damaged: the same command trains {job.name} again")
        result = replace(result, original_size=self.task.at_original_size(saved, self.data))
        write_json(self._result_file(job.training), asdict(result))
        if not job.teaches:
            self.paths.drop(weights)
        return result

    def _result_file(self, training: str) -> Path:
        return self.paths.checkpoint(training) / "result.json"

    def _predictions_file(self, training: str) -> Path:
        return self.paths.checkpoint(training) / "predictions.npz"


class RetrainingSearcher(NotPickled, Searcher):
    """Hands a list of trainings to Ray Tune, and collects their epochs."""

    def __init__(self, jobs: Sequence[Retraining], metric: str, paths: RunPaths):
        super().__init__(metric=metric, mode="max")
        self.paths = paths
        self.waiting = deque(jobs)
        self.live: dict[str, tuple[Retraining, dict[int, EpochRecord]]] = {}
        self.ended: deque[tuple[Retraining, Result]] = deque()
        self.failure: SelectionFailed | None = None

    def suggest(self, trial_id: str) -> Any:  # a job, or Searcher.FINISHED
        if not self.waiting:
            return Searcher.FINISHED
        job = self.waiting.popleft()
        self.live[trial_id] = job, {}
        config = job.config.to_dict()
        return Job(job.training, config, config, min_score=-math.inf, last_epoch=job.last_epoch).to_tune()

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
