"""Write a set in the Kaggle or the devkit layout."""

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from voctrain.data.cache import build_folder
from voctrain.data.class_names import VOC_CLASSES, VOID
from voctrain.data.image_files import orientation, read_image
from voctrain.data.layouts.listing import Listing, classes_in
from voctrain.data.palette import voc_palette

JPEG = (".jpg", ".jpeg")


def convert(listing: Listing, target: str | Path, *, to: str | None = None, void: str = "keep") -> tuple[str, ...]:
    """Write a set in the Kaggle or the devkit layout. The target appears complete or not at all.

    Args:
        listing: the set to convert, with its classes (see `discovery.with_classes`).
        target: a missing or empty folder.
        to: "kaggle" or "devkit"; by default the devkit layout, or Kaggle's for a set that has it.
        void: "keep" leaves masks as they are; "0" turns void pixels into background, as in the Kaggle competition.

    Kaggle ids become `train_{Id}` and `test_{Id}` in a devkit, where all ids share a folder; converting back removes
    these prefixes. Slashes in ids become underscores. A devkit of classes other than VOC's gets a class_names.txt.

    Returns:
        What the user should know about the conversion, one line each.

    Raises:
        ValueError: the target is in use; `void` is "0" and a mask is missing; or a file is bad.
    """
    target, to = Path(target).expanduser(), to or ("kaggle" if listing.layout == "devkit" else "devkit")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"the target must be a new or empty folder, but {str(target)!r} is in use: use another one")
    if void == "0" and (bare := next((e for e in listing.examples if e.mask is None), None)) is not None:
        raise ValueError(f"void 0 needs a mask for every image, but {bare.id} has none: keep void pixels")
    notes: list[str] = []
    write = {"kaggle": _write_kaggle, "devkit": _write_devkit}[to]
    build_folder(target, lambda folder: notes.extend(write(listing, folder, void == "0")))
    return tuple(notes)


def _file_ids(ids: Sequence[str]) -> list[str]:
    """The ids as file names. Raises `ValueError` if two become the same."""
    names = [name.replace("/", "_") for name in ids]
    if len(set(names)) < len(names):
        twice = next(name for name, n in Counter(names).items() if n > 1)
        raise ValueError(f"ids must differ without folders, but several images would become {twice!r}: rename one")
    return names


def _write_kaggle(listing: Listing, folder: Path, clear: bool) -> list[str]:
    train, test = folder / "train", folder / "test"
    ids, test_ids = _file_ids(listing.ids), _file_ids(listing.test_ids)
    if all(i.startswith("train_") for i in ids) and all(i.startswith("test_") for i in test_ids):
        ids, test_ids = [i.removeprefix("train_") for i in ids], [i.removeprefix("test_") for i in test_ids]
    has_masks = listing.masked > 0
    for part in (train / "img", test / "img", *([train / "seg"] if has_masks else [])):
        part.mkdir(parents=True)

    def labeled(i: int) -> np.ndarray:
        image, mask, label = listing.read(i)
        np.save(train / "img" / f"train_{ids[i]}.npy", image)
        if has_masks:
            mask = np.full(image.shape[:2], VOID, np.uint8) if mask is None else mask
            np.save(train / "seg" / f"train_{ids[i]}.npy", _cleared(mask, clear))
        return label

    def unlabeled(i: int) -> None:
        np.save(test / "img" / f"test_{test_ids[i]}.npy", read_image(listing.tests[i].image))

    with ThreadPoolExecutor() as pool:
        labels = list(pool.map(labeled, range(len(ids))))
        list(pool.map(unlabeled, range(len(test_ids))))
    names = listing.classes.names
    _write_table(train / "train_set.csv", names, ids, labels)
    _write_table(test / "test_set.csv", names, test_ids, list(np.full((len(test_ids), len(names)), -1)))
    missing = len(ids) - listing.masked if has_masks else 0
    return [f"{missing} of {len(ids)} images had no mask and got an all-void one"] * (missing > 0)


def _write_table(path: Path, classes: Sequence[str], ids: Sequence[str], labels: Sequence[np.ndarray]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("Id", *classes))
        table.writerows((name, *label.tolist()) for name, label in zip(ids, labels, strict=True))


def _write_devkit(listing: Listing, folder: Path, clear: bool) -> list[str]:
    jpegs, segmentation, xmls = (folder / name for name in ("JPEGImages", "SegmentationClass", "Annotations"))
    sets = folder / "ImageSets" / "Segmentation"
    for part in (jpegs, segmentation, xmls, sets):
        part.mkdir(parents=True)
    prefix, test_prefix = ("train_", "test_") if listing.layout == "kaggle" else ("", "")
    ids, test_ids = _file_ids([prefix + i for i in listing.ids]), _file_ids([test_prefix + i for i in listing.test_ids])
    classes = listing.classes.names

    def labeled(i: int) -> bool:
        image, mask, label = listing.read(i)
        _write_jpeg(listing.examples[i].image, image, jpegs / f"{ids[i]}.jpg")
        if mask is None or (mask == VOID).all():  # an all-void mask has no labels
            _write_objects(xmls / f"{ids[i]}.xml", image.shape, [classes[c] for c in np.flatnonzero(label)])
            return False
        palette = Image.fromarray(_cleared(mask, clear))
        palette.putpalette(voc_palette().tobytes())
        palette.save(segmentation / f"{ids[i]}.png")
        return not np.array_equal(label, classes_in(mask, len(classes)))

    def unlabeled(i: int) -> None:
        path = listing.tests[i].image
        _write_jpeg(path, read_image(path), jpegs / f"{test_ids[i]}.jpg")

    with ThreadPoolExecutor() as pool:
        changed = sum(pool.map(labeled, range(len(ids))))
        list(pool.map(unlabeled, range(len(test_ids))))
    for name, listed in (("train", ids), ("test", test_ids)):
        (sets / f"{name}.txt").write_text("".join(f"{i}\n" for i in listed), encoding="utf-8")
    if classes != VOC_CLASSES:
        (folder / "class_names.txt").write_text("\n".join(("_background_", *classes)) + "\n", encoding="utf-8")
    notes = []
    if any(example.image.suffix.lower() not in JPEG for example in (*listing.examples, *listing.tests)):
        notes.append("masks are exact copies; images were compressed as JPEGs (quality 95, 4:4:4)")
    if changed:
        notes.append(
            f"{changed} of {len(ids)} images had labels that differ from their masks: the devkit layout uses the masks"
        )
    return notes


def _write_jpeg(origin: Path, image: np.ndarray, path: Path) -> None:
    if origin.suffix.lower() in JPEG and not _is_turned(origin):
        shutil.copyfile(origin, path)
    else:
        Image.fromarray(image).save(path, quality=95, subsampling=0)


def _is_turned(path: Path) -> bool:
    with Image.open(path) as file:
        return orientation(file) != 1


def _write_objects(path: Path, shape: tuple[int, ...], names: Sequence[str]) -> None:
    """Write a minimal annotation: object names for the labels, but no boxes, which the set does not have."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{path.stem}.jpg"
    size = ElementTree.SubElement(root, "size")
    for name, value in zip(("height", "width", "depth"), shape, strict=True):
        ElementTree.SubElement(size, name).text = str(value)
    for name in names:
        ElementTree.SubElement(ElementTree.SubElement(root, "object"), "name").text = name
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path)


def _cleared(mask: np.ndarray, clear: bool) -> np.ndarray:
    return np.where(mask == VOID, np.uint8(0), mask) if clear else mask
