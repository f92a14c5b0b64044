"""The Ray worker of a run in a store: it shares no folder with the driver."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.cluster.worker import INTERRUPTED, Job, Worker
from search.run_folder.history import EpochRecord
from search.run_folder.mirror import Mirror
from search.run_folder.paths import RunPaths
from search.run_folder.store import StoreError


class StoreWorker(Worker):
    """Trains in a scratch folder of its own, whose files it copies to the store.

    A training begins with what the store has of it. Its weights are there before the driver hears of an epoch after
    which it may end, so at these epochs a worker waits for a store that is away; otherwise it tries again later.
    """

    def setup(self, config: dict, *, paths: RunPaths, **given: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert paths.mirror is not None
        self.scratch = tempfile.TemporaryDirectory(prefix="voc-search-")
        self.mirror = Mirror(Path(self.scratch.name), paths.mirror.store, of_worker=True)
        folder = self.mirror.folder / paths.folder.relative_to(paths.mirror.folder)
        super().setup(config, paths=RunPaths(folder, self.mirror), **given)

    def _train(self, job: Job) -> Iterator[EpochRecord]:
        self.mirror.patiently(lambda: self._fetch(job))
        yield from super()._train(job)

    def _fetch(self, job: Job) -> None:
        self.mirror.fetch_folder(self.paths.checkpoint(job.training))
        self.mirror.fetch(self.paths.log(job.training))

    def step(self) -> dict:
        report = super().step()
        last = (*self.rungs, self.job.config["epochs"], self.job.last_epoch)
        waits = report.get("outcome") != INTERRUPTED and (report.get("done") or report["epoch"] in last)
        if not waits:
            self._copy(everything=False)
            return report
        try:
            self.mirror.patiently(lambda: self.mirror.push(self.mirror.folder, everything=True))
        except StoreError as error:
            return self._broken(INTERRUPTED, f"{error}: {error.repair}")
        return report

    def _state_written(self) -> None:
        self._copy()

    def _exhausted_before(self) -> bool:
        before = super()._exhausted_before()
        self._copy()
        return before

    def _copy(self, *, everything: bool = True) -> None:
        with suppress(StoreError):  # what is missing is copied later
            self.mirror.push(self.mirror.folder, everything=everything)

    def cleanup(self) -> None:
        super().cleanup()
        self._copy()
        for folder in self.mirror.folder.iterdir():
            shutil.rmtree(folder)
        self.mirror.equal.clear()
        self.paths.log(0).parent.mkdir(parents=True)
