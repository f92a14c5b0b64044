"""The folder layouts of a set, each read into a `Listing` of its files. The layout is detected."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voctrain.data.class_names import ClassList, find_class_list, read_class_list, with_mask_values
from voctrain.data.image_files import IMAGE_ENDINGS
from voctrain.data.layouts import coco, devkit, folders, kaggle, table
from voctrain.data.layouts.listing import Listing

LABEL_ENDINGS = (".xml", ".csv", ".tsv", ".json")


def read_layout(
    folder: str | Path,
    *,
    use_val: bool = False,
    own_val: bool = False,
    classes: str | Path | None = None,
    mask_values: Sequence[str] = (),
) -> Listing:
    """List the files of a set. The layout is detected; images are not opened.

    Args:
        folder: a folder in one of the layouts in this package, or one that contains nothing but such a folder.
        use_val: adds the images in the devkit's val.txt to the labeled images.
        own_val: adds them, too, but as the set's own validation part.
        classes: a class list, see `read_class_list`, which takes the place of the set's own.
        mask_values: what values in the masks mean, such as "255=1" or "7=cell".

    Raises:
        ValueError: the folder does not exist or has none of the layouts; a file is missing; or a table, list or class
            list is malformed.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise ValueError(f"the data must be a folder, but {str(folder)!r} is a file: unpack it, or pass its folder")
    if not folder.is_dir():
        raise ValueError(
            f"the data must be a folder, voc2009 or sample, but {str(folder)!r} does not exist: check the path"
        )
    given = None if classes is None else _read_given(Path(classes).expanduser())
    listing = _detect(folder, use_val, own_val, None if given is None else given.names)
    if use_val and listing.layout != "devkit":
        raise ValueError(f"use_val needs the devkit layout, but {str(folder)!r} has another one: omit it")
    return replace(listing, class_list=with_mask_values(given or listing.class_list, mask_values))


def _only_folder(folder: Path) -> Path | None:
    """The only folder in this one, if nothing beside it is part of a set: what unpacking an archive leaves."""
    shown = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    inside = [path for path in shown if path.is_dir() or path.suffix.lower() in (*IMAGE_ENDINGS, *LABEL_ENDINGS)]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else None


def _read_given(path: Path) -> ClassList:
    if not path.is_file():
        raise ValueError(f"--classes must be a file with a class name per line, but there is no file {str(path)!r}")
    found = read_class_list(path)
    if found is None:
        raise ValueError(f"--classes must be a file with a class name per line, but {path} is a table of labels")
    return replace(found, source=str(path))


def _detect(folder: Path, use_val: bool, own_val: bool, classes: tuple[str, ...] | None) -> Listing:
    if kaggle.is_kaggle(folder):
        return kaggle.read_kaggle(folder, classes)
    if years := devkit.years_in(folder):
        return devkit.read_years(folder, years, use_val, own_val)
    if files := coco.instance_files(folder):
        return coco.read_coco(folder, files)
    pairs = folders.find_pairs(folder)
    if tables := table.tables_in(folder):
        if pairs.matched:
            unused = f"{tables[0].name} is not used: the masks say what is in the images"
            return folders.read_pairs(folder, pairs, (unused,))
        return table.read_tables(folder, tables, classes)
    if inside := _only_folder(folder):
        listing = _detect(inside, use_val, own_val, classes)
        return replace(listing, class_list=listing.class_list or find_class_list(folder))
    if pairs.images and (pairs.masks or pairs.images.keys() & pairs.annotations.keys()):
        return folders.read_pairs(folder, pairs)
    raise ValueError(
        "a data folder must contain JPEGImages (devkit), train/train_set.csv (Kaggle), a COCO JSON file, a CSV file"
        f" with a column filename, or images with masks or XML files, but {str(folder)!r} has none: pass the folder"
        " that does"
    )
