"""The Ray worker: one training after another in one process."""

import gc
import math
import os
import random
import re
import socket
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ray import tune

from search.cluster.resources import Resources
from search.run_folder.files import StorageError
from search.run_folder.history import EpochRecord, append_epoch, start_history, write_log
from search.run_folder.paths import RunPaths
from search.run_folder.records import Configuration
from search.tasks import find_task
from search.trial import memory
from search.trial.device import MachineError, device_of
from search.trial.training import checkpointed_training
from voctrain.data import Data

ENDED, DIVERGED, OUT_OF_MEMORY, FAILED, INTERRUPTED = "ended", "diverged", "out of memory", "failed", "interrupted"

# What PyTorch says when this process, or the machine, has no memory or threads left for a training on a CPU.
EXHAUSTED = re.compile("could not create a primitive|not enough memory|allocate memory|bad_alloc|start new thread")


@dataclass(frozen=True)
class Job:
    """One training, as Ray Tune hands it to a worker."""

    training: int | str  # its trial number, or its name, see `RunPaths`
    config: Configuration  # of the task
    params: Configuration  # of the search space, for people
    min_score: float  # the weights are not kept below it
    last_epoch: int | None = None  # the training ends after it and keeps its last weights, not its best
    fold: tuple[int, int] | None = None  # fold K of N of the data is for validation, not what their split says
    alone: bool = False  # with a GPU to itself, because its share of one had too little memory

    def to_tune(self) -> dict[str, object]:
        """As Tune's configuration of a trial."""
        return dict(vars(self))


class Worker(tune.Trainable):
    """Runs trainings as Ray Tune asks; a step is an epoch. A mistake in a training is reported, not raised.

    Its configuration is that of a `Job`. The last report of a training that did not just reach its last epoch contains
    an `outcome`: ended (early stopping), diverged, out of memory, failed, or interrupted by a failure of the machine.
    All but the first come with an `error`.
    """

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride]  # Tune passes what with_parameters was given
        self, config: dict, *, data: Data, task: str, paths: RunPaths, rungs: Sequence[int], resources: Resources
    ) -> None:
        torch.set_num_threads(resources.cpus)
        gc.freeze()  # objects made by imports stay alive: collecting after each training need not visit them
        self.data, self.task, self.paths, self.rungs, self.resources = data, find_task(task), paths, rungs, resources
        self.reset_config(config)

    def reset_config(self, new_config: dict) -> bool:
        """Start another training in this process (with reuse_actors), as if it were a new one."""
        self.cleanup()
        self.job = Job(**new_config)
        seed = self.job.training if isinstance(self.job.training, int) else 0
        random.seed(seed)
        np.random.seed(seed)
        self.epochs, self.epoch, self.costs = self._train(self.job), 0, {"seconds": 0.0}
        start_history(self.paths.history(self.job.training))
        return True

    def _train(self, job: Job) -> Iterator[EpochRecord]:
        config = self.task.config.from_dict(job.config)
        self._log(f"training {job.training} on {socket.gethostname()}, process {os.getpid()}: {config}")
        gpus = self.resources.gpus_of(job.alone)
        device = device_of(gpus)
        memory.limit(device, gpus)
        memory.reset_peak(device)
        for report in checkpointed_training(
            self.task.module,
            config,
            self.data if job.fold is None else self.data.fold(*job.fold),
            self.paths.checkpoint(job.training),
            device=device,
            rungs=self.rungs if job.last_epoch is None else (job.last_epoch,),
            min_score=job.min_score,
            keeps_last=job.last_epoch is not None,
            state_written=self._state_written,
        ):
            yield report | {"memory_gb": memory.peak(device)}
            if report["epoch"] == job.last_epoch:
                return

    def step(self) -> dict:
        assert self.epochs is not None
        try:
            report = next(self.epochs)
        except StopIteration:
            return self._last(ENDED)
        except FloatingPointError as error:
            return self._broken(DIVERGED, f"diverged: {error}")
        except torch.OutOfMemoryError as error:
            return self._broken(OUT_OF_MEMORY, f"out of memory: {str(error).splitlines()[0]}")
        except StorageError as error:
            return self._broken(INTERRUPTED, f"{error}: {error.repair}")
        except MachineError as error:
            return self._broken(INTERRUPTED, str(error))
        except torch.AcceleratorError:
            raise  # this process can no longer use its GPU: another one continues the training
        except Exception as error:
            self._log(traceback.format_exc())
            if isinstance(error, MemoryError) or EXHAUSTED.search(str(error)):
                if self._exhausted_before():
                    return self._broken(OUT_OF_MEMORY, f"out of memory: {error}".splitlines()[0])
                raise  # perhaps because of others: a new process continues the training
            return self._broken(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
        if not math.isfinite(report.get(self.task.metric, 0)):
            return self._broken(
                FAILED, f"{self.task.metric} is {report[self.task.metric]} after epoch {report['epoch']}"
            )
        self.epoch = report["epoch"]
        self.costs = {name: report[name] for name in ("seconds", "memory_gb")}
        append_epoch(self.paths.history(self.job.training), report)
        self._log(", ".join(f"{k} {v:.4g}" for k, v in report.items()))
        return report

    def _state_written(self) -> None:
        """Do nothing: the driver and other workers see it."""

    def _exhausted_before(self) -> bool:
        """Whether another process had no memory for the same epoch; it is noted that this one has none."""
        note, now = self.paths.checkpoint(self.job.training) / "exhausted", str(self.epoch)
        if note.exists() and note.read_text() == now:
            return True
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(now)
        return False

    def _broken(self, outcome: str, message: str) -> dict:
        self._log(message)
        return self._last(outcome) | {"error": message}

    def _last(self, outcome: str) -> dict:
        return {"done": True, "outcome": outcome, **self.costs}

    def _log(self, text: str) -> None:
        write_log(self.paths.log(self.job.training), text)

    def cleanup(self) -> None:
        self.epochs: Iterator[EpochRecord] | None = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
