"""The cache folder, and folders that are written atomically."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """The folder for everything kept between runs: $XDG_CACHE_HOME/voctrain, or ~/.cache/voctrain."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voctrain"


def cache_failure(error: OSError) -> str:
    """Why nothing could be written to the cache folder, and how much space is left there."""
    folder = cache_dir()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    return f"{error.strerror or error}, {folder} has {free / 1e6:.0f} MB free"


def build_folder(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`; if it is missing or empty, first call `build` with the path to write its content to.

    The folder appears complete or not at all. If another process finishes first, its folder is kept.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        built = Path(temporary) / "built"
        build(built)
        try:
            built.rename(folder)
        except OSError:
            if not (folder.is_dir() and any(folder.iterdir())):
                raise
    return folder
