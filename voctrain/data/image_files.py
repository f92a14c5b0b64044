"""Images as files: finding them by id, and reading one, with a one-line error for a damaged or malformed file."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from voctrain.data.text_files import naming_file

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".npy")  # in any case
DEPTHS = (255, 4095, 65535)  # largest gray values of cameras and scanners: 8, 12 and 16 bits


def read_image(path: Path) -> np.ndarray:
    """Read an image, uint8 (H, W, 3), from a .npy or image file, turned as its EXIF orientation says.

    Gray values of more than 8 bits are scaled to 0..255: from 12 bits if the image has no greater value, else from 16.
    Raises `ValueError` if the file is neither, or damaged.
    """
    if path.suffix.lower() != ".npy":
        with naming_file(path), Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode.startswith(("I", "F")):
                upright = Image.fromarray(_scaled(np.asarray(upright)))
            return np.array(upright.convert("RGB"))
    image = read_npy(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"images must be uint8 (height, width, 3), but {path} is {image.dtype} {image.shape}: convert it"
        )
    return image


def _scaled(gray: np.ndarray) -> np.ndarray:
    """Deep gray values as uint8."""
    most = gray.max(initial=0)
    depth = 1 if gray.dtype.kind == "f" and most <= 1 else next((d for d in DEPTHS if most <= d), most)
    return (np.clip(gray, 0, None) * (255 / depth)).round().astype(np.uint8)


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file. Raises `ValueError` if it is damaged or contains objects."""
    with naming_file(path), path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def image_files(folder: Path, endings: Collection[str] = IMAGE_ENDINGS) -> list[Path]:
    """All files with an image's ending in a folder and its subfolders, sorted; hidden ones are left out."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in endings)
    return sorted(
        p for p in files if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


class Index:
    """Files below a folder, found by id: the relative path without the ending, in any of the forms that lists use."""

    def __init__(self, folder: Path, files: Iterable[Path] | None = None):
        self.folder = folder
        self.paths: dict[str, Path] = {}
        self.by_name: dict[str, list[str]] = {}
        for path in image_files(folder) if files is None else files:
            name = path.relative_to(folder).with_suffix("").as_posix()
            if (other := self.paths.setdefault(name, path)) is not path:
                raise ValueError(f"an image must have one file, but there are {other} and {path}: remove one")
            self.by_name.setdefault(name.rpartition("/")[2], []).append(name)

    def find(self, text: str) -> str | None:
        """The id that a line of a list or a cell of a table means; None if there is no such file.

        It may have an ending, further columns, and a path before it; the file name alone is enough if it is unique.
        """
        if text in self.paths:
            return text
        for candidate in dict.fromkeys((text, re.split(r"[\s,;]+", text.strip())[0])):
            path = PurePosixPath(candidate.replace("\\", "/"))
            parts = [part for part in path.parts if part not in ("/", ".", "..")]
            if not parts:
                continue
            if PurePosixPath(parts[-1]).suffix.lower() in IMAGE_ENDINGS:
                parts[-1] = parts[-1][: -len(PurePosixPath(parts[-1]).suffix)]
            tails = ("/".join(parts[i:]) for i in range(len(parts)))
            if (found := next((tail for tail in tails if tail in self.paths), None)) is not None:
                return found
            if len(names := self.by_name.get(parts[-1], [])) == 1:
                return names[0]
        return None

    def get(self, text: str) -> Path | None:
        """The file that a text means, as for `find`."""
        name = self.find(text)
        return None if name is None else self.paths[name]
