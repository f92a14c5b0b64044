import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from voctrain.data import load
from voctrain.data.__main__ import main
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.convert import convert
from voctrain.data.discovery import with_classes
from voctrain.data.layouts import read_layout
from voctrain.data.palette import voc_palette


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # for contact sheets


def listed(folder):
    return with_classes(read_layout(folder))


@pytest.fixture
def kaggle(tmp_path):
    """20 labeled images of two classes each and 2 test images in the Kaggle layout."""
    root, rng = tmp_path / "kaggle", np.random.default_rng(0)
    for part in ("train/img", "train/seg", "test/img"):
        (root / part).mkdir(parents=True)
    labels = np.zeros((20, 20), int)
    for i in range(20):
        mask = np.zeros((10 + i, 14), np.uint8)
        mask[1:5, 1:5], mask[6:9], mask[9:] = i + 1, (i + 3) % 20 + 1, 255
        labels[i, [i, (i + 3) % 20]] = 1
        shades = np.linspace(i, 230, mask.size * 3).reshape(*mask.shape, 3)
        np.save(root / f"train/img/train_{i}.npy", shades.astype(np.uint8))
        np.save(root / f"train/seg/train_{i}.npy", mask)
    for i in range(2):
        np.save(root / f"test/img/test_{i}.npy", rng.integers(0, 256, (9, 11, 3), np.uint8))
    pd.DataFrame(labels, columns=VOC_CLASSES).rename_axis("Id").to_csv(root / "train/train_set.csv")
    pd.DataFrame(np.full((2, 20), -1), columns=VOC_CLASSES).rename_axis("Id").to_csv(root / "test/test_set.csv")
    return root


@pytest.fixture
def devkit(kaggle, tmp_path):
    convert(listed(kaggle), tmp_path / "VOCdevkit" / "VOC2009")
    return tmp_path / "VOCdevkit" / "VOC2009"


def masks(folder):
    return [np.load(path) for path in sorted(folder.glob("train/seg/*.npy"))]


def all_equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_round_trip(kaggle, devkit, tmp_path):
    assert convert(listed(devkit), tmp_path / "back") == ()
    assert all_equal(masks(tmp_path / "back"), masks(kaggle))
    for table in ("train/train_set.csv", "test/test_set.csv"):
        assert (tmp_path / "back" / table).read_text() == (kaggle / table).read_text()
    for path in sorted(kaggle.glob("*/img/*.npy")):
        image, back = np.load(path).astype(int), np.load(tmp_path / "back" / path.relative_to(kaggle)).astype(int)
        assert image.shape == back.shape
        assert np.abs(image - back).mean() < 3


def test_torchvision_reads_the_devkit(kaggle, devkit, tmp_path):
    from torchvision.datasets import VOCSegmentation

    pairs = VOCSegmentation(str(tmp_path), year="2009", image_set="train")
    assert len(pairs) == 20
    for i, (image, mask) in enumerate(pairs):
        np.testing.assert_array_equal(np.array(mask), np.load(kaggle / f"train/seg/train_{i}.npy"))
        assert image.size == mask.size


def test_masks_have_the_palette_of_the_devkit(devkit):
    colors = {0: (0, 0, 0), 1: (128, 0, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(voc_palette()[index].tolist()) for index in colors} == colors
    with Image.open(devkit / "SegmentationClass/train_14.png") as mask:
        assert mask.mode == "P"
        assert mask.convert("RGB").getpixel((2, 2)) == (192, 128, 128)
        assert mask.convert("RGB").getpixel((2, 12)) == (224, 224, 192)


def test_devkit_to_kaggle_is_exact(devkit, tmp_path):
    convert(listed(devkit), tmp_path / "exact")
    for i in range(20):
        with Image.open(devkit / f"JPEGImages/train_{i}.jpg") as image:
            np.testing.assert_array_equal(np.load(tmp_path / f"exact/train/img/train_{i}.npy"), np.array(image))
    one, other = load(devkit, image_size=10), load(tmp_path / "exact", image_size=10)
    for name in ("images", "labels", "masks", "test_images", "sizes", "train"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("to", ["kaggle", "devkit"])
def test_void_0_turns_void_into_background(kaggle, tmp_path, to):
    convert(listed(kaggle), tmp_path / "clear", to=to, void="0")
    converted = load(tmp_path / "clear", image_size=30).masks
    kept = load(kaggle, image_size=30).masks
    np.testing.assert_array_equal(converted, np.where(kept == 255, 0, kept))


def test_labels_survive_without_masks(kaggle, tmp_path):
    for path in kaggle.glob("train/seg/*"):
        path.unlink()
    (kaggle / "train/seg").rmdir()
    convert(listed(kaggle), tmp_path / "devkit")
    data = load(tmp_path / "devkit", image_size=8)
    assert data.masks is None
    np.testing.assert_array_equal(data.labels, load(kaggle, image_size=8).labels)
    convert(listed(tmp_path / "devkit"), tmp_path / "back")
    assert not (tmp_path / "back/train/seg").exists()
    assert (tmp_path / "back/train/train_set.csv").read_text() == (kaggle / "train/train_set.csv").read_text()


def test_an_image_without_a_mask_survives_a_round_trip(devkit, tmp_path):
    (devkit / "SegmentationClass/train_4.png").unlink()
    (devkit / "Annotations/train_4.xml").write_text("<annotation><object><name>sheep</name></object></annotation>")
    notes = convert(listed(devkit), tmp_path / "kaggle2")
    assert notes == ("1 of 20 images had no mask and got an all-void one",)
    convert(listed(tmp_path / "kaggle2"), tmp_path / "devkit2")
    before, after = load(devkit, image_size=8), load(tmp_path / "devkit2", image_size=8)
    assert before.labels[4].tolist() == [name == "sheep" for name in VOC_CLASSES]
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.masks, after.masks)
    with pytest.raises(ValueError, match="void 0 needs a mask for every image, but train_4 has none"):
        convert(listed(devkit), tmp_path / "clear", void="0")


def test_labels_that_differ_from_the_masks_are_reported(kaggle, tmp_path):
    np.save(kaggle / "train/seg/train_2.npy", np.zeros((12, 14), np.uint8))
    notes = convert(listed(kaggle), tmp_path / "devkit")
    assert notes[-1].startswith("1 of 20 images had labels that differ from their masks")


def test_an_empty_target_is_used_and_a_full_one_rejected(kaggle, tmp_path):
    (tmp_path / "empty").mkdir()
    convert(listed(kaggle), tmp_path / "empty")
    with pytest.raises(ValueError, match="new or empty folder"):
        convert(listed(kaggle), tmp_path / "empty")


def test_a_failed_conversion_leaves_nothing_behind(kaggle, tmp_path):
    os.truncate(kaggle / "train/img/train_19.npy", 200)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"train_19.npy is not"):
        convert(listed(kaggle), tmp_path / "out" / "devkit")
    assert os.listdir(tmp_path / "out") == []


class TestCommands:
    def test_convert(self, kaggle, tmp_path, capsys):
        assert main(["convert", str(kaggle), str(tmp_path / "devkit")]) == 0
        out = capsys.readouterr().out
        assert "20 labeled and 2 test images" in out
        assert "masks are exact copies; images were compressed as JPEGs (quality 95, 4:4:4)" in out

    def test_describe_a_set_with_missing_masks(self, devkit, capsys):
        for file in sorted((devkit / "SegmentationClass").iterdir())[:4]:
            annotation = "<annotation><object><name>cat</name></object></annotation>"
            (devkit / f"Annotations/{file.stem}.xml").write_text(annotation)
            file.unlink()
        assert main(["describe", str(devkit)]) == 0
        out = capsys.readouterr().out
        assert "16 with masks" in out
        assert "% background" in out

    def test_describe(self, kaggle, capsys):
        assert main(["describe", str(kaggle)]) == 0
        out = capsys.readouterr().out
        assert "20 labeled (" in out
        assert "2 test, 20 with masks" in out
        assert "21 different, height x width: min 9 x 11, median 18 x 14, max 29 x 14" in out
        assert f"  aeroplane        2  {'#' * 40}\n" in out
        pixels = np.concatenate([mask.ravel() for mask in masks(kaggle)])
        assert f"{(pixels == 0).mean():.1%} background, {(pixels == 255).mean():.1%} void" in out

    def test_sample(self, tmp_path, capsys):
        folder = str(tmp_path / "sample")
        options = ["--labeled", "20", "--unlabeled", "1", "--max-size", "32"]
        assert main(["sample", folder, *options, "--seed", "3"]) == 0
        assert "20 labeled and 1 test images" in capsys.readouterr().out
        assert len(read_layout(folder).ids) == 20
        assert main(["sample", folder, *options]) == 2

    @pytest.mark.parametrize(
        "argv", [["describe", "nowhere"], ["convert", "nowhere", "target"], ["sample", "x", "--labeled", "0"]]
    )
    def test_errors_are_one_line_with_exit_status_2(self, argv, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1

    def test_help(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["--help"])
        assert stopped.value.code == 0
        assert "describe" in capsys.readouterr().out
