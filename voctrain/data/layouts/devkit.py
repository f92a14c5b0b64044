"""The devkit layout, as the PASCAL VOC archives unpack and as CVAT, labelme, LabelImg and Datumaro export it.

JPEGImages, SegmentationClass (masks) and Annotations (XML), with lists of ids in ImageSets/Segmentation and
ImageSets/Main. Only JPEGImages is required. Without lists, every image with a mask or an annotation is labeled, and the
others are the test images. The names of folders may differ in case.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from voctrain.data.class_names import ClassList, canonical, find_class_list, in_short, merged
from voctrain.data.image_files import ENDING, IMAGE_ENDINGS, Index, files_below
from voctrain.data.layouts.listing import Example, Listing, checked
from voctrain.data.layouts.parts import MASK_SUFFIX
from voctrain.data.text_files import read_lines

YEARS = ("VOC[0-9]*", "VOCdevkit/VOC[0-9]*", "TrainVal/VOCdevkit/VOC[0-9]*")  # where VOC's archives put a year
LIST_FOLDERS = ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets", ".")
MASK_FOLDERS = tuple(f"SegmentationClass{kind}" for kind in ("", "PNG", "Npy", "Raw", "Aug"))
SIDES = ("train", "val", "trainval", "test")


def years_in(folder: Path) -> list[Path]:
    """The folder itself or those below it that have the devkit layout, latest year first."""
    below = (found for pattern in YEARS for found in sorted(folder.glob(pattern), reverse=True))
    return [folder] if is_devkit(folder) else [found for found in below if is_devkit(found)]


def is_devkit(folder: Path) -> bool:
    """Whether the folder itself has this layout."""
    return part(folder, "JPEGImages").is_dir()


def part(root: Path, relative: str) -> Path:
    """The folder of this relative path, whose case counts only if there are several."""
    folder = root
    for name in Path(relative).parts:
        exact = folder / name
        alike = (p for p in sorted(folder.iterdir()) if p.name.casefold() == name.casefold()) if folder.is_dir() else ()
        folder = exact if exact.is_dir() else next(iter(alike), exact)
    return folder


def read_years(folder: Path, years: list[Path], use_val: bool, own_val: bool) -> Listing:
    """One listing of one or more years. An image that several years have is taken from the latest."""
    listings = [_read_year(year, folder, use_val, own_val) for year in years]
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
    notes += (f"{len(years)} years together: {names}; an image that several have is taken from the latest",)
    found = [(listing.root, listing.class_list) for listing in listings if listing.class_list]
    for year, classes in found[1:]:
        if replace(classes, source="") != replace(found[0][1], source=""):
            raise ValueError(
                f"all years must have the same class list, but those of {found[0][0]} and {year} differ: correct one,"
                " or pass one of the years"
            )
    return Listing(
        "devkit", folder, tuple(examples.values()), tuple(tests.values()), found[0][1] if found else None, notes
    )


@dataclass(frozen=True)
class _Lists:
    """The ids in the lists of a year."""

    folders: list[Path]
    train: list[str]
    tests: list[str]
    vals: list[str]  # in any val.txt
    listed: set[str]  # in any list
    held_back: bool  # whether the test images are those of Segmentation/val.txt


def _read_lists(root: Path, images: Index, use_val: bool, own_val: bool) -> _Lists:
    """Masks and labels may have lists of their own: an image is labeled if any list for training has it.

    As in the competition that this project grew from, Segmentation/val.txt has the test images if there is no test.txt,
    and is ignored otherwise, unless the user wants it.
    """
    folders = [folder for name in LIST_FOLDERS if (folder := part(root, name)).is_dir()]
    sides = [{side: _listed(folder, side, images) for side in SIDES} for folder in folders]
    vals = _joined(found["val"] for found in sides)
    if (use_val or own_val) and not vals:
        raise ValueError(f"the validation images must be listed in a val.txt, but {root} has none: omit the option")
    wanted = use_val or own_val
    tests = next((found["test"] for found in sides if found["test"]), [])
    trains = [found["train"] or [n for n in found["trainval"] if n not in {*found["val"]}] for found in sides]
    competes = folders[0] == part(root, LIST_FOLDERS[0]) and any(trains) and not wanted
    competition = sides[0]["val"] if competes else []
    if both := set(_joined([trains[0], vals if wanted else []])) & set(tests or competition):
        raise ValueError(
            f"no image may be both labeled and test, but {min(both)} is: remove it from a list in {root / 'ImageSets'}"
        )
    train = _joined([*trains, vals if wanted or not competition else []])
    held_back = set(tests or competition)
    train = [name for name in train if name not in held_back]
    listed = {name for found in sides for names in found.values() for name in names}
    return _Lists(folders, train, tests or competition, vals, listed, bool(competition) and not tests)


def _read_year(root: Path, top: Path, use_val: bool, own_val: bool) -> Listing:
    images = Index(part(root, "JPEGImages"))
    mask_folder = next((f for name in MASK_FOLDERS if (f := part(root, name)).is_dir()), root / MASK_FOLDERS[0])
    xml_folder = part(root, "Annotations")
    masks, xmls = (
        Index(folder, files_below(folder, endings), lambda name: _image_of(name, images))
        for folder, endings in ((mask_folder, IMAGE_ENDINGS), (xml_folder, (".xml",)))
    )
    lists = _read_lists(root, images, use_val, own_val)
    files = {name: (masks.partner(name, images), xmls.partner(name, images)) for name in images.paths}
    class_lists = _class_lists(lists.folders) if any(files[n] == (None, None) for n in lists.train or files) else []
    in_lists = _labels_in_lists(class_lists, images)
    labeled = {name for name, found in files.items() if found != (None, None) or name in in_lists}
    train, tests = lists.train, lists.tests
    unlisted = sorted(files.keys() - lists.listed)
    if not train:
        train = [name for name in unlisted if name in labeled]
        tests = tests or [name for name in unlisted if name not in labeled]
    elif not (part(root, "ImageSets/Main") / "train.txt").is_file():
        # A list of masks says nothing about images that only have annotations.
        train = [*train, *(name for name in unlisted if name in labeled and files[name][0] is None)]
    if missing := [name for name in train if name not in labeled]:
        where = f"{mask_folder / missing[0]}.png and {xml_folder / missing[0]}.xml are missing"
        others = f", as are those of {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ValueError(f"a labeled image needs a mask or an annotation, but {where}{others}: add one of them")
    vals = set(lists.vals)
    examples = [
        Example(
            name,
            images.paths[name],
            *files[name],
            names=frozenset(in_lists[name]) if files[name] == (None, None) else None,
            in_val=name in vals,
        )
        for name in train
    ]
    class_list = find_class_list(root, mask_folder, *(above for above in root.parents if above.is_relative_to(top)))
    if class_list is None and class_lists and not xmls.paths:
        names = merged(name for name, _ in class_lists)
        class_list = ClassList(canonical(names), "the lists in ImageSets/Main")
    used = {path for found in files.values() for path in found}
    unused = [path for path in (*masks.paths.values(), *xmls.paths.values()) if path not in used]
    notes = []
    if unused:
        notes.append(f"{len(unused)} masks or annotations belong to no image, such as {unused[0]}: they are not used")
    if lists.held_back and labeled.issuperset(tests):
        notes.append(
            f"the {len(tests)} images of val.txt are the test images, although they have labels: --use-val adds them to"
            " the labeled images, and --val val.txt validates on them"
        )
    tested = tuple(Example(name, images.paths[name]) for name in tests)
    return Listing("devkit", root, checked(examples, str(root)), tested, class_list, tuple(notes))


def _image_of(name: str, images: Index) -> str:
    """The id of the image that a mask or an annotation is named after: x for x, x_mask and x.jpg."""
    short = ENDING.sub("", MASK_SUFFIX.sub("", name))
    return short if short in images.paths and name not in images.paths else name


def _joined(lists: Iterable[list[str]]) -> list[str]:
    """All ids of the lists, each once."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _listed(folder: Path, side: str, images: Index) -> list[str]:
    """The ids in a folder's list of one side, or none. CVAT names the training list default.txt."""
    stems = (side, f"{side}_list", *(["default"] if side == "train" else []))
    paths = [path for path in files_below(folder, [".txt"], deep=False) if path.stem.casefold() in stems]
    found = _joined(_ids(path, images) for path in paths)
    if paths and not found and side == "train":
        raise ValueError(f"{paths[0]} lists no images: list the ids of the labeled images, or remove it")
    return found


def _ids(path: Path, images: Index) -> list[str]:
    found = [(line, images.find(line)) for line in read_lines(path)]
    if missing := [line.split()[0] for line, name in found if name is None and not line.startswith("#")]:
        raise ValueError(
            f"every file of the data set must exist, but {path} lists {in_short(missing)}, missing in {images.folder}:"
            " restore the images, or remove the lines"
        )
    names = [name for _, name in found if name is not None]
    if twice := next((name for name, n in Counter(names).items() if n > 1), None):
        raise ValueError(f"ids must be unique, but {path} has {twice!r} twice: remove one")
    return names


def _class_lists(folders: Iterable[Path]) -> list[tuple[str, list[tuple[str, int]]]]:
    """The classes of ImageSets/Main/{class}_{side}.txt, with the lines: an image, and -1, 0 or 1."""
    found = []
    for folder in folders:
        for path in files_below(folder, [".txt"], deep=False) if folder.name.casefold() == "main" else ():
            name, _, side = path.stem.rpartition("_")
            rows = [line.rsplit(None, 1) for line in read_lines(path)]
            if side in SIDES and name and rows and all(row[1:] in (["-1"], ["0"], ["1"], ["+1"]) for row in rows):
                found.append((name, [(row[0], int(row[1])) for row in rows]))
    return found


def _labels_in_lists(lists: Iterable[tuple[str, list[tuple[str, int]]]], images: Index) -> dict[str, set[str]]:
    """The classes of images in lists with -1 (no), 0 (difficult) or 1; without any -1, 0 means no."""
    found: dict[str, set[str]] = {}
    for class_name, rows in lists:
        least = 0 if any(value == -1 for _, value in rows) else 1
        for text, value in rows:
            if (name := images.find(text)) is not None:
                found.setdefault(name, set()).update([class_name] * (value >= least))
    return found
