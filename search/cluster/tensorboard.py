"""TensorBoard events of a search, written to the run folder as they come."""

import time
from contextlib import suppress
from typing import Any

from ray import tune
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
from tensorboardX.summary import hparams, scalar

from search.cluster.pickling import NotPickled
from search.run_folder.paths import RunPaths

COSTS = ("lr", "seconds", "memory_gb")  # shown beside the metrics


class TensorBoard(NotPickled, tune.Callback):
    """Writes each trial's scalars by epoch and, when it ends, its parameters as hyperparameters.

    By hand, since Tune's own callback writes elsewhere and moves the files when the search ends, and tensorboardX's
    SummaryWriter writes from a thread whose queue blocks the search on a full disk. Here events are lost instead.
    """

    def __init__(self, paths: RunPaths, metric: str):
        self.paths, self.metric = paths, metric
        self.writers: dict[int | str, EventsWriter] = {}  # by training

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "epoch" not in result:  # the last report of a training that ended early or failed
            return
        known = {k: v for k, v in result.items() if k.startswith(("train_", "val_")) or k in COSTS}
        self._write(trial, [scalar(name, value) for name, value in known.items()], result["epoch"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.on_trial_complete(iteration, trials, trial)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        if trial.config["training"] in self.writers:
            self._write(trial, hparams(trial.config["params"], {self.metric: 0.0}))
            with suppress(OSError):
                self.writers.pop(trial.config["training"]).close()

    def _write(self, trial: Any, summaries: Any, step: int | None = None) -> None:
        training = trial.config["training"]
        with suppress(OSError):
            if training not in self.writers:
                folder = self.paths.events(training)
                folder.mkdir(parents=True, exist_ok=True)
                self.writers[training] = EventsWriter(str(folder / "events"))
            for summary in summaries:
                self.writers[training].write_event(Event(wall_time=time.time(), step=step, summary=summary))
            file = self.writers[training]._py_recordio_writer._writer
            assert file is not None
            file.flush()  # their own flush also waits for the disk
