"""The names of all files in a run folder."""

import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from search.run_folder.files import StorageError
from search.run_folder.history import write_log
from search.run_folder.mirror import Mirror
from search.text import shell_path


@dataclass(frozen=True)
class RunPaths:
    """The files of a run, or of the trainings of its final model, which lie in `final`.

    A training is named by its trial number or, for the final model, by a hash of all that decides its result.
    If the run is in a store, `folder` is a local working folder, and `mirror` copies its files.
    """

    folder: Path
    mirror: Mirror | None = field(default=None, compare=False)

    @property
    def uri(self) -> str | None:
        """Of the run, if it is in a store."""
        return None if self.mirror is None else self.mirror.store.uri

    @property
    def place(self) -> str:
        """The run as commands take it, quoted for a shell."""
        return shell_path(self.folder) if self.uri is None else shlex.quote(self.uri)

    def beside(self, name: str) -> "RunPaths":
        """Another run, in the same folder or store."""
        folder = self.folder.with_name(name)
        return RunPaths(folder, None if self.mirror is None else Mirror(folder, self.mirror.store.beside(name)))

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
    def audit(self) -> Path:
        """The labels in doubt, with what the user decides of them."""
        return self.folder / "audit.csv"

    @property
    def audit_page(self) -> Path:
        return self.folder / "audit.html"

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
        return RunPaths(self.folder / "final", self.mirror)

    @property
    def final_record(self) -> Path:
        return self.folder / "final" / "final.json"

    @property
    def final_weights(self) -> Path:
        return self.folder / "final" / "final.pt"

    @property
    def ensemble(self) -> Path:
        """The checkpoint of all networks of the final model, if it has several."""
        return self.folder / "final" / "ensemble.pt"

    @property
    def ensemble_record(self) -> Path:
        return self.folder / "final" / "ensemble.json"

    @property
    def out_of_fold(self) -> Path:
        """What models that never saw an image say of it, for each labeled image."""
        return self.folder / "final" / "out_of_fold.npz"

    @property
    def card(self) -> Path:
        """What the final model is, for people."""
        return self.folder / "final" / "card.md"

    def fetched(self, file: Path, *, waits: bool = True) -> Path:
        """A file that a worker has written, brought here. Raises `StoreError`, if it waits after some minutes."""
        if (mirror := self.mirror) is not None:
            mirror.patiently(lambda: mirror.fetch(file)) if waits else mirror.fetch_now(file)
        return file

    def share(self, file: Path) -> Path:
        """A file that a command has just written; a run's store gets it now. Raises `StoreError`."""
        if self.mirror is not None:
            self.mirror.store.upload(file, self.mirror.name(file))
        return file

    def drop(self, path: Path) -> None:
        """Delete a file or a folder that is no longer needed. A run's store has it until its journal is there, too."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.dropped.add(self.mirror.name(path))

    def note(self, training: int | str, text: str) -> None:
        """Add a line to the log of a training whose worker does not write it now. A failure to do so is ignored."""
        file = self.log(training)
        if self.mirror is None:
            return write_log(file, text)
        with suppress(StorageError):
            self.mirror.fetch(file)
            write_log(file, text)
            self.mirror.store.upload(file, self.mirror.name(file))
        return None


def training_name(training: int | str) -> str:
    """A training in file names: 0007 for a trial."""
    return f"{training:04d}" if isinstance(training, int) else training
