"""Files that are whole or not there, written beside and renamed; and their names."""

import json
import os
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a temporary file beside `path`, then put it in its place atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
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
    replace(path, lambda file: torch.save(value, file))


def read_torch(path: Path) -> Any | None:
    """What `write_torch` wrote, with its tensors on the CPU; None where the file is missing or unreadable."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
