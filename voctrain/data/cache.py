"""The user's cache folder, and folders that appear complete or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """The folder for all that we keep between runs: $XDG_CACHE_HOME/voctrain, else ~/.cache/voctrain."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voctrain"


def build_folder(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder` with what `build` writes to the path it is given, unless it is there with something in it.

    It appears complete or not at all; where another process was faster, its folder stays.
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
