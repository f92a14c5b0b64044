"""One driver per run."""

from filelock import BaseFileLock, FileLock, Timeout

from search.run_folder.files import StorageError
from search.run_folder.paths import RunPaths

RunLock = BaseFileLock


def lock(paths: RunPaths) -> RunLock:
    """Lock a run until the lock is released or the process ends.

    A process may lock a run several times, and must release it as often. Raises `ValueError` if another process has
    the lock, and `StorageError` if its file cannot be written.
    """
    held = FileLock(paths.lock, timeout=0, is_singleton=True)
    try:
        held.acquire()
    except Timeout:
        raise ValueError(f"{paths.folder} is used by another process: wait for it or stop it first") from None
    except OSError as error:
        raise StorageError.of(paths.lock, error) from None
    return held
