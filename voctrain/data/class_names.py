"""The classes of a set: names, and the mask values and colors that stand for them, as class-list files say them."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from voctrain.data.text_files import read_text

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255  # mask value of pixels without a class: object borders and unlabeled regions
MOST_MASK_CLASSES = VOID - 1  # masks are uint8
BACKGROUND_NAMES = ("background", "bg")
VOID_NAMES = ("ignore", "ignored", "void", "unlabeled", "unlabelled", "unknown", "border")
# The class lists that CVAT, labelme, LabelImg, PaddlePaddle and Roboflow write or read, best source first.
CLASS_LISTS = ("labelmap.txt", "class_names.txt", "classes.txt", "labels.txt", "label_list.txt", "_classes.csv")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """Class names in the order of their numbers 1, 2, …, and how masks name them; 0 is background and 255 void."""

    names: tuple[str, ...]
    source: str  # where the list comes from, for people
    values: Mapping[int, int] = field(default_factory=dict)  # mask value in the files → number, where these differ
    colors: Mapping[Color, int] = field(default_factory=dict)  # RGB color in the files → number; empty: VOC's colors
    forced: Mapping[int, int] = field(default_factory=dict)  # the user's `values`, which win over all else

    def __str__(self) -> str:
        return listed(self.names, self.source)

    def number(self, name: str) -> int | None:
        """The number of a class by its name, without regard to case and surrounding blanks; None if unknown."""
        return next((n for n, own in enumerate(self.names, 1) if same_name(own, name)), None)


def listed(names: Sequence[str], source: str) -> str:
    """A class list in one line, for people."""
    return f"{len(names)} class{'es' if len(names) > 1 else ''} from {source}: {in_short(names, 20)}"


def fold(name: str) -> str:
    """What names are compared by."""
    return " ".join(name.split()).casefold()


def same_name(one: str, other: str) -> bool:
    """Whether two names differ in case and blanks only."""
    return fold(one) == fold(other)


def canonical(names: Iterable[str]) -> tuple[str, ...]:
    """The names without surrounding blanks, in VOC's spelling and order if they are VOC's 20 in any order."""
    names = tuple(" ".join(name.split()) for name in names)
    folded = [fold(name) for name in names]
    return VOC_CLASSES if sorted(folded) == sorted(VOC_CLASSES) else names


def are_vocs(names: Iterable[str]) -> bool:
    """Whether all names are VOC's."""
    return {fold(name) for name in names} <= set(VOC_CLASSES)


def in_short(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names and the number of the others, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def contrast(one: Sequence[str], other: Sequence[str]) -> tuple[str, str]:
    """Shorten two different lists of names for a message, each starting at the first difference."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    first, second = (in_short(names[same:], 3) or "no more" for names in (one, other))
    return (f"…, {first}", f"…, {second}") if same else (first, second)


def find_class_list(*folders: Path) -> ClassList | None:
    """The class list in the first of these folders that has one."""
    for folder in folders:
        for name in CLASS_LISTS:
            if (folder / name).is_file() and (found := read_class_list(folder / name)) is not None:
                return found
    return None


def read_class_list(path: Path) -> ClassList | None:
    """The classes in a file of one of the kinds in `CLASS_LISTS`, which is told by its content; None for a label table.

    Entries for background and void are recognized. If there are any, a mask value is an entry's position, as labelme
    and CVAT count; otherwise the first entry has mask value 1. Raises `ValueError` for a file that is no class list.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    entries = _pixel_values(path, lines) if path.suffix == ".csv" else _plain_entries(lines)
    if entries is None:
        return None
    names = [name for _, name, _ in entries if not is_background(name) and not is_void(name)]
    check_names(names, str(path))
    voc = canonical(names)
    order = {fold(name): number for number, name in enumerate(voc, 1)}

    def number(name: str) -> int:
        return 0 if is_background(name) else VOID if is_void(name) else order[fold(name)]

    values = {value: number(name) for value, name, _ in entries if value is not None and value != number(name)}
    colors = {color: number(name) for _, name, color in entries if color is not None}
    if len(colors) < sum(color is not None for *_, color in entries):
        raise ValueError(f"each class must have its own color, but {path} gives one color twice: correct it")
    return ClassList(voc, path.name, values, colors)


Entry = tuple[int | None, str, Color | None]  # mask value, name, color


def _plain_entries(lines: Sequence[str]) -> list[Entry]:
    """Lines of a name each, or of CVAT's name:color:parts:actions."""
    found: list[tuple[str, Color | None]] = []
    for line in lines:
        name, _, rest = line.partition(":")
        color = re.match(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(:|$)", rest)
        cvat = color is not None or re.fullmatch(r"[^:]*:[^:]*:[^:]*:[^:]*", line) is not None
        found.append((name if cvat else line, None if color is None else _color(color)))
    names = [name.strip().strip(",").strip() for name, _ in found]
    if names and fold(names[0]).strip("_") in VOID_NAMES and any(map(is_background, names[1:2])):
        values: Iterable[int | None] = range(-1, len(names) - 1)  # labelme's labels.txt begins with __ignore__, -1
    else:
        values = range(0 if any(map(is_background, names[:1])) else 1, len(names) + 1)
    return [
        (None if value == -1 else value, name, color)
        for value, name, (_, color) in zip(values, names, found, strict=False)
    ]


def _color(match: re.Match[str]) -> Color:
    red, green, blue = (int(match[i]) for i in (1, 2, 3))
    return red, green, blue


def _pixel_values(path: Path, lines: Sequence[str]) -> list[Entry] | None:
    """Roboflow's table of pixel values and classes. With masks it has a row per value; else it is a table of labels."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)))]
    if not rows or fold(rows[0][0]) != "pixel value":
        return None
    if bad := next((row for row in rows[1:] if len(row) < 2 or not row[0].isdecimal()), None):
        raise ValueError(f"{path} must give a pixel value and a class per row, but has {','.join(bad)!r}: correct it")
    return [(int(row[0]), row[1], None) for row in rows[1:]]


def check_names(names: Sequence[str], origin: str) -> None:
    """Raise `ValueError` unless there is at least one name and no two are the same."""
    if not names:
        raise ValueError(f"a set must have at least one class, but {origin} lists none: add one name per line")
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise ValueError(f"classes must have names, but {origin} has an empty one: name it")
        if (other := seen.setdefault(fold(name), name)) is not name:
            raise ValueError(f"class names must differ, but {origin} has {other!r} and {name!r}: rename one")


def is_background(name: str) -> bool:
    """Whether an entry of a class list stands for the background."""
    return fold(name).strip("_") in BACKGROUND_NAMES


def is_void(name: str) -> bool:
    """Whether an entry of a class list stands for pixels that are ignored."""
    return fold(name).strip("_") in VOID_NAMES


def with_mask_values(classes: ClassList | None, given: Sequence[str]) -> ClassList | None:
    """The list with the user's mask values, such as ("255=1", "7=cell"); numbers and names of classes.

    Without a list, names become the classes. Raises `ValueError` for a value that is malformed or unknown.
    """
    if not given:
        return classes
    pairs = [(text.partition("=")[0].strip(), text.partition("=")[2].strip()) for text in given]
    if classes is None:
        names = tuple(dict.fromkeys(to for _, to in pairs if not to.isdecimal() and not is_background(to) and to))
        classes = ClassList(names or ("object",), "--mask-value")
    forced: dict[int, int] = {}
    for (value, to), text in zip(pairs, given, strict=True):
        number = int(to) if to.isdecimal() else 0 if is_background(to) else VOID if is_void(to) else classes.number(to)
        if not value.isdecimal() or number is None or (number > len(classes.names) and number != VOID):
            raise ValueError(
                f"--mask-value must be VALUE=CLASS, where CLASS is 0 (background), 255 (void) or one of"
                f" {in_short(classes.names)}, by name or number, but got {text!r}"
            )
        forced[int(value)] = number
    return replace(classes, forced=forced)


def object_names(path: Path) -> list[str]:
    """The class names of the objects in an XML annotation. Raises the parser's exception for a file that is not XML."""
    return [" ".join((name.text or "").split()) for name in ElementTree.parse(path).iterfind("object/name")]
