"""Files that are either complete or absent: written to a temporary file, then renamed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from search.text import size

if TYPE_CHECKING:
    import numpy as np


class StorageError(OSError):
    """A file could not be written: a failure of the machine. The message is one line that names file and disk."""

    repair = "free space there or make it writable"

    @classmethod
    def of(cls, path: Path, error: OSError, needed: int = 0) -> StorageError:
        """needed: bytes of what was to be written, if that is known."""
        if isinstance(error, cls):
            return error
        here = next(p for p in (path, *path.parents) if p.exists())
        disk = next(p for p in (here, *here.parents) if p.is_mount())
        space = shutil.disk_usage(here)
        free = f"{size(space.free)} of {size(space.total)} free" + (f", {size(needed)} needed" if needed else "")
        return cls(f"cannot write {path}: {error.strerror or error} (the disk at {disk} has {free})")


@contextmanager
def replacing(path: Path, needed: int = 0) -> Iterator[Path]:
    """A temporary file beside `path`, to be filled and then renamed atomically. Folders are created.

    needed: bytes that are written, if that is known before. Raises `StorageError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()  # the error tells the space without it
        raise StorageError.of(path, error, needed) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it, see `replacing`."""
    with replacing(path) as temporary:
        write(temporary)


def write_json(path: Path, value: Any) -> None:
    replace(path, lambda file: file.write_text(json.dumps(value, indent=1) + "\n"))


def read_json(path: Path) -> Any | None:
    """The content of a JSON file; None if there is none. Raises `ValueError` for a damaged one."""
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        raise ValueError(f"{path} is damaged: delete it, and continue the run with --resume") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file, which needs no `allow_pickle` to be read."""
    import numpy as np  # here and below, imports that take longer than --help may

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]  # its stub reads ** as allow_pickle

    replace(path, write)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file; None if it is missing or damaged."""
    import numpy as np

    try:
        if not _is_whole(path):
            return None
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, KeyError):
        return None


def write_torch(path: Path, value: Any) -> None:
    """Write a checkpoint. `torch.save` reports a full disk as "unexpected pos", so it writes to memory first."""
    import torch

    content = io.BytesIO()
    torch.save(value, content)
    with replacing(path, content.tell()) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_torch(path: Path) -> Any | None:
    """The content of a checkpoint, its tensors on the CPU; None if it is missing or damaged."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True) if _is_whole(path) else None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None


def _is_whole(path: Path) -> bool:
    """Whether the contents of a zip file have the checksums in it, which neither torch nor NumPy compares."""
    try:
        with ZipFile(path) as file:
            return file.testzip() is None
    except (BadZipFile, EOFError, RuntimeError, ValueError, zlib.error):
        return False
