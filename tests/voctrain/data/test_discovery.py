"""The classes that only the content of a set tells."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.voctrain.data.drawing import (
    assert_masks,
    classes_of,
    devkit,
    listed,
    refusal,
    repaint,
    save_mask,
    write_xml,
)
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.palette import voc_palette

pytestmark = pytest.mark.usefixtures("cache")

OWN = ("nucleus", "cell", "debris")  # not in alphabetical order


def gray(root):
    repaint(root / "SegmentationClass", lambda mask, _: Image.fromarray(mask))


class TestNamesOfAnnotations:
    def test_they_are_matched_with_the_mask_values_that_occur_with_them(self, tmp_path):
        devkit(tmp_path, OWN, xml=True)
        assert_masks(tmp_path, OWN)
        assert listed(tmp_path).classes.source == "the annotations, matched with the masks"

    def test_spellings_may_differ(self, tmp_path):
        devkit(tmp_path, OWN, xml=True)
        for i, path in enumerate(sorted((tmp_path / "Annotations").iterdir())):
            text = path.read_text()
            for name in OWN:
                text = text.replace(f"<name>{name}<", f"<name>{' ' * (i % 2) + name.upper() if i % 3 else name} <")
            path.write_text(text)
        assert [name.casefold() for name in classes_of(tmp_path)] == [*OWN]
        np.testing.assert_array_equal(load(tmp_path, image_size=8).labels.sum(0), [4, 8, 4])

    def test_gaps_between_the_values(self, tmp_path):
        devkit(tmp_path, OWN, xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: np.uint8([0, 5, 9, 200])[mask])
        assert_masks(tmp_path, OWN)

    @pytest.mark.parametrize("paint", [lambda mask: mask, lambda mask: Image.fromarray(mask)], ids=["VOC", "gray"])
    def test_some_of_vocs_names_in_another_order(self, tmp_path, paint):
        devkit(tmp_path, ("dog", "cat"), xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: paint(mask))
        assert_masks(tmp_path, ("dog", "cat"))

    def test_numbers_in_names_are_ordered_by_size(self, tmp_path):
        devkit(tmp_path, [f"cell {i}" for i in range(1, 61)], n=60, xml=True)
        assert_masks(tmp_path, [f"cell {i}" for i in range(1, 61)], n=60)

    def test_a_class_in_annotations_only(self, tmp_path):
        """Rust was never painted, and has the last number."""
        ids = devkit(tmp_path, OWN, xml=True)
        write_xml(tmp_path / f"Annotations/{ids[3]}.xml", "cell", "nucleus", "Rust")
        assert classes_of(tmp_path) == (*OWN, "Rust")

    @pytest.mark.parametrize("colors", [False, True])
    def test_masks_in_vocs_colors_whatever_their_indices(self, tmp_path, colors):
        devkit(tmp_path, OWN, xml=True)
        repaint(
            tmp_path / "SegmentationClass",
            lambda mask, _: Image.fromarray(voc_palette()[mask]) if colors else requantized(mask),
        )
        assert_masks(tmp_path, OWN)

    def test_one_name_for_masks_of_0_and_255(self, tmp_path):
        ids = devkit(tmp_path, ("lesion",), xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: Image.fromarray(mask * 255))
        assert_masks(tmp_path, ("lesion",))
        assert listed(tmp_path).classes.source == "the annotations, marked by mask value 255"
        write_xml(tmp_path / f"Annotations/{ids[0]}.xml", "lesion", "mole")
        assert "contain only 0 and 255" in refusal(tmp_path)

    def test_one_name_for_deep_masks_of_0_and_65535(self, tmp_path):
        devkit(tmp_path, ["cell"], xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: Image.fromarray(mask.astype(np.uint16) * 65535))
        assert_masks(tmp_path, ["cell"])

    def test_names_beside_masks_of_background_alone(self, tmp_path):
        devkit(tmp_path, OWN, xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: mask * 0)
        assert "no image has any of cell, debris, nucleus: check the masks" in refusal(tmp_path)

    def test_names_that_always_occur_together_are_refused(self, tmp_path):
        ids = devkit(tmp_path, ("a", "b"), xml=True)
        for i, name in enumerate(ids):
            save_mask(tmp_path / f"SegmentationClass/{name}.png", np.uint8([[0] * 24] * 19 + [[1] * 12 + [2] * 12]))
            write_xml(tmp_path / f"Annotations/{name}.xml", *("ab" if i % 2 else "ba"))
        assert "'a' and 'b' occur in the same images of" in refusal(tmp_path)

    def test_the_alphabet_orders_two_of_several_names_that_always_occur_together(self, tmp_path):
        names = ("a", "b", "c", "d", "e")
        for i, name in enumerate(devkit(tmp_path, names, xml=True)):
            here = [(1, 2), (3,), (4,), (5,)][i % 4]
            save_mask(
                tmp_path / f"SegmentationClass/{name}.png", np.uint8([[0] * 24, [*here, 0, 0][:2] * 12]).repeat(10, 0)
            )
            write_xml(tmp_path / f"Annotations/{name}.xml", *(names[c - 1] for c in here))
        assert classes_of(tmp_path) == names
        assert listed(tmp_path).classes.source.endswith("in alphabetical order where these do not tell")

    def test_a_name_that_always_occurs_with_the_only_painted_one_is_refused(self, tmp_path):
        for name in devkit(tmp_path, ("a",), xml=True):
            write_xml(tmp_path / f"Annotations/{name}.xml", "weld", "crack")
        assert "occur in the same images of" in refusal(tmp_path)

    def test_more_values_than_names_are_refused(self, tmp_path):
        for name in devkit(tmp_path, OWN, xml=True):
            write_xml(tmp_path / f"Annotations/{name}.xml", "cell")
        message = refusal(tmp_path)
        assert "has 3 mask values and annotations of cell: list the names in the order of the values" in message

    def test_names_that_rarely_occur_with_any_value_are_refused(self, tmp_path):
        for i, name in enumerate(devkit(tmp_path, OWN, xml=True)):
            write_xml(tmp_path / f"Annotations/{name}.xml", OWN[i % 7 % 3], OWN[i // 4 % 3])
        assert "with --classes FILE" in refusal(tmp_path)

    def test_masks_in_other_colors_need_a_labelmap(self, tmp_path):
        devkit(tmp_path, OWN, xml=True)
        repaint(
            tmp_path / "SegmentationClass", lambda mask, _: Image.fromarray(voc_palette()[mask] + np.uint8([3, 0, 0]))
        )
        assert "has colors that are not VOC's: list them in a labelmap.txt" in refusal(tmp_path)


def requantized(mask):
    """The mask as an image editor saves it: the palette has the colors of this file, by frequency."""
    return Image.fromarray(voc_palette()[mask]).quantize(8, dither=Image.Dither.NONE)


class TestWithoutNames:
    @pytest.mark.parametrize("change", [None, requantized, lambda mask: Image.fromarray(voc_palette()[mask])])
    def test_vocs_colors_are_vocs_classes(self, tmp_path, change):
        devkit(tmp_path, VOC_CLASSES, n=20)
        if change is not None:
            repaint(tmp_path / "SegmentationClass", lambda mask, _: change(mask))
        assert_masks(tmp_path, VOC_CLASSES, n=20)

    def test_values_are_numbered_classes(self, tmp_path):
        devkit(tmp_path, OWN)
        gray(tmp_path)
        assert_masks(tmp_path, ("class_1", "class_2", "class_3"))
        assert listed(tmp_path).classes.source == "the values of the masks, which nothing names"

    def test_more_than_20(self, tmp_path):
        devkit(tmp_path, range(30), n=40)
        assert_masks(tmp_path, [f"class_{i}" for i in range(1, 31)], n=40)

    def test_scattered_values_are_no_classes(self, tmp_path):
        devkit(tmp_path, OWN)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: Image.fromarray(np.uint8([0, 60, 120, 180])[mask]))
        assert "its masks have the values 60, 120, 180: say what each means with --mask-value 60=NAME" in refusal(
            tmp_path
        )

    def test_masks_that_cannot_be_read_tell_nothing(self, tmp_path):
        devkit(tmp_path, OWN)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: Image.fromarray(mask.astype(np.float32)), ".tif")
        assert "its masks cannot be read: list the classes with --classes FILE" in refusal(tmp_path)
        (tmp_path / "class_names.txt").write_text("\n".join(OWN))
        assert "img_00.tif is float32 (20, 24): convert it" in refusal(tmp_path)

    def test_a_bad_mask_is_named_and_not_its_classes(self, tmp_path):
        devkit(tmp_path, VOC_CLASSES, n=20)
        (tmp_path / "SegmentationClass/img_07.png").write_bytes(b"")
        assert "img_07.png is not" in refusal(tmp_path)


def test_more_classes_than_mask_values_are_refused_with_masks_only(tmp_path):
    devkit(tmp_path, OWN)
    (tmp_path / "classes.txt").write_text("\n".join(f"product {i}" for i in range(300)))
    assert "masks can have at most 254 classes, but" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "SegmentationClass")
    (tmp_path / "Annotations").mkdir()
    for i in range(12):
        write_xml(tmp_path / f"Annotations/img_{i:02}.xml", f"Product {i * 20}")
    assert load(tmp_path, image_size=8).labels.sum() == 12
