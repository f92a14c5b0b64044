import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.voctrain.data.drawing import refusal
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES

pytestmark = pytest.mark.usefixtures("cache")


def edit(path, **columns):
    """Change columns of row 0 of a table."""
    table = pd.read_csv(path, dtype=object)
    for name, value in columns.items():
        table.loc[0, name] = value
    table.to_csv(path, index=False)


def test_arrays(kaggle):
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


def test_an_image_of_the_requested_size_is_unchanged(kaggle, scene):
    image, mask, _ = scene(0, np.random.default_rng(7), size=(20, 20))
    np.save(kaggle / "train/img/train_0.npy", image)
    np.save(kaggle / "train/seg/train_0.npy", mask.astype(np.int64))
    data = load(kaggle, image_size=20)
    np.testing.assert_array_equal(data.images[0], image)
    np.testing.assert_array_equal(data.masks[0], mask)


def test_shrinking_averages_images_but_not_masks(kaggle):
    stripes = np.tile(np.array([0, 0, 200, 200], np.uint8), (64, 16))
    np.save(kaggle / "train/img/train_0.npy", np.stack([stripes] * 3, -1))
    np.save(kaggle / "train/seg/train_0.npy", np.tile(np.uint8([0, 20, 255, 1]), (64, 16)))
    data = load(kaggle, image_size=16)
    assert (np.abs(data.images[0, :, 2:-2].astype(int) - 100) <= 2).all()
    assert set(np.unique(data.masks[0])) <= {0, 1, 20, 255}


def test_columns_in_another_order_and_other_case(kaggle):
    table, before = pd.read_csv(kaggle / "train/train_set.csv"), load(kaggle, image_size=4)
    table = table[table.columns[::-1]].rename(columns=lambda name: f" {name.upper()} ")
    table.to_csv(kaggle / "train/train_set.csv", index=False)
    after = load(kaggle, image_size=4)
    assert after.classes == VOC_CLASSES
    np.testing.assert_array_equal(after.labels, before.labels)


def test_own_classes(kaggle):
    """They are numbered in the order of the columns."""
    table = pd.read_csv(kaggle / "train/train_set.csv").rename(columns={"aeroplane": "Zebra", "sofa": "okapi"})
    table.to_csv(kaggle / "train/train_set.csv", index=False)
    data = load(kaggle, image_size=12)
    assert data.classes == ("Zebra", *VOC_CLASSES[1:17], "okapi", *VOC_CLASSES[18:])
    assert data.labels.argmax(1).tolist() == [i % 20 for i in range(44)]


def test_masks_and_test_images_are_optional(kaggle):
    shutil.rmtree(kaggle / "test")
    for path in (kaggle / "train/seg").iterdir():
        path.unlink()
    data = load(kaggle, image_size=8)
    assert data.masks is None
    assert data.test_ids == ()
    assert data.test_images.shape == (0, 8, 8, 3)
    (kaggle / "train/seg").rmdir()
    assert load(kaggle, image_size=8).masks is None


def test_image_files_may_take_the_place_of_arrays(kaggle):
    before = load(kaggle, image_size=8)
    for path in [*kaggle.glob("*/img/*.npy"), *kaggle.glob("train/seg/*.npy")]:
        Image.fromarray(np.load(path)).save(path.with_suffix(".PNG"))
        path.unlink()
    after = load(kaggle, image_size=8)
    assert after.ids == before.ids
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.masks, before.masks)


@pytest.mark.parametrize("size", [(1, 1), (3000, 4000)])
def test_images_from_one_pixel_to_12_megapixels(kaggle, size):
    np.save(kaggle / "train/img/train_3.npy", np.full((*size, 3), 77, np.uint8))
    np.save(kaggle / "train/seg/train_3.npy", np.full(size, 4, np.uint8))
    data = load(kaggle, image_size=6)
    assert (data.images[3] == 77).all()
    assert (data.masks[3] == 4).all()
    assert tuple(data.sizes[3]) == size


def test_warnings_about_classes_without_enough_images(kaggle):
    table = pd.read_csv(kaggle / "train/train_set.csv")
    table["sofa"] = 0
    table["train"] = (table.Id == 5).astype(int)
    table.to_csv(kaggle / "train/train_set.csv", index=False)
    sofa, train, masks = load(kaggle, image_size=4).warnings
    assert sofa == "class 'sofa' has no positive image: it is left out of the scores"
    assert train.startswith("class 'train' has no positive image in validation")
    assert "annotations and masks name different classes" in masks
    assert masks.endswith(": the table counts for classification")


def write_masks(root, change):
    for path in (root / "train/seg").iterdir():
        np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: edit(d / "train/train_set.csv", sofa=2), "must be 0 or 1, but Id 0 has '2' for sofa"),
        (lambda d: edit(d / "train/train_set.csv", dog=-1), "must be 0 or 1, but Id 0 has '-1' for dog"),
        (lambda d: edit(d / "train/train_set.csv", dog=None), "must be 0 or 1, but Id 0 has '' for dog"),
        (lambda d: edit(d / "train/train_set.csv", Id="1"), "'1' twice"),
        (lambda d: edit(d / "train/train_set.csv", Id="../1"), "valid in file names, but .* has '../1'"),
        (lambda d: edit(d / "train/train_set.csv", Id=None), "must name an image, but row 2 of .* has no Id"),
        (lambda d: (d / "train/train_set.csv").write_text(""), "must have a header, but .* is empty"),
        (lambda d: (d / "train/train_set.csv").write_text("picture,dog\n0,1\n"), "must have a column Id or filename"),
        (lambda d: (d / "train/train_set.csv").write_text("Id\n0\n"), "at least one class, but .* lists none"),
        (lambda d: (d / "train/train_set.csv").write_text("Id,dog,Dog\n0,1,0\n"), "names must differ, but .* 'Dog'"),
        (lambda d: (d / "train/train_set.csv").write_text("Id,dog\n0,1,0\n"), "as long as its header .* row 2 .* 3"),
        (lambda d: (d / "train/train_set.csv").write_text("Id,dog\n0,1\n1,1\n"), "has 2: renumber it, add the class"),
        (lambda d: (d / "train/train_set.csv").write_bytes(b"\xff\xfe\x00Id"), "train_set.csv"),
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
        (lambda d: np.save(d / "train/seg/train_0.npy", np.full((12, 16), -2, np.int8)), "train_0.npy has -2"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.full((12, 16), 256)), "train_0.npy has 256"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.full((12, 16), 254, np.uint8)), "train_0.npy has 254"),
        (lambda d: np.save(d / "train/seg/train_0.npy", np.zeros((16, 12), int)), r"\(12, 16\) and .* \(16, 12\)"),
        (lambda d: write_masks(d, lambda mask: np.where(mask, 255, 0)), "contain only 0 and 255: if 255 marks your"),
        (lambda d: write_masks(d, lambda mask: mask * 0), "at least two kinds, but all in .* are background"),
        (lambda d: shutil.rmtree(d / "train"), "train/train_set.csv .*a COCO JSON file"),
        (lambda d: shutil.rmtree(d), "does not exist"),
    ],
)
def test_errors_name_the_file_or_the_id(kaggle, spoil, message):
    spoil(kaggle)
    with pytest.raises(ValueError, match=message) as raised:
        load(kaggle, image_size=8)
    assert "\n" not in str(raised.value)


def test_minus_1_in_masks_is_void(kaggle):
    path = kaggle / "train/seg/train_0.npy"
    before = load(kaggle, image_size=16)
    np.save(path, np.where(np.load(path) == 255, -1, np.load(path).astype(np.int64)))
    np.testing.assert_array_equal(load(kaggle, image_size=16).masks, before.masks)


def test_val_and_other_layouts(kaggle):
    with pytest.raises(ValueError, match="use_val needs the devkit layout"):
        load(kaggle, image_size=8, use_val=True)
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        load(kaggle, image_size=0)


def test_a_class_list_without_a_class_of_the_table_is_a_choice_of_columns(kaggle):
    (kaggle / "classes.txt").write_text("zebra\n")
    assert "must have a column for each class, but lacks zebra: add them" in refusal(kaggle)
