"""One driver per run."""

import errno
import os
import socket
import threading
import time
import uuid
from contextlib import suppress

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from search.run_folder.files import StorageError
from search.run_folder.mirror import Mirror
from search.run_folder.paths import RunPaths
from search.run_folder.store import StoreError, TakenOver

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # of some network file systems: there the file itself is the lock
BEAT_SECONDS = 5.0  # how often the holder of a lock in a store writes it
DEAD_SECONDS = 20.0  # without that, after which its process counts as dead


class RunLock:
    """A lock that is held."""

    def __init__(self, local: BaseFileLock, stored: "StoreLock | None" = None):
        self.local, self.stored = local, stored

    def release(self) -> None:
        if self.stored is not None:
            self.stored.release()
        self.local.release()


def lock(paths: RunPaths) -> RunLock:
    """Lock a run until the lock is released or the process ends.

    A process may lock a local run several times, and must release it as often. Raises `ValueError` if another process
    has the lock, and `StorageError` if its file cannot be written. For a run in a store, that may take 20 seconds.
    """
    local = _local_lock(paths)
    if paths.mirror is None:
        return RunLock(local)
    try:
        return RunLock(local, StoreLock(paths.mirror, paths.mirror.name(paths.lock)))
    except BaseException:
        local.release()
        raise


def _local_lock(paths: RunPaths) -> BaseFileLock:
    try:
        return _acquired(FileLock(paths.lock, timeout=0, is_singleton=True))
    except Timeout:
        raise ValueError(f"{paths.folder} is used by another process: wait for it or stop it first") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StorageError.of(paths.lock, error) from None
    try:
        return _acquired(SoftFileLock(paths.soft_lock, timeout=0, is_singleton=True))
    except Timeout:
        raise ValueError(
            f"{paths.folder} is used by another process: wait for it or stop it first, or delete {paths.soft_lock} if"
            " that process has died on another machine"
        ) from None
    except OSError as error:
        raise StorageError.of(paths.soft_lock, error) from None


def _acquired(held: BaseFileLock) -> BaseFileLock:
    held.acquire()
    return held


class StoreLock:
    """A file in a store that its holder writes every few seconds. Whoever sees it change leaves the run alone.

    Stores have no locks of their own, and not all can write on a condition. Of two processes that begin at the same
    time, the one that wrote first finds the other's name and gives up: `mirror.lost` tells.
    """

    def __init__(self, mirror: Mirror, name: str):
        """Raises `ValueError` if another process has the lock, and `StoreError`."""
        self.mirror, self.name, self.over = mirror, name, threading.Event()
        self.owner = f"process {os.getpid()} on {socket.gethostname()} ({uuid.uuid4().hex[:8]})"
        self._wait_for_silence()
        self._beat()
        self.thread = threading.Thread(target=self._keep_beating, daemon=True)
        self.thread.start()

    def _wait_for_silence(self) -> None:
        found = before = self.mirror.store.read(self.name)
        since = time.monotonic()
        while found is not None and time.monotonic() - since < DEAD_SECONDS:
            time.sleep(BEAT_SECONDS / 5)
            found = self.mirror.store.read(self.name)
            if found not in (None, before):
                raise ValueError(f"{self.mirror.store.uri} is used by {_owner(found)}: wait for it or stop it first")

    def _beat(self) -> None:
        self.mirror.store.write(self.name, f"{self.owner}\n{time.time()}\n".encode())

    def _keep_beating(self) -> None:
        while not self.over.wait(BEAT_SECONDS):
            with suppress(StoreError):  # it may be away for a while
                found = self.mirror.store.read(self.name)
                if found is not None and _owner(found) != self.owner:
                    self.mirror.lost = TakenOver(f"{_owner(found)} has taken over {self.mirror.store.uri}")
                    return
                self._beat()

    def release(self) -> None:
        """Let other processes use the run."""
        self.over.set()
        self.thread.join()
        if self.mirror.lost is None:
            with suppress(StoreError):
                self.mirror.store.delete(self.name)


def _owner(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace").partition("\n")[0]
