"""Tables of image labels: a row per image, and a column per class or one column of class names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voctrain.data.class_names import ClassList, canonical, check_names, fold
from voctrain.data.text_files import read_table

# How the columns are called that are not classes.
FILE_COLUMNS = ("id", "filename", "file_name", "file", "image", "image_id", "image_name", "image_path", "img", "path")
NAMES_COLUMNS = ("labels", "label", "classes", "class", "tags", "tag", "categories", "category", "class_name")
GROUP_COLUMNS, SIDE_COLUMNS = ("group", "group_id"), ("split", "subset", "partition")
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


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
        header, _ = read_table(path)
    except ValueError:
        return False
    return _file_column(header) is not None


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
    others = {file, _column(header, GROUP_COLUMNS), _column(header, SIDE_COLUMNS)}
    free = [i for i, name in enumerate(header) if i not in others and name]
    if not labeled:
        return LabelTable(tuple(_row(row, header, file, frozenset()) for row in rows), None)
    names = _names_column(header, free, rows)
    if names is not None:
        cells = _split([row[names] for row in rows])
        found = canonical(sorted({name for cell in cells for name in cell}, key=fold))
        source = f"column {header[names]!r} of {path.name}"
    else:
        columns = _class_columns(path, header, free, classes)
        cells = [_positives(path, header, row, columns, file) for row in rows]
        found, source = canonical(header[i] for i in columns), f"the header of {path.name}"
    check_names(found, str(path))
    labels = tuple(_row(row, header, file, frozenset(cell)) for row, cell in zip(rows, cells, strict=True))
    return LabelTable(labels, ClassList(found, source))


def _file_column(header: Sequence[str]) -> int | None:
    found = [i for name in FILE_COLUMNS for i, column in enumerate(header) if fold(column) == name]
    named = [i for i in found if fold(header[i]) != "id"]  # an Id beside a file name numbers the rows
    return next(iter(named or found), None)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((i for i, column in enumerate(header) if fold(column) in names), None)


def _names_column(header: Sequence[str], free: Sequence[int], rows: Sequence[Sequence[str]]) -> int | None:
    """The column of class names, if there is one: called so, and containing something other than 0 and 1."""
    for i in free:
        called_so = fold(header[i]) in NAMES_COLUMNS
        if (called_so or len(free) == 1) and any(fold(row[i]) not in (*YES, *NO, "", "-1") for row in rows):
            return i
    return None


def _split(cells: Sequence[str]) -> list[list[str]]:
    """The names in each cell, which are separated by commas, semicolons or bars if any cell has these, else blanks."""
    separator = r"[,;|]" if any(re.search(r"[,;|]", cell) for cell in cells) else r"\s"
    parts = [re.split(separator, cell.strip("[](){} ")) for cell in cells]
    return [[name for part in found if (name := part.strip(" '\""))] for found in parts]


def _class_columns(path: Path, header: list[str], free: list[int], classes: Sequence[str] | None) -> list[int]:
    if classes is None:
        unnamed_index = [i for i in free if fold(header[i]) in ("id", "index", "")]
        return [i for i in free if i not in unnamed_index]
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


def _row(row: list[str], header: list[str], file: int, names: frozenset[str]) -> LabelRow:
    group, side = _column(header, GROUP_COLUMNS), _column(header, SIDE_COLUMNS)
    return LabelRow(row[file], names, None if group is None else row[group], None if side is None else fold(row[side]))
