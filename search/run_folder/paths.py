"""The names of all files in a run folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The files of a run, or of the trainings of its final model, which lie in `final`.

    A training is named by its trial number or, for the final model, by a hash of all that decides its result.
    """

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / "run.json"

    @property
    def lock(self) -> Path:
        return self.folder / "run.lock"

    @property
    def soft_lock(self) -> Path:
        """The lock on a file system that has none of its own."""
        return self.folder / "run.lock.soft"

    @property
    def journal(self) -> Path:
        return self.folder / "study.journal"

    @property
    def space(self) -> Path:
        """The user's own search space, if there is one."""
        return self.folder / "space.py"

    @property
    def trials(self) -> Path:
        return self.folder / "trials.csv"

    @property
    def best(self) -> Path:
        return self.folder / "best.json"

    @property
    def best_weights(self) -> Path:
        return self.folder / "best.pt"

    @property
    def predictions(self) -> Path:
        """The validation predictions of the best epoch."""
        return self.folder / "val_predictions.npz"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def tensorboard(self) -> Path:
        """Ray Tune's folder, where TensorBoard finds its events."""
        return self.folder / "ray"

    def log(self, training: int | str) -> Path:
        return self.folder / "logs" / f"{training_name(training)}.log"

    def history(self, training: int | str) -> Path:
        """The metrics of each epoch, see `search.run_folder.history`."""
        return self.folder / "history" / f"{training_name(training)}.jsonl"

    def checkpoint(self, training: int | str) -> Path:
        """The folder of a training's state and weights while they are needed."""
        return self.folder / "checkpoints" / training_name(training)

    def events(self, training: int | str) -> Path:
        """The folder of a training's TensorBoard events."""
        return self.tensorboard / training_name(training)

    @property
    def final(self) -> "RunPaths":
        """The trainings of `search.final`."""
        return RunPaths(self.folder / "final")

    @property
    def final_record(self) -> Path:
        return self.folder / "final" / "final.json"

    @property
    def final_weights(self) -> Path:
        return self.folder / "final" / "final.pt"

    @property
    def card(self) -> Path:
        """What the final model is, for people."""
        return self.folder / "final" / "card.md"


def training_name(training: int | str) -> str:
    """A training in file names: 0007 for a trial."""
    return f"{training:04d}" if isinstance(training, int) else training
