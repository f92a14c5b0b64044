import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.voctrain.data.drawing import devkit, folders, scene, write_lines, write_xml
from tests.voctrain.data.fuzzing.damage import POSITIONS, damaged, fuzz, read_all, written


def draw_kaggle(root):
    for part in ("train/img", "train/seg", "test/img"):
        (root / part).mkdir(parents=True)
    for i in range(3):
        image, mask = scene(i, 2)
        np.save(root / f"train/img/train_{i}.npy", image)
        np.save(root / f"train/seg/train_{i}.npy", mask)
    np.save(root / "test/img/test_0.npy", image)
    write_lines(root / "train/train_set.csv", ["Id,cat,dog", "0,1,1", "1,0,1", "2,1,0"])
    write_lines(root / "test/test_set.csv", ["Id,cat,dog", "0,-1,-1"])


def draw_devkit(root):
    ids = devkit(root, ("cat", "dog"), 3, xml=True)
    write_lines(root / "ImageSets/Main/cat_train.txt", [f"{name} 1" for name in ids])
    write_lines(root / "labelmap.txt", ["background:0,0,0::", "cat:128,0,0::", "dog:0,128,0::"])


def draw_table(root):
    folders(root, 3, images="{}.jpg", masks="masks/{}.png")
    shutil.rmtree(root / "masks")
    write_lines(root / "labels.csv", ["filename,cat,dog", "x00.jpg,1,0", "x01.jpg,0,1"])


def draw_folders(root):
    folders(root, 3, 2)
    write_lines(root / "masks/classes.txt", ["cat", "dog"])


def draw_annotations(root):
    draw_table(root)
    (root / "labels.csv").unlink()
    for i in range(2):
        write_xml(root / f"x0{i}.xml", "cat", "dog"[i:])


SETS = {
    "kaggle": draw_kaggle,
    "devkit": draw_devkit,
    "table": draw_table,
    "folders": draw_folders,
    "xml": draw_annotations,
}


@pytest.fixture(scope="module")
def sets(folder):
    for name, draw in SETS.items():
        draw(folder / "sets" / name)
    return {name: sorted(p for p in (folder / "sets" / name).rglob("*") if p.is_file()) for name in SETS}


@fuzz
@given(name=st.sampled_from(sorted(SETS)), place=POSITIONS, data=st.data())
def test_a_damaged_file_in_a_set(folder, sets, name, place, data):
    path = sets[name][int(place * len(sets[name]))]
    before = path.read_bytes()
    try:
        written(path, data.draw(damaged([before], text=path.suffix in (".txt", ".csv", ".xml"))))
        read_all(folder / "sets" / name)
    finally:
        written(path, before)


@fuzz
@given(
    name=st.sampled_from(sorted(SETS)), place=POSITIONS, other=st.text(max_size=6).filter(lambda s: not {*s} & {*"/\0"})
)
def test_a_renamed_or_missing_file_in_a_set(folder, sets, name, place, other):
    path = sets[name][int(place * len(sets[name]))]
    moved = path.with_name(f"{other}_{path.name}"[:60])
    if len(os.fsencode(moved.name)) > 200 or moved.exists():
        return
    path.rename(moved)
    try:
        read_all(folder / "sets" / name)
    finally:
        moved.rename(path)
