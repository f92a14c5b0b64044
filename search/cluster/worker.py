"""What runs on a Ray worker: one trial after the other in one process."""

import contextlib
import gc
import os
import random
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from search.cluster.resources import Resources
from search.run_folder.files import StorageError
from search.running.publishing import trial_folder, trial_log
from search.tasks import TASKS
from search.trial import memory
from search.trial.training import checkpointed_training, pick_device
from voctrain.data import Data


class Worker(tune.Trainable):
    """A trial as Ray Tune sees it: a step is an epoch. Whatever goes wrong in a trial is reported, not raised.

    config: number, config (of the task), params (for who watches), bar. The last report of a trial that did not just
    reach its last epoch has an `outcome`: ended (early stopping), diverged, out of memory, failed, or interrupted by a
    failure of the machine; all but the first come with an `error`.
    """

    def setup(self, config: dict[str, Any], *, data: Data, task: str, run: str, rungs: list[int], resources: Resources):
        torch.set_num_threads(resources.cpus)
        gc.freeze()  # what the imports made stays: collecting after each trial need not look at it
        self.data, self.task, self.run, self.rungs, self.gpus = data, task, Path(run), rungs, resources.gpus
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Begin another trial in this process (with reuse_actors), as if it were a new one."""
        self.cleanup()
        random.seed(config["number"])
        np.random.seed(config["number"])
        self.log = trial_log(self.run, config["number"])
        self.epochs, self.costs = self._train(config), {"seconds": 0.0}
        return True

    def _train(self, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        trial_config = TASKS[self.task].config.from_dict(config["config"])
        self._write(f"trial {config['number']} on {socket.gethostname()}, process {os.getpid()}: {trial_config}")
        device = pick_device(self.gpus)
        memory.reset_peak(device)
        for report in checkpointed_training(
            self.task,
            trial_config,
            self.data,
            trial_folder(self.run, config["number"]),
            device=device,
            rungs=self.rungs,
            bar=config["bar"],
        ):
            yield report | {"memory_gb": memory.peak(device)}

    def step(self) -> dict[str, Any]:
        try:
            report = next(self.epochs)
        except StopIteration:
            return self._last("ended")
        except FloatingPointError as error:
            return self._broken("diverged", f"diverged: {error}")
        except torch.OutOfMemoryError as error:
            return self._broken("out of memory", f"out of memory: {str(error).splitlines()[0]}")
        except StorageError as error:
            return self._broken("interrupted", str(error))
        except torch.AcceleratorError:
            raise  # this process can no longer use its GPU: another one continues the trial
        except Exception as error:
            self._write(traceback.format_exc())
            return self._broken("failed", f"{type(error).__name__}: {error}".splitlines()[0])
        self.costs = {name: report[name] for name in ("seconds", "memory_gb")}
        self._write(", ".join(f"{k} {v:.4g}" for k, v in report.items()))
        return report

    def _broken(self, outcome: str, message: str) -> dict[str, Any]:
        self._write(message)
        return self._last(outcome) | {"error": message}

    def _last(self, outcome: str) -> dict[str, Any]:
        return {"done": True, "outcome": outcome, **self.costs}

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError), open(self.log, "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def cleanup(self) -> None:
        self.epochs = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
