"""One driver per run."""

import errno

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from search.run_folder.files import StorageError
from search.run_folder.paths import RunPaths

RunLock = BaseFileLock
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # of some network file systems: there the file itself is the lock


def lock(paths: RunPaths) -> RunLock:
    """Lock a run until the lock is released or the process ends.

    A process may lock a run several times, and must release it as often. Raises `ValueError` if another process has
    the lock, and `StorageError` if its file cannot be written.
    """
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


def _acquired(held: RunLock) -> RunLock:
    held.acquire()
    return held
