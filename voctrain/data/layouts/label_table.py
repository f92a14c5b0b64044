"""Tables of image labels: a row per image, and a column per class or one column of class names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voctrain.data.class_names import ClassList, canonical, check_names, fold, is_background, is_void, merged
from voctrain.data.text_files import read_header, read_table

# How the columns are called that are not classes.
FILE_COLUMNS = (
    *("id", "filename", "fname", "file", "filepath", "path", "image", "img"),
    *("imageid", "imagename", "imagefile", "imagepath"),
)  # without blanks, underscores and hyphens
NAME_COLUMNS = ("label", "class", "tag", "category", "choice", "class_name")  # one name per row
NAMES_COLUMNS = ("labels", "classes", "tags", "categories", "choices", "class_names")
GROUPS = ("group", "groupid", "patient", "patientid", "subject", "subjectid", "video", "videoid", "sequence")
SIDES = ("split", "subset", "partition", "isvalid")  # the last one is fastai's, of True and False
YES, NO, EMPTY = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no"), ("", "nan", "null", "n/a", "na", "-1")


@dataclass(frozen=True)
class LabelRow:
    """What a table says of one image."""

    file: str  # as the table names it
    names: frozenset[str]
    group: str | None
    side: str | None  # train, val, …, as the table says


@dataclass(frozen=True)
class LabelTable:
    """A table of labels; its classes are those of its header, or of its cells in alphabetical order."""

    rows: tuple[LabelRow, ...]
    classes: ClassList | None


def has_images(path: Path) -> bool:
    """Whether a CSV file has a column that names images."""
    try:
        return _file_column(read_header(path)) is not None
    except ValueError:
        return False


def read_label_table(path: Path, classes: Sequence[str] | None, *, labeled: bool = True) -> LabelTable:
    """Read a table.

    classes: the names to look for; other columns are then ignored. None: all columns that are not something else.
    labeled: whether there are labels; without, rows have no names. Raises `ValueError` for a malformed table.
    """
    if not path.is_file():
        raise ValueError(f"every file of the data set must exist, but {path} is missing: restore it")
    header, rows = read_table(path)
    file = _file_column(header)
    if file is None:
        raise ValueError(f"{path} must have a column Id or filename, but has {', '.join(header[:5])}: add one")
    if bare := [number for number, row in enumerate(rows, 2) if not row[file]]:
        raise ValueError(f"each row must name an image, but row {bare[0]} of {path} has no {header[file]}: correct it")
    others = [i for i, name in enumerate(header) if i == file or _is_other(name, [row[i] for row in rows])]
    group, side = (
        next((i for name in kind for i in others if _key(header[i]) == name), None) for kind in (GROUPS, SIDES)
    )

    def listed(row: Sequence[str], names: Sequence[str]) -> LabelRow:
        together = None if group is None else row[group] or None
        said = None if side is None else fold(row[side])
        part = "val" if said in YES else "train" if said in NO else said
        return LabelRow(row[file], frozenset(names), together, part)

    if not labeled:
        return LabelTable(tuple(listed(row, ()) for row in rows), None)
    free = [i for i in range(len(header)) if i not in others]
    names = _names_column(header, free, rows)
    if names is not None:
        cells = _split(path, [row[names] for row in rows], fold(header[names]) in NAMES_COLUMNS)
        found = canonical(merged(name for cell in cells for name in cell))
        source = f"column {header[names]!r} of {path.name}"
        rows, cells = _together(rows, cells, file)
    else:
        columns = _class_columns(path, header, free, classes)
        cells = [_positives(path, header, row, columns, file) for row in rows]
        found, source = canonical(header[i] for i in columns), f"the header of {path.name}"
    check_names(found, str(path))
    return LabelTable(tuple(map(listed, rows, cells)), ClassList(found, source))


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", fold(name))


def _is_other(name: str, cells: Sequence[str]) -> bool:
    """Whether a column says something else than labels: a number, a file, a group or a side of the split."""
    if _key(name) in ("", "id", "index", *GROUPS[:2], *SIDES) or fold(name).startswith("unnamed:"):  # pandas' index
        return True
    return _key(name) in (*FILE_COLUMNS, *GROUPS) and not all(fold(cell) in (*YES, *NO) for cell in cells)


def _file_column(header: Sequence[str]) -> int | None:
    found = [i for column in FILE_COLUMNS for i, name in enumerate(header) if _key(name) == column]
    named = [i for i in found if fold(header[i]) != "id"]  # an Id beside a file name numbers the rows
    return next(iter(named or found), None)


def _names_column(header: Sequence[str], free: Sequence[int], rows: Sequence[Sequence[str]]) -> int | None:
    """The column of class names, if there is one: called so, or the only one, and not of 0 and 1."""
    for i in free:
        cells = {fold(row[i]) for row in rows} - {*EMPTY}
        called_so = fold(header[i]) in (*NAME_COLUMNS, *NAMES_COLUMNS)
        if (called_so and cells - {*YES, *NO}) or (len(free) == 1 and cells and not cells & {*YES, *NO}):
            return i
    return None


def _split(path: Path, cells: Sequence[str], several: bool) -> list[list[str]]:
    """The names in each cell, which are separated by commas, semicolons or bars if any cell has these, else by blanks.

    Names may contain blanks: these separate names only if the column is called after `several` names, or each word is
    a name elsewhere. Raises `ValueError` for a cell of anything but names, such as boxes.
    """
    cells = [re.sub(r'^\{\s*"choices"\s*:(.*)\}$', r"\1", cell) for cell in cells]  # Label Studio's
    if wrong := next((cell for cell in cells if "{" in cell and ":" in cell), None):
        raise ValueError(
            f"cells of class names must be names, or a list of names, but {path} has {wrong[:80]!r}: export the names"
            " of the classes alone"
        )
    if any(re.search(r"[,;|]", cell) for cell in cells):
        separator = r"[,;|]"
    else:
        words = {fold(word) for cell in cells if len(cell.split()) > 1 for word in cell.split()}
        separator = r"\s" if several or words <= {fold(cell) for cell in cells} else r"$"
    parts = [re.split(separator, cell.strip("[](){} ")) for cell in cells]
    return [
        [
            name
            for part in found
            if fold(name := part.strip(" '\"")) not in EMPTY and not is_background(name) and not is_void(name)
        ]
        for found in parts
    ]


def _together(rows: list[list[str]], cells: list[list[str]], file: int) -> tuple[list[list[str]], list[list[str]]]:
    """The rows with their names; several rows of one image, as in a table of objects, become one."""
    first: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for row, cell in zip(rows, cells, strict=True):
        first.setdefault(row[file], row)
        names.setdefault(row[file], []).extend(cell)
    return list(first.values()), list(names.values())


def _class_columns(path: Path, header: list[str], free: list[int], classes: Sequence[str] | None) -> list[int]:
    if classes is None:
        return [i for i in free if not is_background(header[i]) and not is_void(header[i])]
    by_name = {fold(header[i]): i for i in free}
    if missing := [name for name in classes if fold(name) not in by_name]:
        raise ValueError(
            f"{path} must have a column for each class, but lacks {', '.join(missing[:5])}: add them (all 0 for a class"
            " that no image has)"
        )
    return [by_name[fold(name)] for name in classes]


def _positives(path: Path, header: list[str], row: list[str], columns: list[int], file: int) -> list[str]:
    names = []
    for i in columns:
        if fold(row[i]) in YES:
            names.append(header[i])
        elif fold(row[i]) not in NO:
            raise ValueError(
                f"labels in {path} must be 0 or 1, but {header[file]} {row[file]} has {row[i]!r} for {header[i]}:"
                " correct it, or name the columns that are classes with --classes FILE"
            )
    return names
