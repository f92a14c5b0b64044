"""The classes of a set: names, and the mask values and colors that stand for them, as class-list files say them."""

import csv
import functools
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from voctrain.data.text_files import naming_file, read_text

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255  # mask value of pixels without a class: object borders and unlabeled regions
MOST_MASK_CLASSES = VOID - 1  # masks are uint8
BACKGROUND_NAMES = ("background", "bg")
VOID_NAMES = ("ignore", "ignored", "void", "unlabeled", "unlabelled")
# The class lists that CVAT, CamVid, labelme, LabelImg, PaddlePaddle and Roboflow write or read, best source first.
CLASS_LISTS = (
    *("labelmap.txt", "label_colors.txt", "class_dict.csv", "class_names.txt", "classes.txt", "labels.txt"),
    *("label_list.txt", "_classes.csv"),
)

COMMENT = re.compile(r"\s*(#|label\s*:\s*color)")  # CVAT's header, too

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """Class names in the order of their numbers 1, 2, …, and how masks name them; 0 is background and 255 void."""

    names: tuple[str, ...]
    source: str  # where the list comes from, for people
    values: Mapping[int, int] = field(default_factory=dict)  # mask value in the files → number, where these differ
    colors: Mapping[Color, int] = field(default_factory=dict)  # RGB color in the files → number; empty: VOC's colors
    forced: Mapping[int, int] = field(default_factory=dict)  # the user's `values`, which win over all else
    ordered: bool = True  # whether the order of the list says which mask value a class has

    def __str__(self) -> str:
        return listed(self.names, self.source)

    def number(self, name: str) -> int | None:
        """The number of a class by its name, without regard to case and surrounding blanks; None if unknown."""
        return self._numbers.get(fold(name))

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {fold(name): number for number, name in enumerate(self.names, 1)}


def listed(names: Sequence[str], source: str) -> str:
    """A class list in one line, for people."""
    return f"{len(names)} class{'es' if len(names) > 1 else ''} from {source}: {in_short(names, 20)}"


@functools.lru_cache(maxsize=4096)  # tables have millions of cells of few kinds
def fold(name: str) -> str:
    """What names are compared by."""
    return " ".join(name.split()).casefold()


def merged(names: Iterable[str]) -> tuple[str, ...]:
    """Names that differ in case and blanks only as one, in alphabetical order; the most frequent spelling counts.

    Numbers in names are in the order of their size: cell 9, cell 10.
    """
    spelled: dict[str, str] = {}
    for name, _ in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])):
        spelled.setdefault(fold(name), name)
    return tuple(spelled[name] for name in sorted(spelled, key=_by_number))


def _by_number(name: str) -> list[str | tuple[int, str]]:
    parts = re.split("([0-9]+)", name)  # texts and numbers in turn
    return [(len(part.lstrip("0")), part) if i % 2 else part for i, part in enumerate(parts)]


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
        files = {name.casefold(): folder / name for name in sorted(os.listdir(folder))} if folder.is_dir() else {}
        for path in (files[name] for name in CLASS_LISTS if name in files and files[name].is_file()):
            if (found := read_class_list(path)) is not None:
                return found
    return None


def read_class_list(path: Path) -> ClassList | None:
    """The classes in a file of one of the kinds in `CLASS_LISTS`, which is told by its content; None for a label table.

    Entries for background and void are recognized. If the first entry is one, a mask value is an entry's position, as
    labelme and CVAT count; otherwise the first entry has mask value 1. If the background comes later, or a class has
    number 0, the order says nothing about mask values. Raises `ValueError` for a file that is not a class list.
    """
    lines = [line for line in read_text(path).split("\n") if line.strip() and not COMMENT.match(line)]
    colored = _colored_entries(lines)
    is_table = not colored and path.suffix.lower() == ".csv"
    plain = _pixel_values(path, lines) if is_table else _numbered_entries(lines) or _plain_entries(lines)
    if (entries := colored or plain) is None:
        return None
    if bad := next((color for *_, color in entries if color is not None and max(color) > 255), None):
        raise ValueError(f"colors must be in 0..255, but {path} has {','.join(map(str, bad))}: correct it")
    names = [name for _, name, _ in entries if not is_background(name) and not is_void(name)]
    check_names(names, str(path))
    voc = canonical(names)
    order = {fold(name): number for number, name in enumerate(voc, 1)}

    def number(name: str) -> int:
        return 0 if is_background(name) else VOID if is_void(name) else order[fold(name)]

    colors = {color: number(name) for _, name, color in entries if color is not None}
    # Grays of the list, such as 128,128,128, are also what gray masks contain.
    values = {color[0]: n for color, n in colors.items() if len({*color}) == 1 and color[0] >= len(entries)}
    values |= {value: number(name) for value, name, _ in entries if value is not None and value != number(name)}
    if len(colors) < sum(color is not None for *_, color in entries):
        raise ValueError(f"each class must have its own color, but {path} gives one color twice: correct it")
    before = [name for _, name, _ in entries[: next((i for i, e in enumerate(entries) if is_background(e[1])), 0)]]
    ordered = is_table or (all(map(is_void, before)) and values.get(0, VOID) == VOID)
    return ClassList(voc, path.name, values, colors, ordered=ordered)


Entry = tuple[int | None, str, Color | None]  # mask value, name, color


def _numbered_entries(lines: Sequence[str]) -> list[Entry]:
    """Lines of a mask value and a name each, such as "0 background" or "1: cat"; [] unless the values count on."""
    found = [re.fullmatch(r"\s*([0-9]{1,3})\s*[\s:,;.)]\s*([^\s:,][^:,]*)", line) for line in lines]
    entries: list[Entry] = [(int(match[1]), match[2].strip(), None) for match in found if match is not None]
    values = [value for value, *_ in entries]
    counts = len(values) == len(lines) and values in (list(range(len(lines))), list(range(1, len(lines) + 1)))
    return entries if counts and len({fold(name) for _, name, _ in entries}) == len(lines) else []


def _colored_entries(lines: Sequence[str]) -> list[Entry]:
    """Lines of a name and a color each, in either order, such as "cat 128 0 0"; [] if any is another."""
    if lines and re.fullmatch(r"(name|class|label)\W+r(ed)?\W+g(reen)?\W+b(lue)?", fold(lines[0])):
        lines = lines[1:]
    color = r"(?P<r>[0-9]{1,3})[\s,;]+(?P<g>[0-9]{1,3})[\s,;]+(?P<b>[0-9]{1,3})"
    found = [
        re.fullmatch(rf"(?P<name>.*?[^\s,;:])[\s,;:]+{color}", line.strip(" ,;\t\n"))
        or re.fullmatch(rf"{color}[\s,;:]+(?P<name>\D.*)", line.strip(" ,;\t\n"))
        for line in lines
    ]
    entries: list[tuple[str, Color | None]] = []
    for match in filter(None, found):
        red, green, blue = (int(match[channel]) for channel in "rgb")
        entries.append((_bare(match["name"]), (red, green, blue)))
    return _positioned(entries) if len(entries) == len(lines) else []


def _plain_entries(lines: Sequence[str]) -> list[Entry]:
    """Lines of a name each, or of CVAT's name:color:parts:actions."""
    names: list[str] = []
    colors: list[Color | None] = []
    for line in lines:
        name, _, rest = line.partition(":")
        color = re.match(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*(:|$)", rest)
        cvat = color is not None or re.fullmatch(r"[^:]*:[^:]*:[^:]*:[^:]*", line) is not None
        names.append(_bare(name if cvat else line))
        colors.append(None if color is None else (int(color[1]), int(color[2]), int(color[3])))
    return _positioned(list(zip(names, colors, strict=True)))


def _bare(name: str) -> str:
    """A name without surrounding blanks, commas and quotes."""
    return re.sub(r"""^(["'])(.*)\1$""", r"\2", name.strip(", \t"))


def _positioned(entries: Sequence[tuple[str, Color | None]]) -> list[Entry]:
    """The entries with the mask values that their places mean."""
    names = [name for name, _ in entries]
    head, second = any(map(is_void, names[:1])), any(map(is_background, names[1:2]))
    if head and fold(names[0]) == "__ignore__":  # labelme's list begins with this one, as -1
        first = -1 if second else 0
        return [(first + i if i else None, *entry) for i, entry in enumerate(entries)]
    first = 0 if head or any(map(is_background, names[:1])) else 1
    return [(first + i, *entry) for i, entry in enumerate(entries)]


def _pixel_values(path: Path, lines: Sequence[str]) -> list[Entry] | None:
    """Roboflow's table of pixel values and classes. With masks it has a row per value; else it is a table of labels."""
    with naming_file(path):
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)))]
    if not rows or not rows[0] or fold(rows[0][0]) != "pixel value":
        return None
    if bad := next((row for row in rows[1:] if len(row) < 2 or not is_number(row[0])), None):
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
        if fold(name) in seen:
            raise ValueError(f"class names must differ, but {origin} has {seen[fold(name)]!r} and {name!r}: rename one")
        seen[fold(name)] = name


def is_number(text: str) -> bool:
    """Whether a text is a number without sign, as mask values are."""
    return re.fullmatch("[0-9]{1,9}", text) is not None


def is_background(name: str) -> bool:
    """Whether an entry of a class list stands for the background."""
    return fold(name).strip("_") in BACKGROUND_NAMES


def is_void(name: str) -> bool:
    """Whether an entry of a class list stands for pixels that are ignored."""
    return fold(name).strip("_") in VOID_NAMES


def with_mask_values(classes: ClassList | None, given: Sequence[str]) -> ClassList | None:
    """The list with the user's mask values, such as ("255=1", "7=cell"); numbers and names of classes.

    Without a list, names become the classes; if there are only numbers, the list is without names, which are still to
    be found. Raises `ValueError` for a value that is malformed or unknown.
    """
    if not given:
        return classes
    pairs = [(text.partition("=")[0].strip(), text.partition("=")[2].strip()) for text in given]
    if classes is None:
        named = {fold(to): to for _, to in pairs if not (is_number(to) or is_background(to) or is_void(to))}
        classes = ClassList(tuple(filter(None, named.values())), "--mask-value")
    most = len(classes.names) or MOST_MASK_CLASSES
    forced: dict[int, int] = {}
    for (value, to), text in zip(pairs, given, strict=True):
        number = int(to) if is_number(to) else 0 if is_background(to) else VOID if is_void(to) else classes.number(to)
        if not is_number(value) or number is None or (number > most and number != VOID):
            raise ValueError(
                f"--mask-value must be VALUE=CLASS, where CLASS is 0 (background), 255 (void) or one of"
                f" {in_short(classes.names) or '1, 2, …'}, by name or number, but got {text!r}"
            )
        forced[int(value)] = number
    return replace(classes, forced=forced)


def object_names(path: Path) -> list[str]:
    """The class names of the objects in an XML annotation; objects called after background or void are left out.

    Raises the parser's exception for a file that is not XML.
    """
    names = [" ".join((name.text or "").split()) for name in ElementTree.parse(path).iterfind("object/name")]
    return [name for name in names if not is_background(name) and not is_void(name)]
