"""The devkit layout, as the PASCAL VOC archives unpack and as CVAT, labelme, LabelImg and Datumaro export it.

JPEGImages, SegmentationClass (masks) and Annotations (XML), with lists of ids in ImageSets/Segmentation and
ImageSets/Main. Only JPEGImages is required. Without lists, every image with a mask or an annotation is labeled, and the
others are the test images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from voctrain.data.class_names import ClassList, canonical, find_class_list
from voctrain.data.image_files import Index
from voctrain.data.layouts.listing import Example, Listing, checked
from voctrain.data.text_files import read_lines

YEARS = ("VOC[0-9]*", "VOCdevkit/VOC[0-9]*", "TrainVal/VOCdevkit/VOC[0-9]*")  # where VOC's archives put a year
LIST_FOLDERS = ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets", ".")
SIDES = ("train", "val", "trainval", "test")


def years_in(folder: Path) -> list[Path]:
    """The folder itself or those below it that have the devkit layout, latest year first."""
    below = (found for pattern in YEARS for found in sorted(folder.glob(pattern), reverse=True))
    return [folder] if is_devkit(folder) else [found for found in below if is_devkit(found)]


def is_devkit(folder: Path) -> bool:
    """Whether the folder itself has this layout."""
    return (folder / "JPEGImages").is_dir()


def read_years(folder: Path, years: list[Path], use_val: bool, own_val: bool) -> Listing:
    """One listing of one or more years. An image that several years have is taken from the latest."""
    listings = [_read_year(year, use_val, own_val) for year in years]
    if len(listings) == 1:
        return listings[0]
    examples: dict[str, Example] = {}
    tests: dict[str, Example] = {}
    for listing in listings:
        for example in listing.tests:
            if example.id not in examples:
                tests.setdefault(example.id, example)
        for example in listing.examples:
            if example.id not in tests:
                examples.setdefault(example.id, example)
    names = ", ".join(year.name for year in years)
    notes = tuple(note for listing in listings for note in listing.notes)
    class_list = next((listing.class_list for listing in listings if listing.class_list), None)
    notes += (f"{len(years)} years together: {names}; an image that several have is taken from the latest",)
    return Listing("devkit", folder, tuple(examples.values()), tuple(tests.values()), class_list, notes)


@dataclass(frozen=True)
class _Lists:
    """The ids in the lists of a year."""

    folders: list[Path]
    train: list[str]
    tests: list[str]
    vals: list[str]  # in any val.txt
    held_back: bool  # whether the test images are those of Segmentation/val.txt


def _read_lists(root: Path, images: Index, use_val: bool, own_val: bool) -> _Lists:
    """Masks and labels may have lists of their own: an image is labeled if any list for training has it.

    As in the competition that this project grew from, Segmentation/val.txt has the test images if there is no test.txt,
    and is ignored otherwise, unless the user wants it.
    """
    folders = [folder for part in LIST_FOLDERS if (folder := root / part).is_dir()]
    sides = [{side: _listed(folder, side, images) for side in SIDES} for folder in folders]
    vals = _joined(found["val"] for found in sides)
    if (use_val or own_val) and not vals:
        raise ValueError(f"the validation images must be listed in a val.txt, but {root} has none: omit the option")
    wanted = use_val or own_val
    competition = sides[0]["val"] if folders[0] == root / LIST_FOLDERS[0] and not wanted else []
    tests = next((found["test"] for found in sides if found["test"]), [])
    trains = [found["train"] or ([] if found["val"] else found["trainval"]) for found in sides]
    if both := set(_joined([trains[0], vals if wanted else []])) & set(tests or competition):
        raise ValueError(
            f"no image may be both labeled and test, but {min(both)} is: remove it from a list in {root / 'ImageSets'}"
        )
    train = _joined([*trains, vals if wanted or not competition else []])
    held_back = set(tests or competition)
    train = [name for name in train if name not in held_back]
    return _Lists(folders, train, tests or competition, vals, bool(competition) and not tests)


def _read_year(root: Path, use_val: bool, own_val: bool) -> Listing:
    images, masks, xmls = Index(root / "JPEGImages"), _index(root / "SegmentationClass"), _index(root / "Annotations")
    lists = _read_lists(root, images, use_val, own_val)
    files = {name: (masks.get(name), xmls.get(name)) for name in images.paths}
    class_files = _class_files(lists.folders) if any(files[n] == (None, None) for n in lists.train or files) else []
    listed = _labels_in_lists(class_files, images)
    labeled = {name for name, found in files.items() if found != (None, None) or name in listed}
    train, tests = lists.train, lists.tests
    unlisted = sorted(files.keys() - {*train, *tests, *lists.vals})
    if not train:
        train = [name for name in unlisted if name in labeled]
        tests = tests or [name for name in unlisted if name not in labeled]
    elif not (root / "ImageSets" / "Main" / "train.txt").is_file():
        # A list of masks says nothing about images that only have annotations.
        train = [*train, *(name for name in unlisted if name in labeled and files[name][0] is None)]
    if missing := next((name for name in train if name not in labeled), None):
        where = f"{root / 'SegmentationClass' / missing}.png and {root / 'Annotations' / missing}.xml are missing"
        raise ValueError(f"a labeled image needs a mask or an annotation, but {where}: add one of them")
    vals = set(lists.vals)
    examples = [
        Example(
            name,
            images.paths[name],
            *files[name],
            names=frozenset(listed[name]) if files[name] == (None, None) else None,
            in_val=name in vals,
        )
        for name in train
    ]
    class_list = find_class_list(root, root / "SegmentationClass", root.parent)
    if class_list is None and class_files and not xmls.paths:
        class_list = ClassList(canonical(sorted({name for _, name in class_files})), "the lists in ImageSets/Main")
    notes = []
    if lists.held_back and labeled.issuperset(tests):
        notes.append(
            f"the {len(tests)} images of val.txt are the test images, although they have labels: --use-val adds them to"
            " the labeled images, and --val val.txt validates on them"
        )
    tested = tuple(Example(name, images.paths[name]) for name in tests)
    return Listing("devkit", root, checked(examples, str(root)), tested, class_list, tuple(notes))


def _index(folder: Path) -> Index:
    if not folder.is_dir():
        return Index(folder, ())
    if folder.name == "Annotations":
        return Index(folder, sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml"))
    return Index(folder)


def _joined(lists: Iterable[list[str]]) -> list[str]:
    """All ids of the lists, each once."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _listed(folder: Path, side: str, images: Index) -> list[str]:
    """The ids in a folder's list of one side, or none. CVAT names the training list default.txt."""
    stems = (side, "default") if side == "train" else (side,)
    paths = [path for path in sorted(folder.glob("*.txt")) if path.stem.casefold() in stems]
    found = _joined(_ids(path, images) for path in paths)
    if paths and not found and side == "train":
        raise ValueError(f"{paths[0]} lists no images: list the ids of the labeled images, or remove it")
    return found


def _ids(path: Path, images: Index) -> list[str]:
    names: dict[str, None] = {}
    for line in read_lines(path):
        name = images.find(line)
        if name is None:
            raise ValueError(
                f"every file of the data set must exist, but {path} lists {line.split()[0]!r}, which is missing in"
                f" {images.folder}: restore it, or remove the line"
            )
        if name in names:
            raise ValueError(f"ids must be unique, but {path} has {name!r} twice: remove one")
        names[name] = None
    return list(names)


def _class_files(folders: Iterable[Path]) -> list[tuple[Path, str]]:
    """The files ImageSets/Main/{class}_{side}.txt, with their classes."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("*_*.txt")) if folder.name == "Main" else ():
            name, _, side = path.stem.rpartition("_")
            if side in SIDES and name:
                found.append((path, name))
    return found


def _labels_in_lists(files: Iterable[tuple[Path, str]], images: Index) -> dict[str, set[str]]:
    """The classes of images in lists of ids, each with -1 (no), 0 (difficult) or 1; without any -1, 0 means no."""
    found: dict[str, set[str]] = {}
    for path, class_name in files:
        rows = [line.rsplit(None, 1) for line in read_lines(path)]
        if any(len(row) != 2 or row[1] not in ("-1", "0", "1", "+1") for row in rows):
            continue  # a list of something else
        least = 0 if any(value == "-1" for _, value in rows) else 1
        for text, value in rows:
            if (name := images.find(text)) is not None:
                found.setdefault(name, set()).update([class_name] * (int(value) >= least))
    return found
