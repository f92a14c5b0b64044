"""Images as files: finding them by id, and reading one, with a one-line error for a damaged or malformed file."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import ExifTags, Image

from voctrain.data.text_files import naming_file

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".npy"),
)  # in any case
DEPTHS = (255, 4095, 65535)  # largest gray values of cameras and scanners: 8, 12 and 16 bits
LONGEST_PATH = 4096  # characters; a longer text in a list is no file
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation


def read_image(path: Path) -> np.ndarray:
    """Read an image, uint8 (H, W, 3), from a .npy or image file, turned as its EXIF orientation says.

    Gray values of more than 8 bits are scaled to 0..255: from 12 bits if the image has no greater value, else from 16.
    Raises `ValueError` if the file is neither, or damaged.
    """
    if path.suffix.lower() != ".npy":
        with naming_file(path), Image.open(path) as file:
            image = upright(file)
            if image.mode.startswith(("I", "F")):
                image = Image.fromarray(_scaled(np.asarray(image)))
            image.info.pop("transparency", None)  # of a palette: Pillow warns that it is lost
            return np.array(image.convert("RGB"))
    array = read_npy(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            f"images must be uint8 (height, width, 3), but {path} is {array.dtype} {array.shape}: convert it"
        )
    return array


def upright(file: Image.Image) -> Image.Image:
    """The image of an open file as viewers show it."""
    file.load()
    turn = TURNS.get(orientation(file))
    return file if turn is None else file.transpose(turn)


def orientation(file: Image.Image) -> int:
    """The EXIF orientation of an open file, 1..8; 1 (upright) if it has none or one that cannot be read."""
    try:
        found = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the pixels are sound: viewers ignore damaged EXIF data, too
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _scaled(gray: np.ndarray) -> np.ndarray:
    """Deep gray values as uint8."""
    if gray.dtype.kind == "f":
        gray = np.nan_to_num(gray, nan=0, posinf=0, neginf=0)
    most = gray.max(initial=0)
    depth = 1 if gray.dtype.kind == "f" and most <= 1 else next((d for d in DEPTHS if most <= d), most)
    return (np.clip(gray, 0, None) * (255 / depth)).round().astype(np.uint8)


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file. Raises `ValueError` if it is damaged or contains objects."""
    # Mapped first, since a damaged header may claim more than the memory holds.
    with naming_file(path), np.errstate(over="ignore"):
        mapped = np.lib.format.open_memmap(path, mode="r")
        if not mapped.itemsize:
            raise ValueError("it has elements of no size")
        return np.array(mapped)


def image_files(folder: Path, endings: Collection[str] = IMAGE_ENDINGS) -> list[Path]:
    """All files with an image's ending in a folder and its subfolders, sorted; hidden ones are left out."""
    found = (path for path in _files_below(str(folder)) if os.path.splitext(path)[1].lower() in endings)
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def _files_below(folder: str) -> Iterator[str]:
    """The paths of all files that are not hidden; faster than `rglob`, which asks for the status of each."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path)
            elif entry.is_file():
                yield entry.path


def visible(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """The files among these paths below a folder, sorted; hidden ones, such as macOS's ._x.jpg, are left out."""
    found = [path for path in paths if "/." not in f"/{_below(folder, path)}" and os.path.isfile(path)]
    return sorted(found, key=lambda path: path.parts)  # faster than comparing paths


def _below(folder: Path, path: Path) -> str:
    """The relative path of a file below a folder, with slashes; faster than `relative_to`, of which sets need many."""
    whole, start = str(path), f"{folder}{os.sep}"
    return whole[len(start) :].replace(os.sep, "/") if whole.startswith(start) else path.relative_to(folder).as_posix()


class Index:
    """Files below a folder, found by id: the relative path without the ending, in any of the forms that lists use."""

    def __init__(self, folder: Path, files: Iterable[Path] | None = None):
        self.folder = folder
        self.paths: dict[str, Path] = {}
        self.by_name: dict[str, list[str]] = {}
        for path in image_files(folder) if files is None else files:
            name = composed(os.path.splitext(_below(folder, path))[0])
            if not _is_utf8(name):
                raise ValueError(f"file names must be UTF-8, but {str(path)!a} is not: rename it")
            if (other := self.paths.setdefault(name, path)) is not path:
                raise ValueError(f"an image must have one file, but there are {other} and {path}: remove one")
            self.by_name.setdefault(_name(name), []).append(name)

    def find(self, text: str) -> str | None:
        """The id that a line of a list or a cell of a table means; None if there is no such file.

        It may have an ending, further columns, quotes, and a path before it. The file name alone is enough if it is
        unique, and may then differ in case.
        """
        if text in self.paths:
            return text
        for candidate in _without_columns(composed(text.strip()[:LONGEST_PATH])):
            if candidate in self.paths:
                return candidate
            path = PurePosixPath(candidate.replace("\\", "/"))
            parts = [part for part in path.parts if part not in ("/", "//", ".", "..")]
            if not parts:
                continue
            if PurePosixPath(parts[-1]).suffix.lower() in (*IMAGE_ENDINGS, ".xml"):
                parts[-1] = parts[-1][: -len(PurePosixPath(parts[-1]).suffix)]
            tails = ("/".join(parts[i:]) for i in range(len(parts)))
            if (found := next((tail for tail in tails if tail in self.paths), None)) is not None:
                return found
            elsewhere = path.is_absolute() or parts[0].endswith(":")
            if len(names := self.by_name.get(_name(parts[-1]), [])) == 1 and (elsewhere or len(parts) == 1):
                return names[0]
        return None

    def partner(self, name: str, images: "Index") -> Path | None:
        """The file that belongs to the image of this id: at the same place, or else the only one of that file name."""
        if name in self.paths:
            return self.paths[name]
        mine, theirs = (index.by_name.get(_name(name), []) for index in (self, images))
        return self.paths[mine[0]] if len(mine) == len(theirs) == 1 else None


def composed(text: str) -> str:
    """The text with composed accents, which macOS decomposes in file names."""
    return unicodedata.normalize("NFC", text)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _without_columns(text: str) -> Iterator[str]:
    """A line, then without its last column, and so on: file names may contain blanks."""
    yield text.strip("\"'")
    for gap in reversed(list(re.finditer(r"[\s,;]+", text))):
        if gap.start():
            yield text[: gap.start()].strip("\"'")
