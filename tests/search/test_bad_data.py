"""Sets that are refused, each in one line and before anything starts."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from search import run

SIZE = ("--image-size", 32, "--epochs", 3, "--trials", 2)


def edit(name, change):
    """Change the text of a file of a set."""

    def spoil(root):
        (root / name).write_text(change((root / name).read_text()))

    return spoil


def save(name, array, **options):
    return lambda root: np.save(root / name, array, **options)


def truncate(root):
    file = root / "train/img/train_3.npy"
    file.write_bytes(file.read_bytes()[:200])


def resize_mask(root):
    file = root / "train/seg/train_3.npy"
    np.save(file, np.load(file)[1:])


def few(root):
    table = root / "train/train_set.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))


def cell(value):
    """The first row's first label becomes `value`."""

    def change(text):
        head, first, *rest = text.splitlines()
        number, _, *labels = first.split(",")
        return "\n".join([head, ",".join([number, value, *labels]), *rest])

    return edit("train/train_set.csv", change)


TABLE, IMAGE, MASK = "train/train_set.csv", "train/img/train_3.npy", "train/seg/train_3.npy"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda root: shutil.rmtree(root / "train"), "has none: pass the folder that does"),
        (edit(TABLE, lambda text: text.replace("boat", "Sheep", 1)), "class names must differ"),
        (cell("2"), "labels in"),
        (cell("-1"), "labels in"),
        (edit(TABLE, lambda text: text + text.splitlines()[-1]), "twice"),
        (lambda root: (root / IMAGE).unlink(), "is missing"),
        (truncate, "train_3.npy"),
        (save(IMAGE, np.array([{}], dtype=object), allow_pickle=True), "train_3.npy"),
        (lambda root: (root / IMAGE).write_bytes(pickle.dumps(print)), "train_3.npy"),
        (save(IMAGE, np.zeros((32, 32, 3))), "images must be uint8"),
        (save(IMAGE, np.zeros((32, 32), np.uint8)), "images must be uint8"),
        (resize_mask, "same height and width"),
        (save(MASK, np.zeros((32, 32))), "masks must be integers"),
        (save(MASK, np.full((32, 32), 21)), "has 21"),
        (few, "at least 2 labeled images"),
    ],
)
def test_sets(spoil, message, refused, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    if message.startswith(("has 21", "masks")):  # of the image's own size, so that only the values are wrong
        np.save(root / IMAGE, np.zeros((32, 32, 3), np.uint8))
    spoil(root)
    assert message in refused(run.main, "classify", "--data", root, *SIZE)


def test_an_undecodable_jpeg_is_named(refused, tmp_path):
    root = tmp_path / "VOC"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for i in range(20):
        Image.new("RGB", (40, 30)).save(root / f"JPEGImages/{i}.jpg")
        Image.new("L", (40, 30), i + 1).save(root / f"SegmentationClass/{i}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(map(str, range(20))))
    (root / "JPEGImages/7.jpg").write_bytes(b"\xff\xd8 no picture")
    assert "7.jpg" in refused(run.main, "classify", "--data", root, *SIZE)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_own_classes_are_named_in_the_first_lines(task, call, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    names = [f"kind {i}" for i in range(20)]
    (root / "class_names.txt").write_text("\n".join(["_background_", *names]))
    rows = (root / TABLE).read_text().splitlines()[1:]
    (root / TABLE).write_text("\n".join([",".join(["Id", *names]), *rows]))
    outcome = call(run.main, task, "--data", root, *SIZE, "--dry-run")
    assert outcome.status == 0, outcome
    assert f"20 classes from class_names.txt: {', '.join(names)}" in outcome.out
    assert "aeroplane" not in outcome.out + outcome.err


def test_a_class_without_a_positive_is_a_warning(call, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    head, *rows = (root / TABLE).read_text().splitlines()
    column = head.split(",").index("boat")
    cells = [row.split(",") for row in rows]
    rows = [",".join([*c[:column], "0", *c[column + 1 :]]) for c in cells]
    (root / TABLE).write_text("\n".join([head, *rows]))
    outcome = call(run.main, "classify", "--data", root, *SIZE, "--set", "architecture=simple", "--dry-run")
    assert outcome.status == 0, outcome
    assert "warning: class 'boat' has no positive image" in outcome.err
