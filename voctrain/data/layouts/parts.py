"""What the names of folders and files say: which part of a set they hold, and whether they are images or masks."""

import re
from collections.abc import Sequence
from pathlib import PurePath

from voctrain.data.class_names import fold
from voctrain.data.image_files import ENDING

PARTS = {
    **dict.fromkeys(("train", "training", "default"), "train"),  # CVAT's default
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "val"),
}
IMAGES = ("images", "image", "imgs", "img", "jpegimages", "pngimages")
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annot", "segmentation", "segmentations"),
    *("segmentationclass", "seg", "gt", "groundtruth", "trimaps", "trimap", "xmls", "xml"),
)
MASK_SUFFIX = re.compile(r"[_\-. ](masks?([_\-. ]?\d+)?|seg|segmentation|labels?|gt|groundtruth)$", re.IGNORECASE)


def _words(name: str) -> list[str]:
    joined = re.sub(r"ground[_\-\s]truth", "groundtruth", fold(name))
    joined = re.sub(r"(?<=\w)annot$", "_annot", joined)  # CamVid's trainannot
    return [word for word in re.split(r"[_\-\s.]+", joined) if word]


def _part(word: str) -> str | None:
    return PARTS.get(word.rstrip("0123456789"))  # as in train2017


def part_of(name: str) -> str | None:
    """Which part of a set a folder or file is called after: train, val or test; None: none."""
    return next((part for word in _words(name) if (part := _part(word))), None)


def part_of_folder(root: PurePath, path: PurePath) -> str | None:
    """Which part of the set in `root` the folder of a file is called after; None for files in `root` itself."""
    return None if path.parent == root else part_of(path.parent.name)


def place(folders: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The folders without the words that tell images from masks, and whether these say masks."""
    kept: list[str] = []
    masks = False
    for folder in folders:
        words = _words(folder)
        if all(word in IMAGES or word in MASKS or _part(word) for word in words):
            kept += [word for word in words if word not in IMAGES and word not in MASKS]
            masks = masks or any(word in MASKS for word in words)
        else:
            kept.append(folder)
    return tuple(kept), masks


def pair_key(path: PurePath) -> tuple[str, bool]:
    """What an image and its mask have in common, given the path of one below the set's folder; whether it is a mask."""
    folders, masks = place(path.parts[:-1])
    stem = MASK_SUFFIX.sub("", path.stem)
    masks = masks or stem != path.stem
    return "/".join((*folders, ENDING.sub("", stem if masks else path.stem))), masks
