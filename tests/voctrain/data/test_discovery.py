"""The classes that only the content of a set tells, and sets that contradict themselves or teach nothing."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.voctrain.data.drawing import (
    assert_masks,
    classes_of,
    devkit,
    folders,
    listed,
    masks_of,
    refusal,
    repaint,
    save_mask,
    scene,
    write_xml,
)
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.discovery import contradicting
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
            lambda mask, _: Image.fromarray(voc_palette()[mask]) if colors else requantised(mask),
        )
        assert_masks(tmp_path, OWN)

    def test_one_name_for_masks_of_0_and_255(self, tmp_path):
        ids = devkit(tmp_path, ("lesion",), xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: Image.fromarray(mask * 255))
        assert_masks(tmp_path, ("lesion",))
        assert listed(tmp_path).classes.source == "the annotations, marked by mask value 255"
        write_xml(tmp_path / f"Annotations/{ids[0]}.xml", "lesion", "mole")
        assert "contain only 0 and 255" in refusal(tmp_path)

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


def requantised(mask):
    """The mask as an image editor saves it: the palette has the colors of this file, by frequency."""
    return Image.fromarray(voc_palette()[mask]).quantize(8, dither=Image.Dither.NONE)


class TestWithoutNames:
    @pytest.mark.parametrize("change", [None, requantised, lambda mask: Image.fromarray(voc_palette()[mask])])
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
        assert "and its masks have 3 values up to 180: list the classes with --classes FILE" in refusal(tmp_path)

    def test_a_bad_mask_is_named_and_not_its_classes(self, tmp_path):
        devkit(tmp_path, VOC_CLASSES, n=20)
        (tmp_path / "SegmentationClass/img_07.png").write_bytes(b"")
        assert "img_07.png is not" in refusal(tmp_path)


class TestPalettesThatDisagree:
    """Each file has the colors of its own, so that an index says nothing, and no list names the colors."""

    COLORS = np.uint8([(0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200)])

    def test_colors_of_several_values_are_refused(self, tmp_path):
        devkit(tmp_path, OWN)
        for i, path in enumerate(sorted((tmp_path / "SegmentationClass").iterdir())):
            order = [[0, 1, 2, 3], [0, 2, 3, 1]][i % 2]
            save_mask(path, np.uint8(np.argsort(order))[np.array(Image.open(path))], self.COLORS[order])
        (tmp_path / "class_names.txt").write_text("_background_\n" + "\n".join(OWN))
        message = refusal(tmp_path)
        assert "a color must have the same value in all masks, but (" in message
        assert "list the colors in a labelmap.txt" in message

    def test_values_of_several_colors_are_refused(self, tmp_path):
        """Each file has one class, and its palette the colors of background and class."""
        devkit(tmp_path, OWN)
        for i, path in enumerate(sorted((tmp_path / "SegmentationClass").iterdir())):
            save_mask(path, np.uint8(scene(i, 3)[1] > 0), self.COLORS[[0, 1 + i % 3]])
        (tmp_path / "class_names.txt").write_text("_background_\n" + "\n".join(OWN))
        message = refusal(tmp_path)
        assert "a value must have the same color in all masks, but 1 is (200, 30, 30) in" in message
        assert "and (30, 200, 30) in" in message

    def test_a_labelmap_repairs_it(self, tmp_path):
        self.test_colors_of_several_values_are_refused(tmp_path)
        lines = (
            f"{n}:{','.join(map(str, c))}::" for n, c in zip(("background", *OWN), self.COLORS.tolist(), strict=True)
        )
        (tmp_path / "labelmap.txt").write_text("\n".join(lines))
        assert_masks(tmp_path, OWN)
        load(tmp_path, image_size=8)

    def test_the_same_palette_in_all_is_read_by_index(self, tmp_path):
        devkit(tmp_path, OWN)
        for path in (tmp_path / "SegmentationClass").iterdir():
            save_mask(path, np.array(Image.open(path)), self.COLORS)
        (tmp_path / "class_names.txt").write_text("_background_\n" + "\n".join(OWN))
        assert_masks(tmp_path, OWN)
        load(tmp_path, image_size=8)

    def test_palettes_that_say_nothing_may_differ(self, tmp_path):
        devkit(tmp_path, OWN)
        for i, path in enumerate(sorted((tmp_path / "SegmentationClass").iterdir())):
            palette = [voc_palette(), voc_palette()[:5], np.repeat(np.arange(256)[:, None], 3, 1)][i % 3]
            save_mask(path, np.array(Image.open(path)), palette)
        (tmp_path / "class_names.txt").write_text("_background_\n" + "\n".join(OWN))
        assert_masks(tmp_path, OWN)
        load(tmp_path, image_size=8)


class TestContradictions:
    def test_most_annotations_that_name_other_classes_are_refused(self, tmp_path):
        """VOC's names, but in an order of one's own: mask value 1 is the dog."""
        devkit(tmp_path, ("dog", "cat"), xml=True)
        message = refusal(tmp_path)
        assert "annotations and masks must name the same classes, but 12 of 12 differ, such as img_00" in message
        assert "list the classes in the order of the mask values with --classes FILE" in message

    def test_some_are_a_warning(self, tmp_path):
        ids = devkit(tmp_path, VOC_CLASSES, 20, xml=True)
        write_xml(tmp_path / f"Annotations/{ids[1]}.xml", "person", "BIRD")
        write_xml(tmp_path / f"Annotations/{ids[2]}.xml")
        (tmp_path / f"Annotations/{ids[4]}.xml").write_text("<annotation><object>")  # the mask says what is there
        listing = listed(tmp_path)
        assert contradicting(listing, np.array([listing.read(i)[2] for i in range(20)])) == [
            "img_01 (bird, person against bicycle)",
            "img_02 (no class against bird)",
        ]
        warning = "2 annotations and masks name different classes, such as img_01 (bird, person against bicycle)"
        assert any(line.startswith(warning) for line in load(tmp_path, image_size=8).warnings)


class TestNothingToLearn:
    def test_masks_of_one_kind_are_refused(self, tmp_path):
        devkit(tmp_path, VOC_CLASSES, xml=True)
        repaint(tmp_path / "SegmentationClass", lambda mask, _: mask * 0 + np.uint8(2))
        assert f"must have pixels of at least two kinds, but all in '{tmp_path}' are bicycle: check" in refusal(
            tmp_path
        )
        repaint(tmp_path / "SegmentationClass", lambda mask, _: mask * 0)
        assert "no image has any of aeroplane" in refusal(tmp_path)

    def test_a_class_that_fills_each_image_is_enough_beside_another(self, tmp_path):
        for i, name in enumerate(devkit(tmp_path, ("cell", "nucleus"))):
            save_mask(tmp_path / f"SegmentationClass/{name}.png", np.full((20, 24), 1 + i % 2, np.uint8))
        assert load(tmp_path, image_size=8).labels.sum(0)[:2].tolist() == [6, 6]

    def test_annotations_without_objects_are_refused(self, tmp_path):
        for name in devkit(tmp_path, OWN, masks=False, xml=True):
            write_xml(tmp_path / f"Annotations/{name}.xml")
        assert "no image has any of aeroplane" in refusal(tmp_path)

    def test_masks_of_void_alone_are_refused(self, tmp_path):
        folders(tmp_path, change=lambda mask: mask * 0 + 255)
        assert "contain only 0 and 255" in refusal(tmp_path)

    def test_some_images_without_objects_are_welcome(self, tmp_path):
        ids = devkit(tmp_path, OWN, xml=True)
        write_xml(tmp_path / f"Annotations/{ids[1]}.xml")
        save_mask(tmp_path / f"SegmentationClass/{ids[1]}.png", np.zeros((20, 24), np.uint8))
        assert not masks_of(tmp_path)[ids[1]].any()
        assert load(tmp_path, image_size=8).labels[1].sum() == 0


def test_more_classes_than_mask_values_are_refused_with_masks_only(tmp_path):
    devkit(tmp_path, OWN)
    (tmp_path / "classes.txt").write_text("\n".join(f"product {i}" for i in range(300)))
    assert "masks can have at most 254 classes, but" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "SegmentationClass")
    (tmp_path / "Annotations").mkdir()
    for i in range(12):
        write_xml(tmp_path / f"Annotations/img_{i:02}.xml", f"Product {i * 20}")
    assert load(tmp_path, image_size=8).labels.sum() == 12
