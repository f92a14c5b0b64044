"""TensorBoard events of a search, in the run's folder as they come."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import hparams, scalar

from search.cluster.searcher import NeverRestored

COSTS = ("lr", "seconds", "memory_gb")  # what is shown beside the metrics


class TensorBoard(NeverRestored, tune.Callback):
    """Writes each trial's scalars by epoch and, when it ends, its parameters as hyperparameters.

    Tune's own callback writes beside the run and moves the files when the search ends. tensorboardX's SummaryWriter
    writes from a thread, and where that cannot (a full disk) its queue blocks the search: here events are lost instead.
    """

    def __init__(self, folder: Path, metric: str):
        self.folder, self.metric = folder, metric
        self.writers: dict[int, EventsWriter] = {}

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "epoch" not in result:  # the last word of a trial that ended early or broke
            return
        known = {k: v for k, v in result.items() if k.startswith(("train_", "val_")) or k in COSTS}
        self._write(trial, [scalar(name, value) for name, value in known.items()], result["epoch"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.on_trial_complete(iteration, trials, trial)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        if trial.config["number"] in self.writers:
            self._write(trial, hparams(trial.config["params"], {self.metric: 0.0}))
            with suppress(OSError):
                self.writers.pop(trial.config["number"]).close()

    def _write(self, trial: Any, summaries: Any, step: int | None = None) -> None:
        number = trial.config["number"]
        with suppress(OSError):
            if number not in self.writers:
                folder = self.folder / f"{number:04d}"
                folder.mkdir(parents=True, exist_ok=True)
                self.writers[number] = EventsWriter(str(folder / "events"))
            for summary in summaries:
                self.writers[number].write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self.writers[number].flush()
