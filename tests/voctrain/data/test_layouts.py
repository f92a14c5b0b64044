import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES

PERSON = VOC_CLASSES.index("person")


pytestmark = pytest.mark.usefixtures("cache")


def annotate(path, *names):
    objects = "".join(f"<object><name>{name}</name><difficult>1</difficult></object>" for name in names)
    path.write_text(f"<annotation><filename>x.jpg</filename>{objects}</annotation>")


def edit(path, **columns):
    """Change columns of row 0 of a table."""
    table = pd.read_csv(path, dtype=object)
    for name, value in columns.items():
        table.loc[0, name] = value
    table.to_csv(path, index=False)


class TestKaggle:
    def test_arrays(self, kaggle):
        data = load(kaggle, image_size=12)
        assert data.ids == tuple(str(i) for i in range(44))
        assert data.test_ids == ("0", "1", "2")
        assert data.classes == VOC_CLASSES
        assert data.warnings == ()
        for array, dtype, shape in (
            (data.images, np.uint8, (44, 12, 12, 3)),
            (data.labels, np.uint8, (44, 20)),
            (data.masks, np.uint8, (44, 12, 12)),
            (data.test_images, np.uint8, (3, 12, 12, 3)),
            (data.sizes, np.int32, (44, 2)),
            (data.test_sizes, np.int32, (3, 2)),
        ):
            assert (array.dtype, array.shape) == (dtype, shape)
        assert data.sizes[:3].tolist() == [[12, 16], [13, 15], [14, 16]]
        assert data.test_sizes.tolist() == [[9, 11], [9, 12], [9, 13]]
        assert data.labels.argmax(1).tolist() == [i % 20 for i in range(44)]
        assert (data.labels.sum(1) == 1).all()
        assert [set(np.unique(mask)) for mask in data.masks] == [{0, i % 20 + 1, 255} for i in range(44)]
        assert sorted([*data.train, *data.val]) == list(range(44))
        assert data.labels[data.train].any(0).all()
        assert data.labels[data.val].any(0).all()

    def test_an_image_of_the_requested_size_is_unchanged(self, kaggle, scene):
        image, mask, _ = scene(0, np.random.default_rng(7), size=(20, 20))
        np.save(kaggle / "train/img/train_0.npy", image)
        np.save(kaggle / "train/seg/train_0.npy", mask.astype(np.int64))
        data = load(kaggle, image_size=20)
        np.testing.assert_array_equal(data.images[0], image)
        np.testing.assert_array_equal(data.masks[0], mask)

    def test_shrinking_averages_images_but_not_masks(self, kaggle):
        stripes = np.tile(np.array([0, 0, 200, 200], np.uint8), (64, 16))
        np.save(kaggle / "train/img/train_0.npy", np.stack([stripes] * 3, -1))
        np.save(kaggle / "train/seg/train_0.npy", np.tile(np.uint8([0, 20, 255, 1]), (64, 16)))
        data = load(kaggle, image_size=16)
        assert (np.abs(data.images[0, :, 2:-2].astype(int) - 100) <= 2).all()
        assert set(np.unique(data.masks[0])) <= {0, 1, 20, 255}

    def test_columns_in_another_order(self, kaggle):
        table, labels = pd.read_csv(kaggle / "train/train_set.csv"), load(kaggle, image_size=4).labels
        table[table.columns[::-1]].to_csv(kaggle / "train/train_set.csv", index=False)
        np.testing.assert_array_equal(load(kaggle, image_size=4).labels, labels)

    def test_masks_and_test_are_optional(self, kaggle):
        shutil.rmtree(kaggle / "test")
        shutil.rmtree(kaggle / "train/seg")
        data = load(kaggle, image_size=8)
        assert data.masks is None
        assert data.test_ids == ()
        assert data.test_images.shape == (0, 8, 8, 3)
        assert load(kaggle, image_size=8).masks is None

    @pytest.mark.parametrize("size", [(1, 1), (3000, 4000)])
    def test_images_from_one_pixel_to_12_megapixels(self, kaggle, size):
        np.save(kaggle / "train/img/train_3.npy", np.full((*size, 3), 77, np.uint8))
        np.save(kaggle / "train/seg/train_3.npy", np.full(size, 4, np.uint8))
        data = load(kaggle, image_size=6)
        assert (data.images[3] == 77).all()
        assert (data.masks[3] == 4).all()
        assert tuple(data.sizes[3]) == size

    def test_warnings_about_classes_without_enough_images(self, kaggle):
        table = pd.read_csv(kaggle / "train/train_set.csv")
        table["sofa"] = 0
        table["train"] = (table.Id == 5).astype(int)
        table.to_csv(kaggle / "train/train_set.csv", index=False)
        sofa, train = load(kaggle, image_size=4).warnings
        assert sofa == "class 'sofa' has no positive image: it is left out of the scores"
        assert train.startswith("class 'train' has no positive image in validation")


class TestDevkit:
    def test_labels_come_from_masks_and_val_is_used_for_testing(self, devkit):
        annotate(devkit / "Annotations/a_00.xml", "sofa")
        data = load(devkit, image_size=8)
        assert data.ids == tuple(f"a_{i:02}" for i in range(22))
        assert data.test_ids == tuple(f"a_{i:02}" for i in range(22, 43))
        assert data.labels.argmax(1).tolist() == [i % 20 for i in range(22)]
        assert data.masks[1].max() == 255
        with Image.open(devkit / "JPEGImages/a_22.jpg") as file:
            expected = np.asarray(file.resize((8, 8), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(data.test_images[0], expected)

    def test_use_val(self, devkit):
        without, with_val = load(devkit, image_size=8), load(devkit, image_size=8, use_val=True)
        assert len(with_val.ids) == 43
        assert with_val.test_ids == ()
        assert without.fingerprint != with_val.fingerprint

    def test_test_txt_takes_precedence_over_val(self, devkit):
        Image.new("L", (5, 4)).save(devkit / "JPEGImages/b.jpg")
        (devkit / "ImageSets/Segmentation/test.txt").write_text("b\n")
        data = load(devkit, image_size=8, use_val=True)
        assert data.test_ids == ("b",)
        assert data.test_sizes.tolist() == [[4, 5]]

    def test_labels_of_an_image_without_a_mask_come_from_its_annotation(self, devkit):
        (devkit / "SegmentationClass/a_03.png").unlink()
        annotate(devkit / "Annotations/a_03.xml", "person", "dog", "dog")
        data = load(devkit, image_size=8)
        assert {VOC_CLASSES[c] for c in np.flatnonzero(data.labels[3])} == {"person", "dog"}
        assert (data.masks[3] == 255).all()
        assert any("1 of 22 labeled images have no mask" in line for line in data.warnings)

    def test_set_without_masks(self, devkit):
        shutil.rmtree(devkit / "SegmentationClass")
        for i in range(22):
            annotate(devkit / f"Annotations/a_{i:02}.xml", "person")
        data = load(devkit, image_size=8)
        assert data.masks is None
        assert data.labels.sum(0)[PERSON] == data.labels.sum() == 22

    @pytest.mark.parametrize("parent", [".", "VOCdevkit"])
    def test_parent_folder_of_one_year(self, devkit, tmp_path, parent):
        assert load(tmp_path / parent, image_size=8).fingerprint == load(devkit, image_size=8).fingerprint

    def test_parent_folder_of_two_years(self, devkit):
        shutil.copytree(devkit, devkit.parent / "VOC2012")
        with pytest.raises(ValueError, match=r"must contain one year, but .* contains VOC2009, VOC2012"):
            load(devkit.parent, image_size=8)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda d: (d / "JPEGImages/a_05.jpg").unlink(), "a_05.jpg is missing"),
            (lambda d: (d / "JPEGImages/a_30.jpg").unlink(), "a_30.jpg is missing"),
            (lambda d: os.truncate(d / "JPEGImages/a_05.jpg", 640), "a_05.jpg is not .*truncated"),
            (lambda d: (d / "JPEGImages/a_30.jpg").write_bytes(b"no image"), "a_30.jpg is not"),
            (lambda d: (d / "SegmentationClass/a_05.png").unlink(), "needs a mask or an annotation, .*a_05"),
            (lambda d: os.truncate(d / "SegmentationClass/a_05.png", 60), "a_05.png is not"),
            (lambda d: Image.new("RGB", (15, 14)).save(d / "SegmentationClass/a_05.png"), "a_05.png has mode RGB"),
            (lambda d: Image.new("P", (9, 14)).save(d / "SegmentationClass/a_05.png"), r"same .* \(14, 9\)"),
            (lambda d: Image.new("L", (15, 14), 21).save(d / "SegmentationClass/a_05.png"), "a_05.png has 21"),
            (lambda d: (d / "ImageSets/Segmentation/train.txt").unlink(), "train.txt is missing"),
            (lambda d: (d / "ImageSets/Segmentation/train.txt").write_text("\n"), "train.txt lists no images"),
            (lambda d: (d / "ImageSets/Segmentation/train.txt").write_text("a_01\na_01"), "'a_01' twice"),
            (lambda d: (d / "ImageSets/Segmentation/train.txt").write_text("a_01"), "at least 20 labeled .* has 1"),
            (lambda d: (d / "ImageSets/Segmentation/train.txt").write_text("../x"), "valid in file names"),
            (lambda d: (d / "ImageSets/Segmentation/test.txt").write_text("a_00"), "both labeled and test, but a_00"),
        ],
    )
    def test_errors_name_the_file_or_the_id(self, devkit, spoil, message):
        spoil(devkit)
        with pytest.raises(ValueError, match=message) as raised:
            load(devkit, image_size=8)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("text", ["<annotation><object>", "", "<a><object><name>unicorn</name></object></a>"])
    def test_errors_name_bad_annotations(self, devkit, text):
        (devkit / "SegmentationClass/a_03.png").unlink()
        (devkit / "Annotations/a_03.xml").write_text(text)
        with pytest.raises(ValueError, match=r"a_03\.xml"):
            load(devkit, image_size=8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: edit(d / "train/train_set.csv", sofa=2), "must be 0 or 1, but Id 0 has '2' for sofa"),
        (lambda d: edit(d / "train/train_set.csv", dog=-1), "must be 0 or 1, but Id 0 has '-1' for dog"),
        (lambda d: edit(d / "train/train_set.csv", dog=None), "must be 0 or 1, but Id 0 has '' for dog"),
        (lambda d: edit(d / "train/train_set.csv", Id="1"), "'1' twice"),
        (
            lambda d: edit(d / "train/train_set.csv", zebra="1"),
            "only VOC's 20 classes .* has columns for zebra: rename",
        ),
        (lambda d: (d / "train/train_set.csv").write_text("Id,dog\n0,1\n"), "lacks aeroplane, .*tvmonitor: add"),
        (lambda d: (d / "train/train_set.csv").write_text(""), "lacks Id, aeroplane"),
        (lambda d: (d / "train/train_set.csv").write_bytes(b"\xff\xfe\x00Id"), "train_set.csv is not"),
        (lambda d: pd.read_csv(d / "train/train_set.csv")[:0].to_csv(d / "train/train_set.csv"), "has ''"),
        (lambda d: (d / "train/train_set.csv").write_text(",".join(("Id", *VOC_CLASSES))), "lists no images"),
        (lambda d: (d / "test/test_set.csv").unlink(), "test_set.csv is missing"),
        (lambda d: (d / "train/img/train_7.npy").unlink(), "train_7.npy is missing"),
        (lambda d: (d / "train/seg/train_7.npy").unlink(), "seg/train_7.npy is missing"),
        (lambda d: (d / "test/img/test_1.npy").unlink(), "test_1.npy is missing"),
        (lambda d: os.truncate(d / "train/img/train_7.npy", 300), "img/train_7.npy is not"),
        (lambda d: os.truncate(d / "train/img/train_7.npy", 0), "img/train_7.npy is not"),
        (lambda d: np.save(d / "train/img/train_7.npy", np.array([{}]), allow_pickle=True), "train_7.npy is not"),
        (lambda d: np.save(d / "test/img/test_1.npy", np.zeros((4, 4, 3))), r"test_1.npy is float64 \(4, 4, 3\)"),
        (lambda d: np.save(d / "test/img/test_1.npy", np.zeros((4, 4), np.uint8)), r"test_1.npy is uint8 \(4, 4\)"),
        (lambda d: np.save(d / "test/img/test_1.npy", np.zeros((0, 4, 3), np.uint8)), r"is uint8 \(0, 4, 3\)"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.zeros((12, 16))), r"train_0.npy is float64 \(12, 16\)"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.full((12, 16), -1, np.int8)), "train_0.npy has -1"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.full((12, 16), 256)), "train_0.npy has 256"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.full((12, 16), 254, np.uint8)), "train_0.npy has 254"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.zeros((16, 12), int)), r"\(12, 16\) and .* \(16, 12\)"),
        (lambda d: shutil.move(d / "train", d / "other"), "train/train_set.csv .*JPEGImages and ImageSets"),
        (lambda d: shutil.rmtree(d), "does not exist"),
    ],
)
def test_errors_in_a_kaggle_set_name_the_file_or_the_id(kaggle, spoil, message):
    spoil(kaggle)
    with pytest.raises(ValueError, match=message) as raised:
        load(kaggle, image_size=8)
    assert "\n" not in str(raised.value)


def test_invalid_arguments_are_rejected(kaggle):
    with pytest.raises(ValueError, match="use_val needs the devkit layout"):
        load(kaggle, image_size=8, use_val=True)
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        load(kaggle, image_size=0)
