"""The two folder layouts of a set, both read into a `Listing` of its files.

Kaggle layout: train/train_set.csv (Id and one 0/1 column per class), train/img/train_{Id}.npy (uint8 (H, W, 3)),
train/seg/train_{Id}.npy (label maps (H, W), optional), and for the test images test/test_set.csv (its labels are
ignored: they are all -1 in the competition) and test/img/test_{Id}.npy.

Devkit layout, as the PASCAL VOC archives unpack: JPEGImages, SegmentationClass (palette PNGs, 255 is void),
Annotations and ImageSets/Segmentation in a folder named after the year.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voctrain.data.class_names import (
    VOC_CLASSES,
    canonical,
    check_annotations,
    check_class_lists,
    unsupported_classes,
)
from voctrain.data.files import VOID, classes_in, naming_file, read_image, read_mask, read_objects

YEARS = ("VOC[0-9]*", "VOCdevkit/VOC[0-9]*", "TrainVal/VOCdevkit/VOC[0-9]*")  # where VOC's archives put a year


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of a set: which images it has and where they are. Nothing is decoded yet."""

    layout: str  # kaggle or devkit
    root: Path
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path | None, ...]  # None: the image has no mask
    annotations: tuple[Path | None, ...]  # the XML file with the labels, if neither `labels` nor a mask has them
    labels: np.ndarray | None  # uint8 (N, 20); None: they are in the masks and annotations
    test_ids: tuple[str, ...]
    test_images: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        return [path for path in (*self.images, *self.masks, *self.annotations, *self.test_images) if path]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Read labeled image `index`: uint8 (H, W, 3), its mask, uint8 (H, W) or None, and its labels, uint8 (20,).

        Raises `ValueError` for a file that is damaged or malformed.
        """
        image, mask = read_image(self.images[index]), None
        if path := self.masks[index]:
            mask = read_mask(path)
            if mask.shape != image.shape[:2]:
                raise ValueError(
                    f"image and mask must have the same height and width, but {self.images[index]} is"
                    f" {image.shape[:2]} and {path} is {mask.shape}: replace the wrong one"
                )
        if self.labels is not None:
            return image, mask, self.labels[index]
        if mask is not None:
            return image, mask, classes_in(mask)
        annotation = self.annotations[index]
        assert annotation is not None, "an image without a mask has an annotation"
        return image, mask, read_objects(annotation)


def read_layout(folder: str | Path, *, use_val: bool = False) -> Listing:
    """List the files of a set. The layout is detected automatically; images are not opened.

    `folder` has the Kaggle layout, the devkit layout, or a subfolder of one year with the devkit layout. `use_val` adds
    the images in the devkit's val.txt to the labeled images. Raises `ValueError` if the folder does not exist or has
    neither layout, for a missing file, and for a malformed table or list.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"the data must be a folder, voc2009 or sample, but {str(folder)!r} does not exist: check the path"
        )
    check_class_lists(folder)  # first: with other classes, repairing anything else would be in vain
    if (folder / "train" / "train_set.csv").is_file():
        return _read_kaggle(folder, use_val)
    below = (found for pattern in YEARS for found in sorted(folder.glob(pattern)))
    years = [folder] if _is_devkit(folder) else [found for found in below if _is_devkit(found)]
    if not years:
        raise ValueError(
            f"a data folder must contain train/train_set.csv (Kaggle layout) or JPEGImages and ImageSets/Segmentation"
            f" (devkit layout), but {str(folder)!r} contains neither: pass the folder that does"
        )
    if len(years) > 1:
        names = ", ".join(str(year.relative_to(folder)) for year in years)
        raise ValueError(
            f"a data folder must contain one year, but {str(folder)!r} contains {names}: pass one of these folders"
        )
    if years[0] != folder:
        check_class_lists(years[0])
    return _read_devkit(years[0], use_val)


def check_content(listing: Listing) -> None:
    """Raise `ValueError` if annotations name classes that are not VOC's, or if the masks contain void but no class.

    Annotations are read even for images with masks: only they can show that mask value 1 is not an aeroplane. Masks are
    read only until one contains a class.
    """
    xmls = (listing.root / "Annotations" / f"{i}.xml" for i in listing.ids)
    check_annotations(path for path in xmls if path.is_file())
    has_void = False
    for path in filter(None, listing.masks):
        mask = read_mask(path)
        if classes_in(mask).any():
            return
        has_void |= (mask == VOID).any()
    if has_void:
        raise ValueError(
            f"mask value 255 is void, which is ignored, but the masks in {str(listing.root)!r} contain only 0 and 255:"
            " if 255 marks your objects, replace it with a class number, such as 1"
        )


def _read_kaggle(root: Path, use_val: bool) -> Listing:
    if use_val:
        raise ValueError(f"use_val needs the devkit layout, but {str(root)!r} has the Kaggle layout: omit it")
    train, test, seg = root / "train" / "train_set.csv", root / "test" / "test_set.csv", root / "train" / "seg"
    rows = _read_table(train, VOC_CLASSES)
    ids = _checked_ids([row["Id"] for row in rows], train)
    hidden = [row["Id"] for row in _read_table(test, ())] if test.parent.is_dir() else []
    test_ids = _checked_ids(hidden, test, allow_none=True)
    images = [root / "train" / "img" / f"train_{i}.npy" for i in ids]
    masks = [seg / f"train_{i}.npy" for i in ids] if seg.is_dir() else []
    test_images = [root / "test" / "img" / f"test_{i}.npy" for i in test_ids]
    _check_files([*images, *masks, *test_images])
    none = (None,) * len(ids)
    labels = np.array([[_label(row, name, train) for name in VOC_CLASSES] for row in rows], np.uint8)
    return Listing("kaggle", root, ids, tuple(images), tuple(masks) or none, none, labels, test_ids, tuple(test_images))


def _read_devkit(root: Path, use_val: bool) -> Listing:
    sets, jpegs = root / "ImageSets" / "Segmentation", root / "JPEGImages"
    train, val, test = (sets / f"{name}.txt" for name in ("train", "val", "test"))
    labeled = _read_lines(train) + (_read_lines(val) if use_val else [])
    ids = _checked_ids(labeled, f"{train} and {val}" if use_val else train)
    hidden = test if test.is_file() or use_val or not val.is_file() else val
    test_ids = _checked_ids(_read_lines(hidden), hidden, allow_none=True) if hidden.is_file() else ()
    if both := set(ids) & set(test_ids):
        raise ValueError(
            f"no image may be both labeled and test, but {min(both)} is: remove it from {hidden} or {train}"
        )
    images, test_images = ([jpegs / f"{i}.jpg" for i in group] for group in (ids, test_ids))
    found = [root / "SegmentationClass" / f"{i}.png" for i in ids]
    masks = tuple(path if path.is_file() else None for path in found)
    annotations = [None if mask else root / "Annotations" / f"{i}.xml" for i, mask in zip(ids, masks, strict=True)]
    _check_files([*images, *test_images])
    for path, mask in zip(annotations, found, strict=True):
        if path and not path.is_file():
            raise ValueError(
                f"a labeled image needs a mask or an annotation, but {mask} and {path} are missing: add one of them"
            )
    return Listing("devkit", root, ids, tuple(images), masks, tuple(annotations), None, test_ids, tuple(test_images))


def _is_devkit(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() and (folder / "ImageSets" / "Segmentation").is_dir()


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with an `Id` column and, if `columns` is not empty, exactly these other columns."""
    _check_files([path])
    with naming_file(path), path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, restkey="(no name)", restval="")
        header = ["Id" if name.strip().casefold() == "id" else canonical(name) for name in table.fieldnames or ()]
        table.fieldnames = header
        rows = list(table)
    missing = [name for name in ("Id", *columns) if name not in header]
    other = [name for name in header if name not in ("", "Id", *VOC_CLASSES)]
    if columns and other and missing != ["Id"]:
        raise unsupported_classes(
            f"{path} has columns for",
            other,
            "rename them to VOC's names as placeholders and add VOC's other columns, all 0, or remove them",
        )
    if missing:
        raise ValueError(
            f"{path} must have the columns Id and VOC's 20 classes, but lacks {', '.join(missing)}: add them (all"
            " 0 for a class that no image has)"
        )
    if columns and (extra := {*header, *(name for row in rows for name in row)} - {"Id", *columns}):
        raise ValueError(
            f"{path} must have the columns Id and VOC's 20 classes only, but has {min(extra)!r}: remove it"
        )
    return rows


def _label(row: dict[str, str], name: str, path: Path) -> int:
    if row[name].strip() in ("0", "0.0", "1", "1.0"):
        return int(float(row[name]))
    raise ValueError(f"labels in {path} must be 0 or 1, but Id {row['Id']} has {row[name]!r} for {name}: correct it")


def _read_lines(path: Path) -> list[str]:
    _check_files([path])
    with naming_file(path):
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _checked_ids(ids: list[str], origin: Path | str, allow_none: bool = False) -> tuple[str, ...]:
    seen = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"ids must be unique, but {origin} has {name!r} twice: remove one")
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"ids must be valid in file names, but {origin} has {name!r}: rename it")
        seen.add(name)
    if not ids and not allow_none:
        raise ValueError(f"{origin} lists no images")
    return tuple(ids)


def _check_files(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise ValueError(f"every file of the data set must exist, but {path} is missing: restore it")
