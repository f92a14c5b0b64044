"""The folder of a new run."""

import itertools
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from search.options import SearchOptions
from search.run_folder.files import StorageError
from search.run_folder.location import is_stored, local_path, of_store
from search.run_folder.lock import RunLock, lock
from search.run_folder.mirror import AHEAD
from search.run_folder.paths import RunPaths
from search.run_folder.store import Store, StoreError, open_store

SUBFOLDERS = ("logs", "history", "checkpoints")  # of a new run
JOB_COPIES = "runtime_resources"  # the folder of `ray job submit --working-dir`


def new_folder(task: str, options: SearchOptions) -> RunPaths:
    """Where a new run is going to be. Raises `ValueError` if it cannot be there."""
    name = options.name or f"{task}-{datetime.now():%Y%m%d-%H%M%S}"
    if is_stored(options.out):
        paths = of_store(_usable(open_store(options.out)) / name)
    else:
        paths = RunPaths((local_path(options.out) / name).resolve())
    folder = paths.folder
    if options.name is not None and _is_taken(paths):
        raise ValueError(_taken(paths))
    if JOB_COPIES in folder.parts:
        raise ValueError(f"{folder} is in the copy of a Ray job, which is deleted with it: give --out another folder")
    parent = next(p for p in folder.parents if p.exists())
    if not parent.is_dir() or not _is_writable(parent):
        raise ValueError(f"cannot write in {parent}: give --out a folder that you may write to")
    return paths


def _usable(store: Store) -> Store:
    try:
        store.check()
    except StoreError as error:
        raise ValueError(
            f"{error}: give --out a bucket that exists and that you may write to; its endpoint and credentials are"
            " taken from the environment, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID"
        ) from None
    return store


def claim_folder(wanted: RunPaths, *, named: bool) -> tuple[RunPaths, RunLock]:
    """Create and lock a folder; if one that nobody has named has been taken in the meantime, another beside it.

    Raises `ValueError` if a named one has been taken, and `StorageError`.
    """
    paths = wanted
    for number in itertools.count(2):
        try:
            if _is_stored_already(paths):
                raise FileExistsError
            paths.folder.mkdir(parents=True)
            break
        except FileExistsError:
            if named and not _is_taken(paths):
                return paths, _emptied(paths)
            if named:
                raise ValueError(_taken(paths)) from None
            paths = wanted.beside(f"{wanted.folder.name}-{number}")
        except OSError as error:
            raise StorageError.of(paths.folder, error) from None
    return paths, lock(paths)


def _is_taken(paths: RunPaths) -> bool:
    return (paths.folder.exists() and not _was_abandoned(paths.folder)) or _is_stored_already(paths)


def _is_stored_already(paths: RunPaths) -> bool:
    return paths.mirror is not None and paths.mirror.store.find(paths.record.name) is not None


def _was_abandoned(folder: Path) -> bool:
    """Whether a driver that was killed before it wrote run.json has left this folder: no trial has started."""
    paths = RunPaths(folder)
    own = {
        paths.lock.name,
        paths.soft_lock.name,
        paths.journal.name,
        f"{paths.journal.name}.lock",
        paths.space.name,
        AHEAD,
        *SUBFOLDERS,
    }
    left = {file.name for file in folder.iterdir()} if folder.is_dir() else {paths.record.name}
    return not left or (paths.lock.name in left and left <= own)


def _emptied(paths: RunPaths) -> RunLock:
    held = lock(paths)
    try:
        if _is_taken(paths):  # its driver has gone on until now
            raise ValueError(_taken(paths))
        for file in paths.folder.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file not in (paths.lock, paths.soft_lock):
                file.unlink()
    except BaseException:
        held.release()
        raise
    return held


def _taken(paths: RunPaths) -> str:
    where = paths.folder if paths.uri is None else f"{paths.uri}, or its working folder {paths.folder},"
    return f"{where} exists: continue it with --resume {paths.place}, or give another --name"


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
