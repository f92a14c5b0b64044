"""Sets whose class lists, annotations, tables or masks show that their classes are not VOC's are rejected."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from voctrain.data import load
from voctrain.data.__main__ import main
from voctrain.data.class_names import VOC_CLASSES, contrast
from voctrain.data.palette import voc_palette

pytestmark = pytest.mark.usefixtures("cache")

ONLY = "only VOC's 20 classes are supported so far, but "
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nweld:48,112,32::\ncrack:176,112,32:tip:\n"
OWN = {
    "labelmap.txt": CVAT,
    "class_names.txt": "_background_\nweld\ncrack",
    "labels.txt": "__ignore__\n_background_\nweld\ncrack\n",
    "classes.txt": "weld\n\ncrack\n",
    "label_list.txt": "weld\ncrack\n",
    "_classes.csv": "filename, weld, crack\na_01.jpg, 1, 0\n",
    "SegmentationClass/_classes.csv": "Pixel Value, Class\n0, background\n1, weld\n2, crack\n",
    "SegmentationClass/class_names.txt": "aeroplane\nweld\ncrack\nbird",
}
CVAT_VOC = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nignored:224,224,192::\n" + "".join(
    f"{name}:1,2,3:head,hand:jump\n" for name in VOC_CLASSES
)
VOCS = {
    "labelmap.txt": CVAT_VOC,
    "class_names.txt": "_background_\naeroplane\nbicycle\nbird",
    "labels.txt": "\n".join(["__ignore__", "_background_", *VOC_CLASSES]),
    "classes.txt": " Aeroplane \n\nBICYCLE\n",
    "_classes.csv": "Pixel Value,Class\n0,background\n1,aeroplane\n2,bicycle",
}


def rejection(path, **options):
    with pytest.raises(ValueError, match=r"^") as raised:
        load(path, image_size=8, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def annotate(root, i, *names):
    objects = "".join(f"<object><part><name>hoof</name></part><name>{name}</name></object>" for name in names)
    (root / f"Annotations/a_{i:02}.xml").write_text(
        f"<annotation><owner><name>Ann</name></owner>{objects}</annotation>"
    )


class TestClassLists:
    @pytest.mark.parametrize("name", OWN)
    def test_other_classes(self, devkit, name):
        (devkit / name).write_text(OWN[name])
        assert rejection(devkit).startswith(f"{ONLY}{devkit / name} lists weld, crack: list VOC's names there")

    @pytest.mark.parametrize("text", [b"\xef\xbb\xbfaeroplane\r\nbicycle\r\n", "aeroplane\r\nbicycle".encode("utf-16")])
    def test_byte_order_marks_and_line_endings(self, devkit, text):
        before = load(devkit, image_size=8).fingerprint
        (devkit / "classes.txt").write_bytes(text)
        assert load(devkit, image_size=8).fingerprint == before

    @pytest.mark.parametrize("name", VOCS)
    def test_voc_classes_in_voc_order(self, devkit, name):
        before = load(devkit, image_size=8).fingerprint
        (devkit / name).write_text(VOCS[name])
        assert load(devkit, image_size=8).fingerprint == before

    def test_another_order_is_rejected_because_it_means_other_mask_values(self, devkit):
        (devkit / "classes.txt").write_text("cat\ndog")
        message = rejection(devkit)
        assert f"listed in VOC's order (mask value 1 is aeroplane, 2 bicycle, 3 bird, …), but {devkit}" in message
        assert "lists cat, dog: remove it if" in message

    def test_without_masks_any_order_is_accepted(self, devkit):
        shutil.rmtree(devkit / "SegmentationClass")
        (devkit / "classes.txt").write_text("cat\ndog")
        for i in range(22):
            annotate(devkit, i, "dog")
        assert load(devkit, image_size=8).labels.sum(0)[VOC_CLASSES.index("dog")] == 22

    def test_more_than_20_classes(self, devkit):
        (devkit / "classes.txt").write_text("\n".join(f"product {i}" for i in range(25)))
        assert "product 3, product 4 and 20 more: merge them into at most 20, then list VOC's names" in rejection(
            devkit
        )

    def test_they_are_reported_before_other_errors(self, devkit):
        (devkit / "classes.txt").write_text("weld")
        shutil.rmtree(devkit / "ImageSets")
        assert "lists weld" in rejection(devkit)

    @pytest.mark.parametrize("place", [".", "VOCdevkit/VOC2009"])
    def test_class_lists_in_or_above_the_folder_of_a_year(self, devkit, tmp_path, place):
        (tmp_path / place / "labels.txt").write_text("weld")
        assert "labels.txt lists weld" in rejection(tmp_path)

    @pytest.mark.parametrize("place", [".", "train", "train/seg"])
    def test_class_lists_of_a_kaggle_set(self, kaggle, place):
        (kaggle / place / "class_names.txt").write_text("weld")
        assert "class_names.txt lists weld" in rejection(kaggle)


class TestAnnotations:
    def test_annotations_of_images_with_masks(self, devkit):
        annotate(devkit, 3, "person", "cell")
        annotate(devkit, 5, "nucleus", "cell")
        first = devkit / "Annotations/a_03.xml"
        assert rejection(devkit).startswith(
            f"{ONLY}annotations such as {first} name cell, nucleus: rename these objects"
        )

    def test_annotations_of_val_are_checked_only_with_use_val(self, devkit):
        annotate(devkit, 30, "cell")
        load(devkit, image_size=8)
        assert "Annotations/a_30.xml name cell: rename" in rejection(devkit, use_val=True)

    def test_set_without_masks(self, devkit):
        shutil.rmtree(devkit / "SegmentationClass")
        for i in range(22):
            annotate(devkit, i, "helmet", "vest")
        assert "a_00.xml name helmet, vest: rename" in rejection(devkit)

    def test_more_than_20_classes(self, devkit):
        annotate(devkit, 0, *(f"product {i}" for i in range(25)))
        assert "product 4 and 20 more: merge them into at most 20, then rename these objects" in rejection(devkit)

    def test_voc_classes_may_differ_from_those_in_the_masks(self, devkit):
        before = load(devkit, image_size=8)
        annotate(devkit, 3, "sofa", " Person ")
        (devkit / "Annotations/a_04.xml").write_text("<annotation><object>")  # its labels come from the mask
        after = load(devkit, image_size=8)
        assert after.fingerprint == before.fingerprint
        np.testing.assert_array_equal(after.labels, before.labels)

    def test_case_and_whitespace_are_ignored_in_labels(self, devkit):
        (devkit / "SegmentationClass/a_03.png").unlink()
        annotate(devkit, 3, " Person\n", "DOG")
        labels = load(devkit, image_size=8).labels[3]
        assert {VOC_CLASSES[c] for c in np.flatnonzero(labels)} == {"person", "dog"}


class TestTable:
    def rename(self, kaggle, change):
        file = kaggle / "train/train_set.csv"
        head, *rows = file.read_text().splitlines()
        file.write_text("\n".join([",".join(change(head.split(","))), *rows]))

    def test_other_classes(self, kaggle):
        self.rename(kaggle, lambda head: ["Id", "cirrus", "cumulus", *head[3:]])
        file = kaggle / "train/train_set.csv"
        assert rejection(kaggle).startswith(f"{ONLY}{file} has columns for cirrus, cumulus: rename them to VOC's names")

    def test_table_without_ids(self, kaggle):
        self.rename(kaggle, lambda head: ["image", *head[1:]])
        assert "must have the columns Id and VOC's 20 classes, but lacks Id: add" in rejection(kaggle)

    def test_case_and_whitespace_are_ignored(self, kaggle):
        before = load(kaggle, image_size=8)
        self.rename(kaggle, lambda head: ["ID", *(f" {name.upper()} " for name in head[1:])])
        after = load(kaggle, image_size=8)
        assert after.fingerprint == before.fingerprint
        np.testing.assert_array_equal(after.labels, before.labels)


def repaint(root, i, change, table=None):
    """Save mask i with changed values and optionally a palette."""
    file = root / f"SegmentationClass/a_{i:02}.png"
    mask = Image.fromarray(change(np.array(Image.open(file))).astype(np.uint8))
    if table is not None:
        mask.putpalette(table.astype(np.uint8).tobytes())
    mask.save(file)


class TestMasks:
    def test_colors_renumbered_by_an_editor(self, devkit):
        file = devkit / "SegmentationClass/a_02.png"  # has 0, 3 and 255
        mask = np.array(Image.open(file))
        Image.fromarray(voc_palette()[mask]).quantize(8, dither=Image.Dither.NONE).save(file)
        again = np.array(Image.open(file))
        wrong = {int(again[mask == value][0]): value for value in (3, 255)}
        value = min(wrong)
        name, right = {3: "bird", 255: "void"}[wrong[value]], wrong[value]
        assert f"in {file} the color of {name} has value {value}, not {right}: set each pixel" in rejection(devkit)

    @pytest.mark.parametrize(
        "table",
        [
            voc_palette(),
            np.pad(voc_palette()[:21], ((0, 235), (0, 0))),  # void is black
            np.repeat(np.arange(256)[:, None], 3, 1),  # grays
            np.zeros((256, 3)),
            np.arange(768).reshape(256, 3) % 251,  # colors that are not VOC's
        ],
    )
    def test_other_palettes_are_accepted(self, devkit, table):
        before = load(devkit, image_size=8)
        for i in range(22):
            repaint(devkit, i, lambda mask: mask, table)
        np.testing.assert_array_equal(load(devkit, image_size=8).masks, before.masks)

    def test_void_without_any_class_is_rejected(self, devkit, kaggle):
        for i in range(22):
            repaint(devkit, i, lambda mask: np.where(mask, 255, 0))
        for file in (kaggle / "train/seg").iterdir():
            np.save(file, np.where(np.load(file), 255, 0))
        for root in (devkit, kaggle):
            message = rejection(root)
            assert f"255 is void, which is ignored, but the masks in {str(root)!r} contain only 0 and 255" in message
            assert "replace it with a class number, such as 1" in message

    def test_values_above_20(self, devkit):
        repaint(devkit, 4, lambda mask: np.where(mask == 5, 25, mask))
        assert "(only VOC's 20 classes are supported so far) or 255 (void), but" in rejection(devkit)
        assert "a_04.png has 25: renumber it" in rejection(devkit)

    @pytest.mark.parametrize("mode", ["1", "RGB"])
    def test_masks_without_class_numbers(self, devkit, mode):
        for file in (devkit / "SegmentationClass").iterdir():
            Image.open(file).convert(mode).save(file)
        assert f"has mode {mode}: convert it to 0 for background, 1..20 for VOC's classes" in rejection(devkit)


@pytest.mark.parametrize("command", [["describe"], ["convert", "target"]])
@pytest.mark.parametrize("source", ["annotation", "list"])
def test_commands_reject_the_set_before_any_work(devkit, tmp_path, monkeypatch, capsys, command, source):
    monkeypatch.chdir(tmp_path)
    if source == "list":
        (devkit / "labels.txt").write_text("cell")
    else:
        annotate(devkit, 21, "cell")
    before = sorted(os.walk(tmp_path))
    assert main([command[0], str(devkit), *command[1:]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {ONLY}")
    assert captured.err.count("\n") == 1
    assert sorted(os.walk(tmp_path)) == before


def test_contrast_starts_at_the_first_difference():
    assert contrast(("cat", "dog"), ("dog", "cat")) == ("cat, dog", "dog, cat")
    assert contrast(VOC_CLASSES[:2], VOC_CLASSES) == ("…, no more", "…, bird, boat, bottle and 15 more")
