"""Files that are whole or not there, written beside and renamed; and their names."""

import io
import json
import os
import pickle
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class StorageError(OSError):
    """A file could not be written: the machine's failure. The message is one line that names the file and its disk."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> "StorageError":
        if isinstance(error, cls):
            return error
        here = next(p for p in (path, *path.parents) if p.exists())
        disk = next(p for p in (here, *here.parents) if p.is_mount())
        space = shutil.disk_usage(here)
        free = f"{space.free / 1e9:.2f} of {space.total / 1e9:.2f} GB free"
        return cls(f"cannot write {path}: {error.strerror or error} (the disk at {disk} has {free})")


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a temporary file beside `path`, whose folder is made, then put it in its place atomically.

    Raises `StorageError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError.of(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    replace(path, lambda file: file.write_text(json.dumps(value, indent=1) + "\n"))


def read_json(file: Path) -> Any | None:
    """What is in a JSON file; None where there is none. Raises `ValueError` for a damaged one."""
    try:
        return json.loads(file.read_text()) if file.exists() else None
    except ValueError:
        raise ValueError(f"{file} is damaged: delete it, and continue the run with --resume") from None


def typed(path: Path) -> str:
    """A path as a person would type it in a shell here."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def write_torch(path: Path, value: Any) -> None:
    """Write what `torch.save` makes of `value`, which itself reports a full disk as "unexpected pos"."""
    import torch  # here, for what reads only JSON

    content = io.BytesIO()
    torch.save(value, content)
    replace(path, lambda file: file.write_bytes(content.getbuffer()))


def read_torch(path: Path) -> Any | None:
    """What `write_torch` wrote, with its tensors on the CPU; None where the file is missing or unreadable."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
