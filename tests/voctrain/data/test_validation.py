"""Which images are for validation: lists, the set's own part, folds and groups."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from voctrain.data import load, original_masks

pytestmark = pytest.mark.usefixtures("cache")


def val_ids(data):
    return [data.ids[i] for i in data.val]


def split_ids(data):
    assert sorted([*data.train, *data.val]) == list(range(len(data.ids)))
    assert data.val.dtype == np.int64
    return val_ids(data)


class TestList:
    @pytest.mark.parametrize(
        "text",
        [
            "3\n5\n40\n",
            "\ufeff3\r\n5\r\n\r\n40",
            "3.npy\n5.JPG\n  40.png\n",
            "train/img/3.npy\n./5\n\\img\\40.npy",
            "3 1 0\n5\t-1\n40,cat,dog",
            "id,split\n3,val\n5,val\n40,val",
            "filename\n3\n5\n40\n3\n",
        ],
    )
    def test_forms_of_lists(self, kaggle, tmp_path, text):
        (tmp_path / "list.txt").write_bytes(text.encode())
        data = load(kaggle, image_size=4, val=tmp_path / "list.txt")
        assert split_ids(data) == ["3", "5", "40"]
        assert data.images.flags == load(kaggle, image_size=4).images.flags

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("3\nx7\n", r"2 lines .* are not, such as 'x7': remove them$"),
            ("3\n900\n", "1 of 2 lines .* are not, such as '900'"),
            ("", "has 0 of 44"),
            ("\n".join(map(str, range(44))), "has 44 of 44"),
        ],
    )
    def test_lists_that_cannot_be_used(self, kaggle, tmp_path, text, message):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(ValueError, match=message) as raised:
            load(kaggle, image_size=4, val=tmp_path / "list.txt")
        assert "\n" not in str(raised.value)

    def test_a_list_that_does_not_exist(self, kaggle):
        with pytest.raises(ValueError, match=r"takes a file .*, val.txt, or K/N such as 1/5, but there is no file 'x'"):
            load(kaggle, image_size=4, val="x")

    def test_a_test_image_is_named_as_one(self, devkit, tmp_path):
        (tmp_path / "list.txt").write_text("a_03\na_30.jpg\n")
        with pytest.raises(ValueError, match=r"such as 'a_30.jpg': .*\(a_30 is a test image\)"):
            load(devkit, image_size=4, val=tmp_path / "list.txt")
        assert split_ids(load(devkit, image_size=4, val=tmp_path / "list.txt", use_val=True)) == ["a_03", "a_30"]

    def test_bad_images_that_are_left_out_may_be_listed(self, kaggle, tmp_path):
        (kaggle / "train/img/train_5.npy").write_bytes(b"not an array")
        (tmp_path / "list.txt").write_text("3\n5\n40")
        data = load(kaggle, image_size=4, val=tmp_path / "list.txt", skip_bad=True)
        assert split_ids(data) == ["3", "40"]
        assert "1 image with a bad file is left out: 5" in data.warnings

    def test_ids_may_be_given_by_a_program(self, kaggle):
        assert split_ids(load(kaggle, image_size=4, val=["5", "3"])) == ["3", "5"]
        assert len(load(kaggle, image_size=4, val=()).train) == 44
        with pytest.raises(ValueError, match="'x' is not one"):
            load(kaggle, image_size=4, val=["x"])


class TestOwnPart:
    def test_val_txt_of_a_devkit(self, devkit):
        data = load(devkit, image_size=8, val="val.txt")
        assert split_ids(data) == [f"a_{i}" for i in range(22, 43)]
        assert data.test_ids == ()
        assert next(original_masks(data, ["a_30"])).shape == tuple(data.sizes[30])
        default = load(devkit, image_size=8)
        assert len(default.ids) == 22
        assert len(default.test_ids) == 21

    def test_a_folder_of_the_part(self, tmp_path):
        rng = np.random.default_rng(0)
        for part, count in (("train", 4), ("valid", 2)):
            for folder in ("images", "masks"):
                (tmp_path / "set" / part / folder).mkdir(parents=True)
            for i in range(count):
                image, mask = rng.integers(0, 256, (8, 8, 3), np.uint8), np.full((8, 8), 1 + i % 2, np.uint8)
                Image.fromarray(image).save(tmp_path / "set" / part / "images" / f"{i}.png")
                Image.fromarray(mask).save(tmp_path / "set" / part / "masks" / f"{i}.png")
        data = load(tmp_path / "set", image_size=8, val="val.txt")
        assert split_ids(data) == ["valid/0", "valid/1"]

    def test_a_set_without_one(self, kaggle):
        with pytest.raises(ValueError, match=r"--val val.txt needs the set's own validation part"):
            load(kaggle, image_size=4, val="val.txt")

    def test_a_file_of_this_name(self, kaggle, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "val.txt").write_text("7")
        assert split_ids(load(kaggle, image_size=4, val="./val.txt")) == ["7"]


class TestFolds:
    def test_folds_divide_the_set(self, kaggle):
        folds = [split_ids(load(kaggle, image_size=4, val=f"{k}/4")) for k in range(1, 5)]
        assert sorted(i for fold in folds for i in fold) == sorted(map(str, range(44)))
        assert {len(fold) for fold in folds} == {11}

    @pytest.mark.parametrize("val", ["0/5", "6/5", "1/1"])
    def test_impossible_folds(self, kaggle, val):
        with pytest.raises(ValueError, match=r"--val K/N is fold K of N, counted from 1"):
            load(kaggle, image_size=4, val=val)
        with pytest.raises(ValueError, match="45 parts need as many images"):
            load(kaggle, image_size=4, val="1/45")


class TestGroups:
    def test_ids_that_match_alike_stay_together(self, devkit):
        data = load(devkit, image_size=4, use_val=True, group_by=r"_(\d)")  # tens
        val = split_ids(data)
        assert {name[:3] for name in val}.isdisjoint({data.ids[i][:3] for i in data.train})
        for k in (1, 2):
            fold = load(devkit, image_size=4, use_val=True, group_by="a_.", val=f"{k}/2")
            assert {name[:3] for name in val_ids(fold)}.isdisjoint({fold.ids[i][:3] for i in fold.train})

    def test_an_id_that_does_not_match_is_its_own_group(self, devkit):
        data = load(devkit, image_size=4, use_val=True, group_by=r"_(1)\d|_\d(?=x)")
        tens = {name for name in data.ids if name[2] == "1"}
        assert tens <= set(val_ids(data)) or not tens & set(val_ids(data))
        assert len({name for name in val_ids(data) if name[2] != "1"}) in range(5, 25)  # one or two of each class

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("(", r"must be a regular expression, but '\(' is not"),
            ("x", "'x' matches none of a_00, a_01, a_02 and 40 more"),
            ("a", "'a' puts all in one group of a_00"),
        ],
    )
    def test_expressions_that_make_no_groups(self, devkit, pattern, message):
        with pytest.raises(ValueError, match=message):
            load(devkit, image_size=4, use_val=True, group_by=pattern)

    def test_a_list_must_not_divide_a_group(self, devkit, tmp_path):
        (tmp_path / "list.txt").write_text("\n".join(f"a_{i}" for i in range(10, 20)))
        chosen = {"image_size": 4, "use_val": True, "val": tmp_path / "list.txt"}
        assert len(load(devkit, **chosen, group_by=r"_(\d)").val) == 10
        with pytest.raises(ValueError, match=r"but 1[01] are in .* and outside of it, such as 'group"):
            load(devkit, **chosen, group_by=r"(\d)$")

    def test_a_column_of_groups(self, kaggle, tmp_path):
        table = pd.read_csv(kaggle / "train/train_set.csv")
        table["group"] = [f"patient {i % 11}" for i in range(44)]
        table.to_csv(kaggle / "train/train_set.csv", index=False)
        data = load(kaggle, image_size=4)
        assert {int(i) % 11 for i in val_ids(data)}.isdisjoint({int(data.ids[i]) % 11 for i in data.train})
        assert not [line for line in data.warnings if "group" in line]
        (tmp_path / "list.txt").write_text("0\n1\n11")
        listed = load(kaggle, image_size=4, val=tmp_path / "list.txt")
        assert "2 groups have images in both training and validation: group patient 0, group patient 1" in str(
            listed.warnings
        )


def test_a_part_without_any_class_is_refused(kaggle, tmp_path):
    table = pd.read_csv(kaggle / "train/train_set.csv")
    table.loc[[3, 7], table.columns[1:]] = 0
    table.to_csv(kaggle / "train/train_set.csv", index=False)
    with pytest.raises(ValueError, match="none of the 2 validation images has one"):
        load(kaggle, image_size=4, val=["3", "7"])


@pytest.mark.parametrize("classes", [1, 200])
def test_any_number_of_classes(tmp_path, classes):
    """As a table beside images; the smallest set of one class has two images."""
    names = [f"c{i}" for i in range(classes)]
    count = max(2, 2 * classes)
    for i in range(count):
        Image.fromarray(np.full((4, 4, 3), i % 256, np.uint8)).save(tmp_path / f"{i:03}.png")
    labels = np.eye(classes, dtype=int)[np.arange(count) % classes]
    table = pd.DataFrame(labels, columns=names)
    table.insert(0, "filename", [f"{i:03}.png" for i in range(count)])
    table.to_csv(tmp_path / "labels.csv", index=False)
    data = load(tmp_path, image_size=4)
    assert data.classes == tuple(names)
    assert (data.labels[data.train].sum(0) == 1).all()
    assert (data.labels[data.val].sum(0) == 1).all()
    assert data.warnings == ()
