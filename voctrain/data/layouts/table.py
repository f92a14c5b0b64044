"""A folder of images with a CSV file of their labels, possibly in the parts train, valid and test.

The table has a column of file names, and a column per class or one column of class names. This includes Roboflow's
multi-label export (_classes.csv in each part). Images that no table names are test images.
"""

from pathlib import Path

from voctrain.data.class_names import ClassList, canonical, find_class_list, fold, merged
from voctrain.data.image_files import Index, files_below
from voctrain.data.layouts.label_table import has_images, read_label_table
from voctrain.data.layouts.listing import Example, Listing, checked, find_all
from voctrain.data.layouts.parts import PARTS, pair_key, part_of, part_of_folder


def tables_in(folder: Path) -> list[Path]:
    """The tables of labels in a folder and its parts."""
    parts = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir() and part_of(path.name))]
    found = [path for part in parts for path in files_below(part, [".csv", ".tsv"], deep=False) if has_images(path)]
    found = [path for path in found if "submission" not in fold(path.stem)]  # Kaggle's example of what to hand in
    return found if any(_part(folder, path) != "test" for path in found) else []


def _part(root: Path, table: Path) -> str | None:
    return part_of(table.stem) or part_of_folder(root, table)


def read_tables(root: Path, tables: list[Path], classes: tuple[str, ...] | None) -> Listing:
    """List the files. `classes` are those of the user's own class list, if any."""
    index = Index(root)
    own = find_class_list(root)
    names = classes or (None if own is None else own.names)
    examples: list[Example] = []
    tests: list[Example] = []
    lists: list[ClassList] = []
    for path in tables:
        part = _part(root, path)
        labeled = part != "test"
        table = read_label_table(path, names if labeled else (), labeled=labeled)
        if table.classes is not None:
            lists.append(table.classes)
        names_here = find_all(index, [row.file for row in table.rows], path)
        for name, row in zip(names_here, table.rows, strict=True):
            side = PARTS.get(row.side or "", part or "train")
            example = Example(name, index.paths[name], names=row.names, group=row.group, in_val=side == "val")
            (tests if side == "test" else examples).append(example)
    used = {example.id for example in (*examples, *tests)}
    others = [
        Example(name, path)
        for name, path in index.paths.items()
        if name not in used and not pair_key(path.relative_to(root))[1]
    ]
    found = checked(examples, f"the table {tables[0]}")
    return Listing("table", root, found, checked([*tests, *others], str(root), allow_none=True), own or _joined(lists))


def _joined(lists: list[ClassList]) -> ClassList | None:
    """The classes of several tables, which need not name the same ones where they have a column of names."""
    if not lists:
        return None
    names: dict[str, str] = {}
    for classes in lists:
        for name in classes.names:
            names.setdefault(fold(name), name)
    same = len(names) == len(lists[0].names)
    return ClassList(lists[0].names if same else canonical(merged(names.values())), lists[0].source)
