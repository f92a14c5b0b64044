"""The class names in a set's class lists, annotations and tables. Sets with classes other than VOC's are rejected."""

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
NOT_CLASSES = ("background", "ignore", "ignored", "void", "unlabeled", "unlabelled")  # entries of class lists
# The files that CVAT, labelme, LabelImg, PaddlePaddle and Roboflow write or read.
CLASS_LISTS = ("labelmap.txt", "class_names.txt", "classes.txt", "labels.txt", "label_list.txt", "_classes.csv")
MASK_FOLDERS = ("SegmentationClass", "train/seg")  # in the devkit and the Kaggle layout


def canonical(name: str) -> str:
    """`name` without surrounding whitespace, and in VOC's spelling if only the case differs."""
    name = name.strip()
    return name.casefold() if name.casefold() in VOC_CLASSES else name


def in_short(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names and the number of the others, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def contrast(one: Sequence[str], other: Sequence[str]) -> tuple[str, str]:
    """Shorten two different lists of names for a message, each starting at the first difference."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    first, second = (in_short(names[same:], 3) or "no more" for names in (one, other))
    return (f"…, {first}", f"…, {second}") if same else (first, second)


def unsupported_classes(found: str, names: Sequence[str], repair: str) -> ValueError:
    """The error for a set with classes `names` that are not VOC's; `found` is where, such as "a.txt lists"."""
    if len(names) > len(VOC_CLASSES):
        repair = f"merge them into at most {len(VOC_CLASSES)}, then {repair}"
    return ValueError(f"only VOC's 20 classes are supported so far, but {found} {in_short(names)}: {repair}")


def check_class_lists(folder: Path) -> None:
    """Raise `ValueError` unless each class list in `folder` or next to its masks is VOC's or a prefix of it.

    Without masks the order has no meaning, so it is not checked.
    """
    numbered = any((folder / part).is_dir() and any((folder / part).iterdir()) for part in MASK_FOLDERS)
    for place in (folder, folder / "train", *(folder / part for part in MASK_FOLDERS)):
        for path in (place / name for name in CLASS_LISTS if (place / name).is_file()):
            names = _read_class_list(path)
            if other := [name for name in names if name not in VOC_CLASSES]:
                raise unsupported_classes(
                    f"{path} lists",
                    other,
                    "list VOC's names there, in VOC's order, as placeholders (mask value 1 is aeroplane, 2 bicycle,"
                    " 3 bird, …), or rename the file if it is not a class list",
                )
            if numbered and tuple(names) != VOC_CLASSES[: len(names)]:
                raise ValueError(
                    f"classes must be listed in VOC's order (mask value 1 is aeroplane, 2 bicycle, 3 bird, …), but"
                    f" {path} lists {in_short(names)}: remove it if the masks have VOC's numbers, or renumber the masks"
                )


def check_annotations(paths: Iterable[Path]) -> None:
    """Raise `ValueError` if an object in these annotations is not of VOC's classes. Files without XML are skipped."""
    other: dict[str, Path] = {}  # class name → the first file with it
    for path in paths:
        try:
            names = object_names(path)
        except (OSError, ElementTree.ParseError, LookupError, ValueError):
            continue
        for name in names:
            if name and name not in VOC_CLASSES:
                other.setdefault(name, path)
    if other:
        raise unsupported_classes(
            f"annotations such as {next(iter(other.values()))} name",
            list(other),
            "rename these objects to VOC's names, such as aeroplane, bicycle and bird, as placeholders",
        )


def object_names(path: Path) -> list[str]:
    """The class names of the objects in an XML annotation. Raises the parser's exception for a file that is not XML."""
    return [canonical(name.text or "") for name in ElementTree.parse(path).iterfind("object/name")]


def _read_class_list(path: Path) -> list[str]:
    """The classes in a class list, without background and void."""
    raw = path.read_bytes()
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    lines = [line for line in raw.decode(encoding, errors="replace").splitlines() if line.strip()]
    if path.suffix == ".csv":
        head, *rows = [[cell.strip() for cell in line.split(",")] for line in lines] or [[]]
        # Roboflow's CSV has one row per mask value or, without masks, one row per image and one column per class.
        names = [row[-1] for row in rows] if [cell.casefold() for cell in head[:1]] == ["pixel value"] else head[1:]
    elif path.name == "labelmap.txt":  # name:color:parts:actions
        names = [line.split(":")[0] for line in lines]
    else:
        names = lines
    names = [canonical(name) for name in names if not name.lstrip().startswith("#")]
    return [name for name in names if name.strip("_").casefold() not in NOT_CLASSES]
