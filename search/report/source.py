"""The input of a report: a run folder and its data, as far as they exist and have not changed."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optuna.trial import FrozenTrial

from search.reporter import Reporter
from search.run_folder.files import read_arrays, read_torch
from search.run_folder.history import read_history
from search.run_folder.lock import lock
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, RunRecord, read_best, read_run
from search.session.images import load_images
from search.session.origin import file_digest
from search.study.journal import read_study
from search.study.trials import rank_trials, started_trials
from search.tasks import Score, Task, find_task
from voctrain.data import Data


@dataclass(frozen=True)
class Source:
    """A run, which may be running."""

    paths: RunPaths
    record: RunRecord
    trials: list[FrozenTrial]
    best: BestRecord | None
    data: Data | None = None
    missing_data: str = ""  # why there are none

    @property
    def task(self) -> Task:
        return find_task(self.record.task)

    @property
    def metric(self) -> str:
        return self.record.metric

    @property
    def sampler(self) -> str:
        return self.record.options.sampler

    @cached_property
    def ranked(self) -> list[FrozenTrial]:
        """The trials that scored, best first."""
        return rank_trials(self.trials)

    @property
    def files_unchanged(self) -> bool:
        """Whether the files that evaluating a model needs, such as a victim, are what they were."""
        if self.best is None:
            return True
        with suppress(OSError):
            files = {name: self.best.config.get(name) for name in self.task.needed}
            return all(file and file_digest(file) == self.record.digests.get(name) for name, file in files.items())
        return False

    @property
    def outdated(self) -> bool:
        """Whether the task's tables and pictures are missing, or older than the best checkpoint."""
        best = self.paths.best_weights
        if self.task.conclusion is None or not best.exists():
            return False
        made = self.paths.folder / self.task.conclusion
        return not made.exists() or made.stat().st_mtime < best.stat().st_mtime

    def conclude(self) -> None:
        """Bring these up to the best checkpoint, unless another process uses the run."""
        best = read_torch(self.paths.best_weights)
        if self.data is None or best is None or not self.outdated or not self.files_unchanged:
            return
        with suppress(ValueError, OSError):  # the run is used, read-only, or of another version
            held = lock(self.paths)
            try:
                self.task.conclude(self.paths, self.record, best, self.data, Reporter(self.record.options.quiet))
            finally:
                held.release()

    def rescored(self) -> tuple[Score, list[str]] | None:
        """The best score as a function of the validation images, and their ids; None if a file it needs is missing."""
        predictions = read_arrays(self.paths.predictions)
        if self.best is None or predictions is None or not self.files_unchanged:
            return None
        with suppress(ValueError):  # a configuration of another version
            return self.task.rescore(predictions, self.best.config), predictions["ids"].tolist()
        return None

    def unfinished_seconds(self) -> dict[int, float]:
        """The seconds that each unfinished trial has trained."""
        running = [t.number for t in self.trials if not t.state.is_finished()]
        histories = {number: read_history(self.paths.history(number)) for number in running}
        return {number: epochs[max(epochs)]["seconds"] for number, epochs in histories.items() if epochs}


def read_source(run: Path, data: Data | None = None, *, with_data: bool = True) -> Source:
    """Read a run; its data are loaded unless they are given. Raises `ValueError` for anything that is not a run."""
    record, paths, missing = read_run(run), RunPaths(run), ""
    if data is None and with_data:
        data, missing = _load(record)
    return Source(paths, record, started_trials(read_study(paths.journal, record.id)), read_best(paths), data, missing)


def _load(record: RunRecord) -> tuple[Data | None, str]:
    """The data of a run; or None, and why."""
    place = record.options.data
    try:
        data = load_images(record.options)
        if data.fingerprint != record.data.fingerprint:
            return None, f"{place} has changed since"
        return data.with_split(record.split.train, record.split.val), ""
    except (ValueError, OSError) as error:
        return None, str(error).splitlines()[0]
