"""One driver per run."""

from filelock import BaseFileLock, FileLock, Timeout

from search.run_folder.paths import RunPaths

RunLock = BaseFileLock


def lock(paths: RunPaths) -> RunLock:
    """Lock a run until the lock is released or the process ends. Raises `ValueError` if another process has it.

    A process may lock a run several times; it is free when each of them has been released.
    """
    held = FileLock(paths.lock, timeout=0, is_singleton=True)
    try:
        held.acquire()
    except (Timeout, OSError):
        raise ValueError(f"{paths.folder} is used by another process: wait for it or stop it first") from None
    return held
