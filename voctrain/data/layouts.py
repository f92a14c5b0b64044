"""The two folder layouts a set may come in (SEED.md §1), each read into the same description: a `Listing`."""

import contextlib
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from voctrain.data.class_names import (
    VOC_CLASSES,
    canonical,
    check_annotations,
    check_class_lists,
    object_names,
    unsupported_classes,
)
from voctrain.data.palette import check_palette

YEARS = ("VOC[0-9]*", "VOCdevkit/VOC[0-9]*", "TrainVal/VOCdevkit/VOC[0-9]*")  # as the archives of VOC unpack
VOID = 255  # pixels of a mask that belong to no class: borders, and what nobody labeled


@dataclass(frozen=True, eq=False)
class Listing:
    """A set as it lies on the disk: which images there are and where; nothing is decoded yet."""

    layout: str  # kaggle or devkit
    root: Path
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path | None, ...]  # None: this image has no mask
    annotations: tuple[Path | None, ...]  # the XML that tells the labels where neither `labels` nor a mask does
    labels: np.ndarray | None  # uint8 (N, 20); None: the masks and annotations tell them
    test_ids: tuple[str, ...]
    test_images: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        return [path for path in (*self.images, *self.masks, *self.annotations, *self.test_images) if path]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Labeled image `index`: uint8 (H, W, 3), its mask, uint8 (H, W) or None, and its labels, uint8 (20,).

        Raises `ValueError` for a file that is damaged or not as the layout wants it.
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
        return image, mask, classes_in(mask) if mask is not None else read_objects(self.annotations[index])


def read_layout(folder: str | Path, *, use_val: bool = False) -> Listing:
    """Look at `folder`, which holds the Kaggle layout, the devkit layout, or the devkit layout of one year below it.

    `use_val` adds the devkit's val.txt to the labeled images. Raises `ValueError` for a folder that is not there, has
    neither layout or lacks a file it lists, and for bad tables; images are not opened.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"the data must be a folder, voc2009 or sample, but {str(folder)!r} is not there: check the path"
        )
    check_class_lists(folder)  # first: with other classes there is no point in repairing anything else
    if (folder / "train" / "train_set.csv").is_file():
        return _read_kaggle(folder, use_val)
    below = (found for pattern in YEARS for found in sorted(folder.glob(pattern)))
    years = [folder] if _is_devkit(folder) else [found for found in below if _is_devkit(found)]
    if not years:
        raise ValueError(
            f"a data folder must hold train/train_set.csv (Kaggle layout) or JPEGImages and ImageSets/Segmentation"
            f" (devkit layout), but {str(folder)!r} holds neither: give the folder that does"
        )
    if len(years) > 1:
        names = ", ".join(str(year.relative_to(folder)) for year in years)
        raise ValueError(f"a data folder must hold one year, but {str(folder)!r} holds {names}: give one of these")
    if years[0] != folder:
        check_class_lists(years[0])
    return _read_devkit(years[0], use_val)


def check_content(listing: Listing) -> None:
    """Raise `ValueError` if annotations name classes that are not VOC's, or the masks hold void but no class.

    Annotations are read even for images with masks: only they tell that mask value 1 is no aeroplane. Masks are read
    only until one holds a class.
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
            f"mask value 255 is void, which is ignored, but the masks in {str(listing.root)!r} hold only 0 and 255: if"
            " 255 marks your objects, replace it with a class number, such as 1"
        )


def _read_kaggle(root: Path, use_val: bool) -> Listing:
    if use_val:
        raise ValueError(f"use_val needs the devkit layout, but {str(root)!r} has the Kaggle layout: leave it out")
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
        raise ValueError(f"no image may be both labeled and test, but {min(both)} is: take it off {hidden} or {train}")
    images, test_images = ([jpegs / f"{i}.jpg" for i in group] for group in (ids, test_ids))
    found = [root / "SegmentationClass" / f"{i}.png" for i in ids]
    masks = tuple(path if path.is_file() else None for path in found)
    annotations = [None if mask else root / "Annotations" / f"{i}.xml" for i, mask in zip(ids, masks, strict=True)]
    _check_files([*images, *test_images])
    for path, mask in zip(annotations, found, strict=True):
        if path and not path.is_file():
            raise ValueError(f"a labeled image needs its mask or annotation, but {mask} and {path} are missing")
    return Listing("devkit", root, ids, tuple(images), masks, tuple(annotations), None, test_ids, tuple(test_images))


def read_image(path: Path) -> np.ndarray:
    """The image, uint8 (H, W, 3), of a .npy or image file. Raises `ValueError` naming a file that is not one."""
    if path.suffix != ".npy":
        with _naming(path), Image.open(path) as file:
            return np.array(file.convert("RGB"))
    image = _read_npy(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"images must be uint8 (height, width, 3), but {path} is {image.dtype} {image.shape}: convert it"
        )
    return image


def read_mask(path: Path) -> np.ndarray:
    """The label map, uint8 (H, W) of 0..20 and 255, of a .npy or PNG file. Raises `ValueError` naming a bad file."""
    if path.suffix == ".npy":
        mask = _read_npy(path)
    else:
        with _naming(path), Image.open(path) as file:
            mode, mask = file.mode, np.array(file)
            palette = file.getpalette()
        if mode not in ("P", "L"):
            raise ValueError(
                f"masks must be 8-bit palette or grayscale PNGs of class numbers, but {path} has mode {mode}: convert"
                " it to 0 for background, 1..20 for VOC's classes and 255 for void"
            )
        if palette:
            check_palette(path, np.array(palette, np.uint8).reshape(-1, 3), mask)
    if not np.issubdtype(mask.dtype, np.integer) or mask.ndim != 2 or not mask.size:
        raise ValueError(f"masks must be integers (height, width), but {path} is {mask.dtype} {mask.shape}: convert it")
    wrong = (mask < 0) | (mask > len(VOC_CLASSES)) & (mask != VOID)
    if wrong.any():
        raise ValueError(
            f"mask values must be 0, 1..20 (only VOC's 20 classes are supported so far) or 255 (void), but {path} has"
            f" {mask[wrong][0]}: renumber it"
        )
    return mask.astype(np.uint8, copy=False)


def classes_in(mask: np.ndarray) -> np.ndarray:
    """Labels, uint8 (20,), of a label map: 1 where the class has a pixel."""
    return (np.bincount(mask.ravel(), minlength=256)[1 : len(VOC_CLASSES) + 1] > 0).astype(np.uint8)


def read_objects(path: Path) -> np.ndarray:
    """Labels, uint8 (20,), of an XML annotation: 1 for each class with an object, difficult ones included."""
    with _naming(path):
        names = object_names(path)
    if unknown := sorted(set(names).difference(VOC_CLASSES)):
        raise ValueError(f"objects must be of VOC's classes, but {path} has {unknown[0]!r}: correct it")
    return np.array([name in names for name in VOC_CLASSES], np.uint8)


def _is_devkit(folder: Path) -> bool:
    return (folder / "JPEGImages").is_dir() and (folder / "ImageSets" / "Segmentation").is_dir()


def _read_npy(path: Path) -> np.ndarray:
    with _naming(path), path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever a decoder raises for damaged bytes (a dozen types) becomes one line that names the file."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"every file must be readable, but {path} is not ({reason}): put an intact copy there"
        ) from error


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV with `Id` and, where any are asked for, exactly these further columns."""
    _check_files([path])
    with _naming(path), path.open(newline="", encoding="utf-8-sig") as file:
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
            "rename them to VOC's names as stand-ins and add VOC's other columns with 0, or remove them",
        )
    if missing:
        raise ValueError(
            f"{path} must have the columns Id and VOC's 20 classes, but lacks {', '.join(missing)}: add them (a class"
            " that no image has is all 0)"
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
    with _naming(path):
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _checked_ids(ids: list[str], origin: Path | str, allow_none: bool = False) -> tuple[str, ...]:
    seen = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"ids must be unique, but {origin} has {name!r} twice: remove one")
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"ids must be parts of file names, but {origin} has {name!r}: correct it")
        seen.add(name)
    if not ids and not allow_none:
        raise ValueError(f"there must be images listed, but {origin} lists none: add some")
    return tuple(ids)


def _check_files(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise ValueError(f"every file that the data set lists must exist, but {path} is missing: put it there")
