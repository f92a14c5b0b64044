"""The copy of a run in its store, kept up to date while a command works on the run."""

import threading
from collections.abc import Callable
from contextlib import suppress

from search.run_folder.mirror import AHEAD, PUSH_SECONDS, Mirror
from search.run_folder.paths import RunPaths
from search.run_folder.store import StoreError


class Uploads:
    """While it is entered, a thread uploads what changes in a folder of a run, and the rest is uploaded at its end.

    A store that is away is tried again; `paths.mirror.trouble` tells why, and `warn` gets it if the end must wait. If
    it stays away, the end raises `StoreError`. A run that is in no store is left alone.
    """

    def __init__(self, paths: RunPaths, warn: Callable[[str], None]):
        self.paths, self.warn, self.over = paths, warn, threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if (mirror := self.paths.mirror) is not None:
            if self.paths.folder == mirror.folder:
                (mirror.folder / AHEAD).touch()
            self.thread = threading.Thread(target=self._keep_pushing, args=(mirror,), daemon=True)
            self.thread.start()

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        mirror = self.paths.mirror
        if mirror is None or self.thread is None:
            return
        self.over.set()
        self.thread.join()
        if mirror.lost is not None or not self.paths.folder.exists():
            return
        try:
            self._complete(mirror)
        except StoreError as error:
            if kind is not None:  # there is an error already, perhaps the same
                return
            self.warn(f"waiting for the store: {error}")
            mirror.patiently(lambda: self._complete(mirror))

    def _complete(self, mirror: Mirror) -> None:
        mirror.push(self.paths.folder, everything=True)
        with suppress(FileNotFoundError):
            (self.paths.folder / AHEAD).unlink()

    def _keep_pushing(self, mirror: Mirror) -> None:
        while not self.over.wait(PUSH_SECONDS) and mirror.lost is None:
            try:
                mirror.push(self.paths.folder)
                mirror.trouble = None
            except StoreError as error:
                mirror.trouble = str(error)
            except OSError:  # of the folder: the command itself meets it
                continue
