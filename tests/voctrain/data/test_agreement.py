"""Sets whose labels, masks or palettes contradict each other, or teach nothing."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.voctrain.data.drawing import (
    assert_masks,
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
from voctrain.data.__main__ import main
from voctrain.data.agreement import contradicting
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.palette import voc_palette

pytestmark = pytest.mark.usefixtures("cache")

OWN = ("nucleus", "cell", "debris")  # not in alphabetical order


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

    def test_gray_values_that_gifs_renumber_agree(self, tmp_path):
        drawn = folders(tmp_path, num_classes=3, masks="masks/{}.gif")
        assert [mask.tolist() for mask in masks_of(tmp_path).values()] == [mask.tolist() for mask in drawn]
        load(tmp_path, image_size=8)


class TestContradictions:
    def test_most_annotations_that_name_other_classes_are_refused(self, tmp_path):
        """Mask value 1 is the dog."""
        devkit(tmp_path, ("dog", "cat"), xml=True)
        (tmp_path / "labels.txt").write_text("cat\ndog")
        message = refusal(tmp_path)
        assert "annotations and masks must name the same classes, but 8 of 12 differ, such as img_01" in message
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

    def test_a_table_in_another_order_than_the_masks(self, kaggle):
        path, names = kaggle / "train/train_set.csv", [f"cloud {i:02}" for i in range(20)]
        table = pd.read_csv(path).set_axis(["Id", *names], axis=1)
        table.to_csv(path, index=False)
        load(kaggle, image_size=8)
        table[["Id", *reversed(names)]].to_csv(path, index=False)
        assert "annotations and masks must name the same classes, but 44 of 44 differ, such as 0 (cloud 00" in refusal(
            kaggle
        )


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


def test_describe_refuses_what_a_search_refuses(tmp_path, capsys):
    devkit(tmp_path, ("dog", "cat"), xml=True)
    (tmp_path / "labels.txt").write_text("cat\ndog")
    assert main(["describe", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]) == 2
    captured = capsys.readouterr()
    assert "12 labeled" in captured.out
    assert captured.err == f"error: {refusal(tmp_path)}\n"
