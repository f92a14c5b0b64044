import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.voctrain.data import drawing
from tests.voctrain.data.drawing import assert_masks, classes_of, listed, refusal, write_lines, write_xml
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.layouts import read_layout

pytestmark = pytest.mark.usefixtures("cache")

PERSON = VOC_CLASSES.index("person")
OWN = ("cell", "nucleus", "debris")


def names_of(labels):
    return {VOC_CLASSES[c] for c in np.flatnonzero(labels)}


class TestMasksAndAnnotations:
    def test_labels_come_from_masks_and_val_is_used_for_testing(self, devkit):
        write_xml(devkit / "Annotations/a_00.xml", "sofa")
        data = load(devkit, image_size=8)
        assert data.ids == tuple(f"a_{i:02}" for i in range(22))
        assert data.test_ids == tuple(f"a_{i:02}" for i in range(22, 43))
        assert data.labels.argmax(1).tolist() == [i % 20 for i in range(22)]
        assert data.masks[1].max() == 255
        with Image.open(devkit / "JPEGImages/a_22.jpg") as file:
            expected = np.asarray(file.resize((8, 8), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(data.test_images[0], expected)

    def test_labels_of_an_image_without_a_mask_come_from_its_annotation(self, devkit):
        (devkit / "SegmentationClass/a_03.png").unlink()
        write_xml(devkit / "Annotations/a_03.xml", "Person ", "dog", "dog", "ignored")
        data = load(devkit, image_size=8)
        assert names_of(data.labels[3]) == {"person", "dog"}
        assert (data.masks[3] == 255).all()
        assert any("1 of 22 labeled images have no mask" in line for line in data.warnings)

    def test_without_masks_labels_come_from_annotations(self, devkit):
        shutil.rmtree(devkit / "SegmentationClass")
        for i in range(22):
            write_xml(devkit / f"Annotations/a_{i:02}.xml", "person")
        data = load(devkit, image_size=8)
        assert data.masks is None
        assert data.labels.sum(0)[PERSON] == data.labels.sum() == 22

    def test_classification_learns_from_all_annotations_where_only_some_images_have_masks(self, tmp_path):
        """8 masks in the list of segmentation, and 12 more annotations in none."""
        ids = drawing.devkit(tmp_path, OWN, 20, xml=True)
        for name in ids[8:]:
            (tmp_path / f"SegmentationClass/{name}.png").unlink()
        write_lines(tmp_path / "ImageSets/Segmentation/train.txt", ids[:8])
        data = load(tmp_path, image_size=8)
        assert (len(data.ids), data.classes) == (20, OWN)
        warning = "12 of 20 labeled images have no mask: classification learns from all 20, segmentation from the other"
        assert any(warning in line for line in data.warnings)

    def test_a_list_in_main_says_which_annotations_are_used(self, tmp_path):
        ids = drawing.devkit(tmp_path, OWN, 20, xml=True)
        for name in ids[8:]:
            (tmp_path / f"SegmentationClass/{name}.png").unlink()
        write_lines(tmp_path / "ImageSets/Segmentation/train.txt", ids[:8])
        write_lines(tmp_path / "ImageSets/Main/train.txt", ids[4:14])
        assert list(listed(tmp_path).ids) == ids[:14]

    def test_images_in_any_list_of_test_images_are_never_labeled(self, tmp_path):
        """Main has a trainval.txt and a test.txt with annotations, as VOC2007 has; Segmentation has its own lists."""
        ids = drawing.devkit(tmp_path, OWN, 20, xml=True)
        write_lines(tmp_path / "ImageSets/Segmentation/train.txt", ids[:6])
        write_lines(tmp_path / "ImageSets/Segmentation/test.txt", ids[6:8])
        write_lines(tmp_path / "ImageSets/Main/trainval.txt", ids[8:12])
        write_lines(tmp_path / "ImageSets/Main/test.txt", ids[12:])
        listing = listed(tmp_path)
        assert list(listing.ids) == [*ids[:6], *ids[8:12]]
        assert list(listing.test_ids) == ids[6:8]


class TestLists:
    def test_val_is_added_to_the_labeled_images_or_becomes_the_validation_part(self, devkit):
        without, with_val = load(devkit, image_size=8), load(devkit, image_size=8, use_val=True)
        assert len(with_val.ids) == 43
        assert with_val.test_ids == ()
        assert without.fingerprint != with_val.fingerprint
        own = read_layout(devkit, own_val=True)
        assert own.val_ids == tuple(f"a_{i:02}" for i in range(22, 43))
        assert read_layout(devkit).val_ids == ()

    def test_test_txt_takes_precedence_over_val(self, devkit):
        Image.new("L", (5, 4)).save(devkit / "JPEGImages/b.jpg")
        write_lines(devkit / "ImageSets/Segmentation/test.txt", ["b"])
        data = load(devkit, image_size=8, use_val=True)
        assert data.test_ids == ("b",)
        assert data.test_sizes.tolist() == [[4, 5]]

    def test_without_lists_every_image_with_a_label_is_labeled(self, tmp_path):
        ids = drawing.devkit(tmp_path, OWN, lists=False, xml=True)
        (tmp_path / f"SegmentationClass/{ids[0]}.png").unlink()
        for part, ending in (("SegmentationClass", "png"), ("Annotations", "xml")):
            (tmp_path / part / f"{ids[1]}.{ending}").unlink()
        listing = listed(tmp_path)
        assert list(listing.ids) == [ids[0], *ids[2:]]
        assert list(listing.test_ids) == [ids[1]]

    @pytest.mark.parametrize("folder", ["ImageSets/Segmentation", "ImageSets/Main", "ImageSets", "imagesets/MAIN", "."])
    @pytest.mark.parametrize("name", ["train", "trainval", "default", "Train", "train_list"])
    def test_lists_in_any_folder(self, tmp_path, folder, name):
        ids = drawing.devkit(tmp_path, OWN, lists=False)
        write_lines(tmp_path / folder / f"{name}.txt", ids[:9])
        assert list(listed(tmp_path).ids) == ids[:9]

    def test_lists_in_main_alone_have_a_validation_part(self, tmp_path):
        ids = drawing.devkit(tmp_path, OWN, masks=False, xml=True, lists=False)
        write_lines(tmp_path / "ImageSets/Main/train.txt", ids[:9])
        write_lines(tmp_path / "ImageSets/Main/val.txt", ids[9:])
        listing = listed(tmp_path)
        assert list(listing.ids) == ids
        assert list(listing.val_ids) == ids[9:]
        assert listing.test_ids == ()

    def test_trainval_and_val_without_train(self, tmp_path):
        ids = drawing.devkit(tmp_path, OWN, masks=False, xml=True, lists=False)
        write_lines(tmp_path / "ImageSets/Main/trainval.txt", ids)
        write_lines(tmp_path / "ImageSets/Main/val.txt", ids[9:])
        listing = listed(tmp_path)
        assert sorted(listing.ids) == ids
        assert list(listing.val_ids) == ids[9:]

    def test_val_alone_is_labeled(self, tmp_path):
        ids = drawing.devkit(tmp_path, OWN, lists=False)
        write_lines(tmp_path / "ImageSets/Segmentation/VAL.TXT", ids)
        listing = listed(tmp_path)
        assert list(listing.ids) == list(listing.val_ids) == ids

    def test_labels_in_the_lists_of_classes(self, tmp_path):
        """1 and 0 (difficult) are positive, -1 is not; two columns of 0 and 1 mean no and yes."""
        ids = drawing.devkit(tmp_path, OWN, 4, masks=False, lists=False)
        main = tmp_path / "ImageSets/Main"
        write_lines(
            main / "cell_train.txt",
            [f"{name}  {value}" for name, value in zip(ids, ["1", "0", "-1", "-1"], strict=True)],
        )
        write_lines(
            main / "nucleus_train.txt", [f"{name} {value:>2}" for name, value in zip(ids, (0, 1, 0, 1), strict=True)]
        )
        write_lines(main / "notes_train.txt", ["nothing of this kind"])
        (main / "._cell_train.txt").write_bytes(b"\0\5\x16\7")
        listing = listed(tmp_path)
        assert listing.classes.names == ("cell", "nucleus")
        labels = [listing.read(i)[2].tolist() for i in range(4)]
        assert labels == [[1, 0], [1, 1], [0, 0], [0, 1]]


class TestYears:
    @pytest.mark.parametrize("parent", [".", "VOCdevkit"])
    def test_the_folder_above_one_year(self, devkit, tmp_path, parent):
        assert load(tmp_path / parent, image_size=8).fingerprint == load(devkit, image_size=8).fingerprint

    @pytest.mark.parametrize("years", [("VOC2007", "VOC2012"), ("VOC2030", "VOC2031")])
    def test_several_years_together(self, tmp_path, years):
        """The image that both have is taken from the latest."""
        for year, classes in zip(years, (OWN, OWN), strict=True):
            drawing.devkit(tmp_path / year, classes)
            write_lines(tmp_path / year / "class_names.txt", ["_background_", *OWN])
            for part in ("JPEGImages", "SegmentationClass"):
                for path in sorted((tmp_path / year / part).iterdir())[1:]:
                    path.rename(path.with_name(f"{year}_{path.name}"))
        shutil.rmtree(tmp_path / years[0] / "ImageSets")
        shutil.rmtree(tmp_path / years[1] / "ImageSets")
        listing = listed(tmp_path)
        assert len(listing.ids) == 23
        assert listing.examples[listing.ids.index("img_00")].image.is_relative_to(tmp_path / years[1])
        assert listing.notes[-1].startswith(f"2 years together: {years[1]}, {years[0]}; an image that several have")

    def test_years_of_different_classes_are_refused(self, tmp_path):
        for year, classes in (("VOC2007", "a b c"), ("VOC2012", "b a c")):
            drawing.devkit(tmp_path / year, OWN)
            write_lines(tmp_path / year / "labels.txt", classes.split())
        assert "all years must have the same class list, but those of" in refusal(tmp_path)

    def test_a_folder_that_only_contains_the_set(self, tmp_path):
        drawing.devkit(tmp_path / "archive/export", OWN)
        (tmp_path / "__MACOSX").mkdir()
        (tmp_path / ".DS_Store").touch()
        (tmp_path / "README.md").touch()
        write_lines(tmp_path / "archive/labels.txt", OWN)
        assert_masks(tmp_path, OWN)


class TestFiles:
    def test_names_of_folders_in_another_case(self, tmp_path):
        drawing.devkit(tmp_path, OWN, xml=True)
        for name in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets"):
            (tmp_path / name).rename(tmp_path / name.lower())
        assert_masks(tmp_path, OWN)

    @pytest.mark.parametrize("name", ["SegmentationClassPNG", "SegmentationClassNpy"])
    def test_other_names_of_the_folder_of_masks(self, tmp_path, name):
        drawing.devkit(tmp_path, OWN, xml=True)
        (tmp_path / "SegmentationClass").rename(tmp_path / name)
        assert_masks(tmp_path, OWN)

    def test_a_mask_belongs_to_the_image_at_the_same_place(self, tmp_path):
        """Two cameras number their frames alike, and only those of the second are labeled."""
        drawing.devkit(tmp_path, OWN, lists=False)
        for part in ("JPEGImages", "SegmentationClass"):
            (tmp_path / part / "second").mkdir()
            for path in (tmp_path / part).glob("*.*"):
                path.rename(path.parent / "second" / path.name)
        shutil.copytree(tmp_path / "JPEGImages/second", tmp_path / "JPEGImages/first")
        listing = read_layout(tmp_path)
        assert [name.partition("/")[0] for name in listing.ids] == ["second"] * 12
        assert [name.partition("/")[0] for name in listing.test_ids] == ["first"] * 12

    @pytest.mark.parametrize("name", ["{}.jpg", "{}_mask", "{}.JPG_gt"])
    def test_masks_and_annotations_named_after_files(self, tmp_path, name):
        drawing.devkit(tmp_path, OWN, xml=True)
        for path in [*(tmp_path / "SegmentationClass").iterdir(), *(tmp_path / "Annotations").iterdir()]:
            path.rename(path.with_name(name.format(path.stem) + path.suffix))
        assert_masks(tmp_path, OWN)

    def test_masks_without_an_image_are_named(self, tmp_path):
        drawing.devkit(tmp_path, OWN, xml=True)
        for path in sorted((tmp_path / "SegmentationClass").iterdir()):
            path.rename(path.with_name(f"mask_{path.name}"))
        warning = "12 masks or annotations belong to no image, such as "
        assert load(tmp_path, image_size=8).warnings == (
            f"{warning}{tmp_path}/SegmentationClass/mask_img_00.png: they are not used",
        )

    def test_masks_in_one_folder_of_images_in_several(self, tmp_path):
        ids = drawing.devkit(tmp_path, OWN)
        for i, name in enumerate(ids):
            folder = tmp_path / f"JPEGImages/day{i % 2}"
            folder.mkdir(exist_ok=True)
            (tmp_path / f"JPEGImages/{name}.jpg").rename(folder / f"{name}.jpg")
        write_lines(tmp_path / "labels.txt", OWN)
        assert classes_of(tmp_path) == OWN
        assert [name.partition("/")[2] for name in listed(tmp_path).ids] == ids


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "JPEGImages/a_05.jpg").unlink(), r"train.txt lists a_05, missing in .*JPEGImages: restore"),
        (lambda d: (d / "JPEGImages/a_30.jpg").unlink(), r"val.txt lists a_30, missing in"),
        (lambda d: [os.unlink(d / f"JPEGImages/a_0{i}.jpg") for i in range(8)], "a_03, a_04 and 3 more, missing in"),
        (lambda d: os.truncate(d / "JPEGImages/a_05.jpg", 640), r"a_05.jpg is not .*truncated"),
        (lambda d: (d / "JPEGImages/a_30.jpg").write_bytes(b"no image"), "a_30.jpg is not"),
        (lambda d: (d / "SegmentationClass/a_05.png").unlink(), r"needs a mask or an annotation, .*a_05.png and"),
        (lambda d: [os.unlink(d / f"SegmentationClass/a_0{i}.png") for i in range(8)], "as are those of 7 others: add"),
        (lambda d: os.truncate(d / "SegmentationClass/a_05.png", 60), "a_05.png is not"),
        (lambda d: Image.new("RGB", (15, 14), (1, 2, 3)).save(d / "SegmentationClass/a_05.png"), r"has \(1, 2, 3\) in"),
        (lambda d: Image.new("P", (9, 14)).save(d / "SegmentationClass/a_05.png"), r"same .* \(14, 9\)"),
        (lambda d: Image.new("L", (15, 14), 210).save(d / "SegmentationClass/a_05.png"), "a_05.png has 210"),
        (lambda d: write_lines(d / "ImageSets/Segmentation/train.txt", [""]), "train.txt lists no images"),
        (lambda d: write_lines(d / "ImageSets/Segmentation/train.txt", ["a_01", "a_01"]), "'a_01' twice"),
        (lambda d: write_lines(d / "ImageSets/Segmentation/train.txt", ["a_01"]), "at least 2 labeled .* has 1"),
        (lambda d: write_lines(d / "ImageSets/Segmentation/train.txt", ["../x"]), r"lists \.\./x, missing"),
        (lambda d: write_lines(d / "ImageSets/Segmentation/test.txt", ["a_00"]), "both labeled and test, but a_00"),
        (lambda d: shutil.copy(d / "JPEGImages/a_00.jpg", d / "JPEGImages/a_00.png"), r"one file, but .*a_00.jpg and"),
    ],
)
def test_errors_name_the_file_or_the_id(devkit, spoil, message):
    spoil(devkit)
    with pytest.raises(ValueError, match=message) as raised:
        load(devkit, image_size=8)
    assert "\n" not in str(raised.value)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK")
    assert "set.zip' is a file: unpack it, or pass its folder" in refusal(tmp_path / "set.zip")


@pytest.mark.parametrize("text", ["<annotation><object>", "", "<a><object><name>unicorn</name></object></a>"])
def test_errors_name_bad_annotations(devkit, text):
    (devkit / "SegmentationClass/a_03.png").unlink()
    (devkit / "Annotations/a_03.xml").write_text(text)
    write_xml(devkit / "Annotations/a_04.xml", "boat")
    write_lines(devkit / "labels.txt", VOC_CLASSES)
    assert "a_03.xml" in refusal(devkit)
