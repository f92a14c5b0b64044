"""Images as files: finding them by id, and reading one, with a one-line error for a damaged or malformed file."""

import math
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import ExifTags, Image

from voctrain.data.text_files import naming_file

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".npy"),
)  # in any case
DEPTHS = (255, 4095, 65535)  # largest gray values of cameras and scanners: 8, 12 and 16 bits
ENDING = re.compile(rf"({'|'.join(map(re.escape, (*IMAGE_ENDINGS, '.xml')))})$", re.IGNORECASE)  # of a line in a list
LONGEST_PATH = 4096  # characters; a longer text in a list is not a file name
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
    with naming_file(path), path.open("rb") as file:
        # numpy allocates what a damaged header claims, or crashes.
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_column, dtype = readers[np.lib.format.read_magic(file)](file)
        count, left = math.prod(shape), path.stat().st_size - file.tell()
        if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0 or count * dtype.itemsize > left:
            raise ValueError(f"{left} bytes cannot hold {shape} values of {dtype}")
        return np.fromfile(file, dtype, count).reshape(shape, order="F" if by_column else "C")


def image_files(folder: Path, endings: Collection[str] = IMAGE_ENDINGS) -> list[Path]:
    """All files with an image's ending in a folder and its subfolders, as `files_below`."""
    return files_below(folder, endings)


def _below(folder: Path, path: Path) -> str:
    """The relative path of a file below a folder, with slashes; faster than `relative_to`, of which sets need many."""
    whole, start = str(path), f"{folder}{os.sep}"
    return whole[len(start) :].replace(os.sep, "/") if whole.startswith(start) else path.relative_to(folder).as_posix()


def files_below(folder: Path, endings: Collection[str], *, deep: bool = True) -> list[Path]:
    """All files with one of these endings, in any case, in a folder and (`deep`) its subfolders, sorted.

    Hidden ones, such as macOS's ._x.jpg, are left out, and links to folders are followed. Raises `ValueError` for a
    file name that is not UTF-8, or has control characters.
    """
    found: list[str] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.path.join(os.path.realpath(place), "")
        kept = (name for name in folders if deep and not name.startswith("."))
        folders[:] = [name for name in kept if not _leads_back(os.path.join(place, name), here)]
        seen = (name for name in names if not name.startswith(".") and os.path.splitext(name)[1].lower() in endings)
        found += [path for name in seen if os.path.isfile(path := os.path.join(place, name))]
    for path in found:
        if not _is_text(os.path.basename(path)):
            raise ValueError(f"file names must be UTF-8 without control characters, but {path!a} is not: rename it")
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]  # faster than comparing paths


def _leads_back(folder: str, here: str) -> bool:
    """Whether a folder is a link to one that contains `here`."""
    return os.path.islink(folder) and here.startswith(os.path.join(os.path.realpath(folder), ""))


class Index:
    """Files below a folder, found by id: the relative path without the ending, in any of the forms that lists use."""

    def __init__(
        self, folder: Path, files: Iterable[Path] | None = None, rename: Callable[[str], str] = lambda name: name
    ):
        """files: by default the images below the folder. rename: takes and returns an id."""
        self.folder = folder
        self.paths: dict[str, Path] = {}
        self.by_name: dict[str, list[str]] = {}
        for path in image_files(folder) if files is None else files:
            name = rename(composed(os.path.splitext(_below(folder, path))[0]))
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
        candidates = [
            name
            for candidate in _without_columns(composed(text.strip()[:LONGEST_PATH]))
            for name in dict.fromkeys((candidate, ENDING.sub("", candidate)))
        ]
        for name in candidates:  # most lines are a name, for which paths would take long
            if name in self.paths:
                return name
            if "/" not in name and "\\" not in name and (found := self._alone(name)):
                return found
        return next((found for name in candidates if (found := self._in_folders(name))), None)

    def _alone(self, name: str) -> str | None:
        """The only id of this file name."""
        names = self.by_name.get(_name(name), [])
        return names[0] if len(names) == 1 else None

    def _in_folders(self, name: str) -> str | None:
        """The id at the end of a path, or the only id that the path is the end of."""
        path = PurePosixPath(name.replace("\\", "/"))
        parts = [part for part in path.parts if part not in ("/", "//", ".", "..")]
        for i in range(len(parts)):
            if (tail := "/".join(parts[i:])) in self.paths:
                return tail
        below = f"/{'/'.join(parts)}"
        if len(deeper := [known for known in self.by_name.get(_name(below), []) if known.endswith(below)]) == 1:
            return deeper[0]
        if parts and (len(parts) == 1 or path.is_absolute() or parts[0].endswith(":")):  # a path of another machine
            return self._alone(parts[-1])
        return None

    def partner(self, name: str, images: "Index") -> Path | None:
        """The file that belongs to the image of this id: at the same place, or else the only one of that file name."""
        if name in self.paths:
            return self.paths[name]
        mine, theirs = (index.by_name.get(_name(name), []) for index in (self, images))
        return self.paths[mine[0]] if len(mine) == len(theirs) == 1 else None


def composed(text: str) -> str:
    """The text with composed accents, which macOS decomposes in file names."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return min(name) >= " "


def _name(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _without_columns(text: str) -> Iterator[str]:
    """A line, then without its last column, and so on: file names may contain blanks."""
    yield text.strip("\"'")
    for gap in reversed(list(re.finditer(r"[\s,;]+", text))):
        if gap.start():
            yield text[: gap.start()].strip("\"'")
