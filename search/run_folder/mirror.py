"""A local folder and its copy in a store: the run folder of a driver, or the scratch folder of a worker."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from search.run_folder.store import Store, StoredFile, StoreError

AHEAD = ".ahead"  # marks a folder that has, or will have, what its store has not
JOURNAL = "study.journal"
PUSH_SECONDS = 5.0  # at least, between two uploads of a file that often changes
SHARE = 20  # and at least 20 times as long as its upload takes
PATIENCE = 240.0  # seconds that a store may be away; a worker that waited for longer would seem to hang
RETRY_SECONDS = 2.0
CONNECTIONS = 8

CHECKPOINTS = re.compile(r"(final/)?checkpoints/[^/]+/([^/]+\.pt|exhausted)$")
NOTES = re.compile(r"(final/)?(logs|history)/")
# Locks, unfinished and hidden files, and Ray Tune's own snapshots, which nobody reads.
PRIVATE = re.compile(r"(.*/)?\.[^/]*$|.*\.lock(\.soft)?$|(final/)?ray/(?![^/]+/events[^/]*$)")
LAST = ("run.json", "state.pt")  # mean that the files beside them are there

T = TypeVar("T")


class Mirror:
    """Copies files between a local folder and a store. Its methods raise `StoreError`.

    Workers write checkpoints, histories and logs, and the driver all else, so they never overwrite each other's files.
    Pickled, it is only the two places.
    """

    def __init__(self, folder: Path, store: Store, *, of_worker: bool = False):
        self.folder, self.store, self.of_worker = folder, store, of_worker
        self.equal: dict[str, tuple[int, int]] = {}  # local files that the store has, by their times and sizes
        self.due: dict[str, float] = {}  # when a file may be uploaded again, of time.monotonic
        self.dropped: set[str] = set()  # files and folders to be deleted in the store
        self.trouble: str | None = None  # why the store cannot be reached at present
        self.lost: StoreError | None = None  # another process has taken over the run

    def __reduce__(self) -> tuple[type["Mirror"], tuple[Path, Store]]:
        return Mirror, (self.folder, self.store)

    def name(self, path: Path) -> str:
        """Of a local file or folder in the store."""
        return path.relative_to(self.folder).as_posix()

    def fetch(self, file: Path) -> None:
        """Make a local file what it is in the store."""
        found = self.store.find(self.name(file))
        if found is None:
            file.unlink(missing_ok=True)
        else:
            self._download(self.name(file), found)

    def fetch_now(self, file: Path) -> None:
        """The same, but at once an error while the store is known to be away, which would take seconds to answer."""
        if self.trouble is not None:
            raise StoreError(self.trouble)
        self.fetch(file)

    def fetch_folder(self, folder: Path) -> None:
        """Bring all files of a folder here."""
        self._each(self._download, self.store.files(self.name(folder)).items())

    def fetch_notes(self) -> None:
        """Bring the histories and logs of all trials here."""
        for name in ("history", "logs"):
            self.fetch_folder(self.folder / name)

    def restore(self) -> None:
        """Bring here all that the store has, except checkpoints.

        A folder that is ahead of the store, because its driver was killed or could not reach it, only gets the notes of
        workers, unless the run has been continued elsewhere since.
        """
        stored = {name: found for name, found in self.store.files().items() if not PRIVATE.match(name)}
        ahead = (self.folder / AHEAD).exists()
        if ahead and not self._continues(self.store.read(JOURNAL) or b""):
            ahead = False
            self._empty()
        wanted = {n: found for n, found in stored.items() if NOTES.match(n) or not (ahead or CHECKPOINTS.match(n))}
        self._each(self._download, wanted.items())

    def _continues(self, journal: bytes) -> bool:
        """Whether the journal here begins with that of the store, whose last line may be incomplete."""
        here = self.folder / JOURNAL
        return here.exists() and here.read_bytes().startswith(journal[: journal.rfind(b"\n") + 1])

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.endswith((".lock", ".lock.soft")):
                path.unlink()

    def _download(self, name: str, found: StoredFile) -> None:
        file, now = self.folder / name, time.time_ns()
        if file.exists() and _stamp(file) == (found.changed, found.size):
            self.equal[name] = _stamp(file)
            return
        self.store.download(name, file)
        if now - found.changed > 10e9:  # stores count whole seconds: a later change may seem to be the same
            os.utime(file, ns=(found.changed, found.changed))
        self.equal[name] = _stamp(file)

    def push(self, folder: Path, *, everything: bool = False) -> None:
        """Upload what has changed in a folder; with `everything`, also what is not due yet. Delete what was dropped."""
        dropped = set(self.dropped)
        changed = [name for name in self._names(folder) if self.equal.get(name) != _stamp(self.folder / name)]
        ready = [name for name in changed if everything or time.monotonic() >= self.due.get(name, 0.0)]
        for last in (False, True):
            self._each(self._upload, [(name,) for name in ready if name.endswith(LAST) is last])
        # A trial whose end the store's journal does not have will need its checkpoint.
        if dropped and JOURNAL not in set(changed) - set(ready):
            self._delete(dropped)
            self.dropped -= dropped

    def _names(self, folder: Path) -> list[str]:
        """The files in a folder that are this process's to upload."""
        names = [self.name(path) for path in folder.rglob("*") if path.is_file()]
        theirs = (PRIVATE,) if self.of_worker else (PRIVATE, CHECKPOINTS, NOTES)
        return [name for name in names if not any(kind.match(name) for kind in theirs)]

    def _upload(self, name: str) -> None:
        file, started = self.folder / name, time.monotonic()
        with suppress(FileNotFoundError):  # deleted in the meantime
            stamp = _stamp(file)
            self.store.upload(file, name)
            self.equal[name] = stamp
            now = time.monotonic()
            if not name.endswith(".pt"):  # these change seldom, and belong together
                self.due[name] = now + max(PUSH_SECONDS, SHARE * (now - started))

    def _delete(self, dropped: set[str]) -> None:
        folders = {name.partition("checkpoints/")[0] + "checkpoints" for name in dropped}
        stored = [name for folder in folders for name in self.store.files(folder)]
        gone = [name for name in stored if any(f"{name}/".startswith(f"{each}/") for each in dropped)]
        self._each(self.store.delete, [(name,) for name in gone])

    def keep_checkpoints(self, trainings: Iterable[str]) -> None:
        """Delete the checkpoints and notes of all other trainings in the store, at once."""
        kept = set(trainings)
        stored = [name for folder in ("checkpoints", "history", "logs") for name in self.store.files(folder)]
        other = [name for name in stored if name.split("/")[1].partition(".")[0] not in kept]
        self._each(self.store.delete, [(name,) for name in other])
        for name in other:
            (self.folder / name).unlink(missing_ok=True)

    def patiently(self, action: Callable[[], T]) -> T:
        """Do something, again and again for `PATIENCE` seconds if the store is away."""
        started = time.monotonic()
        while True:
            try:
                result, self.trouble = action(), None
                return result
            except StoreError as error:
                self.trouble = str(error)
                if self.lost or time.monotonic() - started > PATIENCE:
                    raise
                time.sleep(RETRY_SECONDS)

    @staticmethod
    def _each(action: Callable[..., None], arguments: Iterable[tuple]) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(lambda each: action(*each), arguments):
                pass


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size
