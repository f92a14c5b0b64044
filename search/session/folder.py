"""The folder of a new run."""

import itertools
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from search.options import SearchOptions
from search.run_folder.lock import RunLock, lock
from search.run_folder.paths import RunPaths
from search.text import shell_path

SUBFOLDERS = ("logs", "history", "checkpoints")  # of a new run
JOB_COPIES = "runtime_resources"  # the folder of `ray job submit --working-dir`


def new_folder(task: str, options: SearchOptions) -> Path:
    """Where a new run is going to be. Raises `ValueError` if it cannot be there."""
    folder = (Path(options.out) / (options.name or f"{task}-{datetime.now():%Y%m%d-%H%M%S}")).resolve()
    if options.name is not None and folder.exists() and not _was_abandoned(folder):
        raise ValueError(_taken(folder))
    if JOB_COPIES in folder.parts:
        raise ValueError(f"{folder} is in the copy of a Ray job, which is deleted with it: give --out another folder")
    parent = next(p for p in folder.parents if p.exists())
    if not parent.is_dir() or not _is_writable(parent):
        raise ValueError(f"cannot write in {parent}: give --out a folder that you may write to")
    return folder


def claim_folder(folder: Path, *, named: bool) -> tuple[RunPaths, RunLock]:
    """Create and lock a folder; if one that nobody has named has been taken in the meantime, another beside it."""
    paths = RunPaths(folder)
    for number in itertools.count(2):
        try:
            paths.folder.mkdir(parents=True)
            break
        except FileExistsError:
            if named and _was_abandoned(folder):
                return paths, _emptied(paths)
            if named:
                raise ValueError(_taken(folder)) from None
            paths = RunPaths(folder.with_name(f"{folder.name}-{number}"))
    return paths, lock(paths)


def _was_abandoned(folder: Path) -> bool:
    """Whether a driver that was killed before it wrote run.json has left this folder: no trial has started."""
    paths = RunPaths(folder)
    own = {
        paths.lock.name,
        paths.soft_lock.name,
        paths.journal.name,
        f"{paths.journal.name}.lock",
        paths.space.name,
        *SUBFOLDERS,
    }
    left = {file.name for file in folder.iterdir()} if folder.is_dir() else {paths.record.name}
    return not left or (paths.lock.name in left and left <= own)


def _emptied(paths: RunPaths) -> RunLock:
    held = lock(paths)
    try:
        if not _was_abandoned(paths.folder):  # its driver has gone on until now
            raise ValueError(_taken(paths.folder))
        for file in paths.folder.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file not in (paths.lock, paths.soft_lock):
                file.unlink()
    except BaseException:
        held.release()
        raise
    return held


def _taken(folder: Path) -> str:
    return f"{folder} exists: continue it with --resume {shell_path(folder)}, or give another --name"


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
