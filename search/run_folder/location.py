"""Where runs are: in folders, or in stores, with a working folder on this machine."""

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote, urlsplit

from search.run_folder.lock import RunLock, lock
from search.run_folder.mirror import Mirror
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from search.run_folder.store import Store, open_store


def is_stored(place: str) -> bool:
    """Whether a place is in a store; file:// is not."""
    return "://" in place and not place.startswith("file://")


def local_path(place: str) -> Path:
    """The path of a place that is not in a store."""
    return Path(unquote(urlsplit(place).path) if place.startswith("file://") else place)


def locate(place: str) -> RunPaths:
    """The run at a path or a URI. Raises `ValueError` for a URI that cannot be used."""
    return of_store(open_store(place)) if is_stored(place) else RunPaths(local_path(place).resolve())


def of_store(store: Store) -> RunPaths:
    """The run in a store. Its working folder is $XDG_CACHE_HOME/voctrain/runs/s3/BUCKET/…, or below ~/.cache."""
    from voctrain.data.cache import cache_dir  # which loads torch

    parts = urlsplit(store.uri)
    folder = cache_dir() / "runs" / parts.scheme / parts.netloc / unquote(parts.path).strip("/")
    return RunPaths(folder, Mirror(folder, store))


def hold(paths: RunPaths) -> RunLock:
    """Lock a run to go on with it, and bring the working folder of one in a store up to date.

    Raises `ValueError` if there is no such run or another process has it, and `StorageError`.
    """
    _check_existence(paths)
    held = lock(paths)
    try:
        if paths.mirror is not None:
            paths.mirror.restore()
    except BaseException:
        held.release()
        raise
    return held


def restore(paths: RunPaths) -> None:
    """Bring the working folder of a run in a store up to date, to read it. If a command here uses it, it already is.

    Raises `ValueError` if there is no such run, and `StorageError`.
    """
    if paths.mirror is None:
        return
    _check_existence(paths)
    with ExitStack() as locks:
        for folder in (paths.folder, paths.final.folder):
            if folder.is_dir():
                try:
                    locks.callback(lock(RunPaths(folder)).release)
                except ValueError:
                    return
        paths.mirror.restore()


def local_copy(place: str) -> Path:
    """The folder of a run or the checkpoint file at a path; for a URI, the working folder, see `restore`."""
    if not is_stored(place):
        return local_path(place)
    paths = locate(place)
    restore(paths)
    return paths.folder


def whole_copy(place: str, *, repair: bool) -> Path:
    """As `local_copy`, but with the checkpoints of a run in a store, which is not repaired."""
    if is_stored(place) and repair:
        raise ValueError("--repair is for folders: copy the run to one, repair it, and continue it there")
    folder, mirror = local_copy(place), locate(place).mirror
    if mirror is not None:
        mirror.fetch_folder(folder / "checkpoints")
    return folder


def _check_existence(paths: RunPaths) -> None:
    if paths.mirror is None:
        read_run(paths.folder)
    elif not paths.record.exists() and paths.mirror.store.find(paths.record.name) is None:
        raise ValueError(f"{paths.mirror.store.uri} has no {paths.record.name}: give the URI that a search printed")
    else:
        paths.folder.mkdir(parents=True, exist_ok=True)
