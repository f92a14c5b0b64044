"""The built-in sample: its content, that it is reproducible, and that it appears complete or not at all."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voctrain.data import sample
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.sample import make_sample


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def masks(folder: Path) -> list[np.ndarray]:
    return [
        np.load(folder / "train/seg" / f"train_{i}.npy") for i in range(len(list((folder / "train/seg").iterdir())))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("sample") / "deep" / "set"
    make_sample(made)
    return made


@pytest.fixture(scope="module")
def labels(folder) -> np.ndarray:
    return pd.read_csv(folder / "train/train_set.csv")[list(VOC_CLASSES)].to_numpy()


@pytest.mark.parametrize(("split", "count"), [("train", 240), ("test", 60)])
def test_kaggle_layout(folder, split, count):
    table = pd.read_csv(folder / split / f"{split}_set.csv")
    assert list(table.columns) == ["Id", *VOC_CLASSES]
    assert table.Id.tolist() == list(range(count))
    assert {p.name for p in (folder / split / "img").iterdir()} == {f"{split}_{i}.npy" for i in range(count)}
    for i in range(count):
        image = np.load(folder / split / "img" / f"{split}_{i}.npy")
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
        assert 128 <= max(image.shape) <= 160
        assert image.std() > 5
    assert {p.name for p in folder.iterdir()} == {"train", "test"}


def test_the_ground_truth_of_the_test_images_is_hidden(folder):
    assert (pd.read_csv(folder / "test/test_set.csv")[list(VOC_CLASSES)] == -1).all(axis=None)
    assert not (folder / "test/seg").exists()


def test_labels_are_the_classes_in_the_mask(folder, labels):
    for i, mask in enumerate(masks(folder)):
        assert mask.dtype == np.uint8
        assert mask.shape == np.load(folder / "train/img" / f"train_{i}.npy").shape[:2]
        pixels = np.bincount(mask.ravel(), minlength=256)
        assert labels[i].tolist() == (pixels[1:21] > 0).astype(int).tolist()
        assert pixels[21:255].sum() == 0
        assert pixels[1:21][labels[i] == 1].min() >= 30


def test_void_separates_objects_from_background_and_from_each_other(folder):
    for mask in masks(folder):
        for a, b in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert ((a == b) | (a == 255) | (b == 255)).all()


def test_class_balance_is_like_voc(folder, labels):
    positives = dict(zip(VOC_CLASSES, labels.sum(axis=0), strict=True))
    assert 0.24 <= positives["person"] / 240 <= 0.33
    assert sorted(positives, key=positives.get)[-1] == "person"
    assert 8 <= min(positives.values()) <= 0.06 * 240
    assert labels.sum(axis=1).min() == 1
    assert 1.3 <= labels.sum(axis=1).mean() <= 1.9
    ridden, alone = (
        (labels[:, [VOC_CLASSES.index(name) for name in names]] == 1).any(axis=1)
        for names in (("bicycle", "horse", "motorbike"), ("aeroplane", "cow", "sheep"))
    )
    person = labels[:, VOC_CLASSES.index("person")]
    assert person[ridden].mean() > 2 * person[alone].mean()
    pixels = np.concatenate([mask.ravel() for mask in masks(folder)])
    assert 0.80 <= (pixels == 0).mean() <= 0.88
    assert len({mask.shape for mask in masks(folder)}) > 50


def test_colors_tell_classes_apart(folder):
    """On average, buses are clearly red and cars clearly blue, so the pixels reveal the class."""
    means = {}
    for name in ("bus", "car"):
        number = VOC_CLASSES.index(name) + 1
        pixels = [np.load(folder / "train/img" / f"train_{i}.npy")[m == number] for i, m in enumerate(masks(folder))]
        means[name] = np.concatenate(pixels).mean(axis=0)
    assert means["bus"][0] > 1.5 * means["bus"][2]
    assert means["car"][2] > 1.5 * means["car"][0]


@pytest.mark.parametrize("seed", range(4))
def test_smallest_set_has_every_class(tmp_path, seed):
    make_sample(tmp_path, num_labeled=20, num_unlabeled=0, max_size=32, seed=seed)
    table = pd.read_csv(tmp_path / "train/train_set.csv")
    assert (table[list(VOC_CLASSES)].sum() >= 1).all()
    test = pd.read_csv(tmp_path / "test/test_set.csv")
    assert list(test.columns) == ["Id", *VOC_CLASSES]
    assert len(test) == 0
    assert max(max(m.shape) for m in masks(tmp_path)) <= 32


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    sizes = {"num_labeled": 20, "num_unlabeled": 3, "max_size": 48}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_sample(tmp_path / name, **sizes, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a if "/img/" in name)
    assert a["train/img/train_0.npy"] != a["test/img/test_0.npy"]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"num_labeled": 19}, "num_labeled must be at least 20, but got 19"),
        ({"num_unlabeled": -1}, "num_unlabeled must be at least 0, but got -1"),
        ({"max_size": 31}, "max_size must be at least 32, but got 31"),
        ({"seed": -5}, "seed must be at least 0, but got -5"),
    ],
)
def test_invalid_arguments_are_rejected(tmp_path, wrong, rule):
    with pytest.raises(ValueError, match=rule) as error:
        make_sample(tmp_path / "set", **wrong)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_rejected_and_left_unchanged(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ValueError, match="new or empty folder, but got"):
            make_sample(target)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_an_interrupted_set_never_appears(tmp_path, monkeypatch):
    draw, drawn = sample._scene, []

    def interrupted(*arguments):
        assert not (tmp_path / "set").exists()
        if len(drawn) == 25:  # in the test split, after all of train was written
            raise KeyboardInterrupt
        drawn.append(1)
        return draw(*arguments)

    monkeypatch.setattr(sample, "_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "set", num_labeled=20, num_unlabeled=10, max_size=32)
    assert list(tmp_path.iterdir()) == []


def test_the_set_of_a_faster_process_is_kept(tmp_path, monkeypatch):
    draw, target = sample._scene, tmp_path / "set"

    def overtaken(*arguments):
        target.mkdir(exist_ok=True)
        (target / "theirs").touch()
        return draw(*arguments)

    monkeypatch.setattr(sample, "_scene", overtaken)
    make_sample(target, num_labeled=20, num_unlabeled=0, max_size=32)
    assert contents(tmp_path) == {"set/theirs": b""}


def test_two_concurrent_processes(tmp_path):
    sizes = {"num_labeled": 20, "num_unlabeled": 2, "max_size": 32}
    make_sample(tmp_path / "alone", **sizes)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(make_sample, tmp_path / "shared", **sizes) for _ in range(2)]:
            error = done.exception()  # the second may start after the first has finished
            assert error is None or "new or empty folder" in str(error)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert {p.name for p in tmp_path.iterdir()} == {"alone", "shared"}
