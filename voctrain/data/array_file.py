"""Arrays in one file that is mapped into memory, so that all processes of a machine share it and none reads all of it.

A header in JSON tells each array's type, shape and place. The file is written row by row, and appears complete or not
at all. What has been written to it since shows in its modification time, which is set to that in its header; only then
is the checksum computed, because that reads the whole file. So an intact file opens at once, whatever its size.
"""

import errno
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

ALIGNMENT = 4096  # bytes; where arrays begin
HEADER = 65536  # bytes reserved for the header
ABANDONED = 3600  # seconds after the last write to an unfinished file, whose process must have died

Shapes = Mapping[str, tuple[tuple[int, ...], str]]  # shape and dtype of each array, by name
Write = Callable[[str, int, np.ndarray], None]  # name of an array, first row, and rows to write; several threads may


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """The arrays of a file by name, read-only, and notes about them."""

    path: Path
    checksum: str
    arrays: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def open_arrays(path: Path) -> ArrayFile | None:
    """Map the arrays of a file; None if it is missing or damaged."""
    try:
        with path.open("rb", buffering=0) as file:
            header = json.loads(file.read(HEADER).rstrip(b"\0"))
            places, size = _places({name: (tuple(shape), dtype) for name, (shape, dtype) in header["arrays"].items()})
            status = os.fstat(file.fileno())
            if status.st_size != size:
                return None
            if status.st_mtime_ns != header["mtime_ns"]:
                if _checksum(file) != header["checksum"]:
                    return None
                with suppress(OSError):  # a read-only cache is checked each time
                    os.utime(path, ns=(header["mtime_ns"],) * 2)
            notes = tuple(header["notes"])
            whole = np.memmap(file, np.uint8, "r", shape=(size,)).view(np.ndarray)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    arrays = {
        name: whole[start : start + math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
        for name, (shape, dtype, start) in places.items()
    }
    return ArrayFile(path, header["checksum"], arrays, notes)


def write_arrays(path: Path, shapes: Shapes, fill: Callable[[Write], tuple[str, ...]]) -> None:
    """Write a file of arrays, whose rows `fill` hands over in any order; several processes may do so at once.

    `fill` returns notes that are kept with the arrays.
    Raises `OSError` for a folder that is not writable or lacks the space, and whatever `fill` raises.
    """
    places, size = _places(shapes)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as temporary:
        unfinished = Path(temporary) / path.name
        with unfinished.open("w+b", buffering=0) as file:
            _reserve(file, size)

            def write(name: str, row: int, rows: np.ndarray) -> None:
                shape, dtype, start = places[name]
                assert (rows.dtype, rows.shape[1:]) == (dtype, shape[1:])
                assert row + len(rows) <= shape[0]
                data, at = rows.tobytes(), start + row * math.prod(shape[1:]) * rows.itemsize
                while data:  # a call may write less than it is asked to
                    written = os.pwrite(file.fileno(), data, at)
                    data, at = data[written:], at + written

            notes = fill(write)
            mtime_ns = int(time.time()) // 2 * 2 * 10**9  # some file systems keep even seconds only
            header = {"arrays": shapes, "notes": notes, "checksum": _checksum(file), "mtime_ns": mtime_ns}
            text = json.dumps(header).encode()
            assert len(text) < HEADER
            os.pwrite(file.fileno(), text, 0)
            os.fsync(file.fileno())
        os.utime(unfinished, ns=(mtime_ns, mtime_ns))
        os.replace(unfinished, path)


def _places(shapes: Shapes) -> tuple[dict[str, tuple[tuple[int, ...], str, int]], int]:
    """Shape, dtype and first byte of each array, and the size of the file."""
    places, end = {}, HEADER
    for name, (shape, dtype) in shapes.items():
        places[name] = shape, dtype, end
        end += -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
    return places, end


def _reserve(file: FileIO, size: int) -> None:
    """Make the file that long, or raise `OSError` at once if the disk cannot take it."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, f"no space left for {size / 1e6:.0f} MB") from None
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system cannot tell
                raise


def _checksum(file: FileIO) -> str:
    file.seek(HEADER)
    return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _remove_abandoned(path: Path) -> None:
    """Delete what killed processes left of this file: gigabytes, perhaps."""
    for folder in path.parent.glob(f".{path.stem}-*"):
        with suppress(OSError):
            for file in folder.iterdir():
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()
            folder.rmdir()
