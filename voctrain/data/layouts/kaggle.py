"""The Kaggle competition's layout: arrays and tables.

train/train_set.csv (Id and one 0/1 column per class), train/img/train_{Id}.npy (uint8 (H, W, 3)),
train/seg/train_{Id}.npy (label maps (H, W), optional), and for the test images test/test_set.csv (its labels are
ignored: they are all -1 in the competition) and test/img/test_{Id}.npy. Image files may take the place of arrays.
"""

from pathlib import Path

from voctrain.data.class_names import find_class_list
from voctrain.data.image_files import Index
from voctrain.data.layouts.label_table import read_label_table
from voctrain.data.layouts.listing import Example, Listing, checked

TABLE = Path("train") / "train_set.csv"


def is_kaggle(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / TABLE).is_file()


def read_kaggle(root: Path, classes: tuple[str, ...] | None) -> Listing:
    """List the files. `classes` are those of the user's own class list, if any."""
    train, test = root / "train", root / "test"
    own = find_class_list(root, train, train / "seg")
    table = read_label_table(root / TABLE, classes or (None if own is None else own.names))
    images, masks = Index(train / "img"), Index(train / "seg")
    examples = [
        Example(
            row.file,
            _file(images, "train", row.file),
            _file(masks, "train", row.file) if masks.paths else None,
            names=row.names,
            group=row.group,
        )
        for row in table.rows
    ]
    tests = []
    if test.is_dir():
        rows = read_label_table(test / "test_set.csv", (), labeled=False).rows
        hidden = Index(test / "img")
        tests = [Example(row.file, _file(hidden, "test", row.file)) for row in rows]
    return Listing(
        "kaggle",
        root,
        checked(examples, str(root / TABLE)),
        checked(tests, str(test / "test_set.csv"), allow_none=True),
        own or table.classes,
    )


def _file(index: Index, side: str, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"ids must be valid in file names, but the table of {side} has {name!r}: rename it")
    path = index.paths.get(f"{side}_{name}") or index.paths.get(name)
    if path is None:
        path = index.folder / f"{side}_{name}.npy"
        raise ValueError(f"every file of the data set must exist, but {path} is missing: restore it")
    return path
