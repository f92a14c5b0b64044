"""The images to predict: found in files and folders, and read in batches ahead of the device."""

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import StubImageFile

from search.tasks import Batch
from voctrain.data.image_files import image_files, read_image
from voctrain.data.resizing import resize_square
from voctrain.images import EVAL_BATCH

READERS = 16  # threads at most; each holds an image at its original size
AHEAD = 2  # batches that are read ahead
SHOWN = 48  # images on a contact sheet


@dataclass(frozen=True)
class Found:
    """Images: their files, and a name for what is written of each, a unique relative path without ending."""

    files: list[Path]
    names: list[str]


def find_images(given: Sequence[str], without: Path) -> Found:
    """The given files, and all images in the given folders and their subfolders, each once.

    Files in the folder `without`, and those whose name or folder starts with a dot, are skipped. A name is the path in
    the given folder. If two files differ only in their ending, the ending stays; if names are still equal, they are
    paths from the folder that all files share. Raises `ValueError` if there is nothing to predict.
    """
    endings = _endings()
    found: dict[Path, Path] = {}  # absolute path → path as it is shown
    inner: list[Path] = []
    for root in map(Path, given):
        if root.is_dir():
            files = [f for f in image_files(root, endings) if not f.resolve().is_relative_to(without.resolve())]
        elif root.exists():
            files = [root]
        else:
            raise ValueError(f"there is no image or folder {root}")
        for file in files:
            if (place := Path(os.path.abspath(file))) not in found:
                found[place] = file
                inner.append(file.relative_to(root) if root.is_dir() else Path(file.name))
    if not found:
        raise ValueError(f"no images in {', '.join(given)}: give image files, uint8 .npy files, or folders of them")
    if len(set(inner)) < len(inner):
        shared = os.path.commonpath([file.parent for file in found])
        inner = [file.relative_to(shared) for file in found]
    stems = [path.with_suffix("") for path in inner]
    count = Counter(stems)
    names = [path if count[stem] > 1 else stem for path, stem in zip(inner, stems, strict=True)]
    if len(set(names)) < len(names):  # x.jpg, x.png and x.jpg.png
        names = inner
    return Found([*found.values()], [name.as_posix() for name in names])


def _endings() -> set[str]:
    """The endings of .npy and of the formats that Pillow reads; it recognizes others, such as HDF5 and MPEG, only."""
    readers = {ending: Image.OPEN.get(form, (None,))[0] for ending, form in Image.registered_extensions().items()}
    stubs = {ending for ending, kind in readers.items() if isinstance(kind, type) and issubclass(kind, StubImageFile)}
    return {ending for ending, kind in readers.items() if kind} - stubs - {".mpg", ".mpeg"} | {".npy", ".mpo"}


def read_batches(found: Found, size: int, resize: str, skip: Callable[[str], None]) -> Generator[Batch]:
    """The images, resized to squares of side `size`; `skip` gets a line about each that cannot be read.

    Threads read ahead while the caller works, but never more than a few batches.
    """
    total = len(found.files)
    shown = {found.names[i] for i in np.linspace(0, total - 1, min(SHOWN, total)).astype(int).tolist()}
    pool = ThreadPoolExecutor(min(READERS, (os.cpu_count() or 1) + 1))
    reading: deque[Future[tuple[np.ndarray, tuple[int, int]] | str]] = deque()
    rows: list[tuple[int, np.ndarray, tuple[int, int]]] = []

    def batch() -> Batch:
        index, sizes = [i for i, _, _ in rows], np.array([size for _, _, size in rows], np.int32)
        images = np.stack([image for _, image, _ in rows])
        rows.clear()
        files, names = [found.files[i] for i in index], [found.names[i] for i in index]
        return Batch(files, names, images, sizes, shown)

    try:
        started = 0
        for i in range(total):
            while started < min(total, i + AHEAD * EVAL_BATCH):
                reading.append(pool.submit(_read, found.files[started], size, resize))
                started += 1
            done = reading.popleft().result()
            if isinstance(done, str):
                skip(done)
            else:
                rows.append((i, *done))
            if len(rows) == EVAL_BATCH:
                yield batch()
        if rows:
            yield batch()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(file: Path, size: int, resize: str) -> tuple[np.ndarray, tuple[int, int]] | str:
    """A square and the original height and width; for a file that cannot be read, a line that says so."""
    try:
        image = read_image(file)
        return resize_square(image, size, resize=resize), image.shape[:2]
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
