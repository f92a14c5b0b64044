"""TensorBoard events of a search, in the run's folder as they come."""

from pathlib import Path
from typing import Any

from ray import tune
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from search.searcher import NeverRestored

FLUSH_SECONDS = 5.0
COSTS = ("lr", "seconds", "memory_gb")  # what is shown beside the metrics


class TensorBoard(NeverRestored, tune.Callback):
    """Writes each trial's scalars by epoch and, when it ends, its parameters as hyperparameters.

    Tune's own callback writes beside the run and moves the files when the search ends.
    """

    def __init__(self, folder: Path, metric: str):
        self.folder, self.metric = folder, metric
        self.writers: dict[int, SummaryWriter] = {}

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "epoch" not in result:  # the last word of a trial that ended early or broke
            return
        number = trial.config["number"]
        if number not in self.writers:
            self.writers[number] = SummaryWriter(str(self.folder / f"{number:04d}"), flush_secs=FLUSH_SECONDS)
        for name, value in result.items():
            if name.startswith(("train_", "val_")) or name in COSTS:
                self.writers[number].add_scalar(name, value, result["epoch"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.on_trial_complete(iteration, trials, trial)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        writer = self.writers.pop(trial.config["number"], None)
        if writer is None:
            return
        for summary in hparams(trial.config["params"], {self.metric: 0.0}):
            writer.file_writer.add_summary(summary)
        writer.close()
