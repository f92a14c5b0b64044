"""Sets as people report them in public bug trackers: each is read rightly, or refused with one line."""

import re
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
    scene,
    write_lines,
    write_xml,
)
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.palette import voc_palette

pytestmark = pytest.mark.usefixtures("cache")

THREE = ("weld", "crack", "rust")
LABELMAP = ["background:0,0,0::", "weld:48,112,32::", "crack:176,112,32::", "rust:16,60,200::"]
COLORS = np.uint8([(0, 0, 0), (48, 112, 32), (176, 112, 32), (16, 60, 200)])
SEGMENTATION = "ImageSets/Segmentation"


def masks(root, change, ending=None):
    """Paint the masks of a devkit again, each from its label map."""
    repaint(root / "SegmentationClass", lambda mask, _: change(mask), ending)


def quantized(rgb):
    return Image.fromarray(rgb).quantize(8, dither=Image.Dither.NONE)


def in_palette(mask, colors):
    image = Image.fromarray(mask)
    image.putpalette(np.asarray(colors, np.uint8).tobytes())
    return image


class TestCvat:
    """01: "Segmentation mask 1.1": labelmap.txt with colors, RGB masks, list default.txt (cvat#2032, #957)."""

    def draw(self, root, labelmap, paint=lambda mask: Image.fromarray(COLORS[mask]), **options):
        ids = devkit(root, THREE, lists=False)
        write_lines(root / f"{SEGMENTATION}/default.txt", ids)
        write_lines(root / "labelmap.txt", ["# label:color_rgb:parts:actions", *labelmap], **options)
        masks(root, paint)

    def test_as_exported(self, tmp_path):
        self.draw(tmp_path, LABELMAP)
        assert_masks(tmp_path, THREE)
        assert load(tmp_path, image_size=8).labels.sum(0).tolist() == [4, 8, 4]

    @pytest.mark.parametrize("order", [(1, 2, 3, 0), (1, 0, 2, 3), (1, 2, 3)], ids=["last", "middle", "missing"])
    @pytest.mark.parametrize(
        "paint",
        [
            lambda mask: Image.fromarray(COLORS[mask]),
            lambda mask: Image.fromarray(np.dstack([COLORS[mask], mask])),
            lambda mask: in_palette(mask, COLORS),
            lambda mask: in_palette(np.uint8([2, 0, 3, 1])[mask], COLORS[[1, 3, 0, 2]]),
            lambda mask: quantized(COLORS[mask]),
        ],
        ids=["RGB", "RGBA", "palette", "renumbered", "requantized"],
    )
    def test_the_background_anywhere_and_masks_in_the_colors(self, tmp_path, order, paint):
        self.draw(tmp_path, [LABELMAP[i] for i in order], paint)
        assert_masks(tmp_path, THREE)

    @pytest.mark.parametrize("palette", [None, voc_palette()])
    def test_masks_of_numbers(self, tmp_path, palette):
        def paint(mask):
            return Image.fromarray(mask) if palette is None else in_palette(mask, palette)

        self.draw(tmp_path / "first", LABELMAP, paint)
        assert_masks(tmp_path / "first", THREE)
        self.draw(tmp_path / "middle", [LABELMAP[i] for i in (1, 0, 2, 3)], paint)
        assert "a class list must begin with the background to tell the classes of mask values" in refusal(
            tmp_path / "middle"
        )

    @pytest.mark.parametrize("values", [(0, 128, 200, 255), (255, 9, 10, 11)])
    def test_gray_masks_in_the_grays_of_the_list(self, tmp_path, values):
        lines = [f"{name}:{v},{v},{v}::" for name, v in zip(("background", *THREE), values, strict=True)]
        self.draw(tmp_path, lines, lambda mask: Image.fromarray(np.uint8(values)[mask]))
        assert_masks(tmp_path, THREE)

    def test_labels_that_are_ignored_parts_and_actions(self, tmp_path):
        lines = [*LABELMAP[:3], "ignored:224,224,192::", "rust:16,60,200:edge,rim:grow"]
        self.draw(tmp_path, lines, end="\r\n", encoding="utf-8-sig")
        save_mask(tmp_path / "SegmentationClass/img_00.png", np.uint8([[0, 255]]).repeat(20, 0).repeat(12, 1))
        assert_masks_but_first(tmp_path)

    def test_a_color_that_the_list_lacks(self, tmp_path):
        self.draw(tmp_path, LABELMAP[:3])
        assert re.search(
            r"must be those of labelmap.txt, but .*img_02.png has \(16, 60, 200\) in 64 pix", refusal(tmp_path)
        )


def assert_masks_but_first(root):
    listing = listed(root)
    assert listing.classes.names == THREE
    assert set(np.unique(listing.read(0)[1])) == {0, 255}
    np.testing.assert_array_equal(listing.read(5)[1], scene(5, 3)[1])


class TestLabelme:
    """02: labelme2voc: class_names.txt, palette masks, no ImageSets (labelme#635)."""

    @pytest.mark.parametrize("name", ["class_names.txt", "labels.txt", "classes.txt"])
    @pytest.mark.parametrize("head", ["_background_", "__ignore__ _background_", ""])
    @pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\n")])
    def test_lists(self, tmp_path, name, head, encoding, end):
        devkit(tmp_path, THREE, lists=False)
        write_lines(tmp_path / name, [*head.split(), *THREE], encoding, end)
        assert_masks(tmp_path, THREE)

    def test_arrays_beside_pictures(self, tmp_path):
        """Older versions write SegmentationClass/*.npy with -1 for __ignore__, and pictures in other folders."""
        devkit(tmp_path, THREE, lists=False)
        shutil.copytree(tmp_path / "SegmentationClass", tmp_path / "SegmentationClassPNG")
        for path in sorted((tmp_path / "SegmentationClass").iterdir()):
            np.save(path.with_suffix(".npy"), np.array(Image.open(path)).astype(np.int32))
            path.unlink()
        write_lines(tmp_path / "class_names.txt", ["_background_", *THREE])
        assert_masks(tmp_path, THREE)

    def test_unicode_and_blanks_in_file_names(self, tmp_path):
        ids = devkit(tmp_path, THREE, lists=False)
        for i, name in enumerate(ids):
            for part, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
                (tmp_path / part / f"{name}.{ending}").rename(tmp_path / part / f"Übung (№ {i}) größer.v1.{ending}")
        write_lines(tmp_path / "labels.txt", THREE)
        write_lines(
            tmp_path / f"{SEGMENTATION}/train.txt", [f"Übung (№ {i}) größer.v1.jpg  1" for i in range(8)], "utf-16"
        )
        listing = listed(tmp_path)
        assert listing.classes.names == THREE
        assert listing.ids == tuple(f"Übung (№ {i}) größer.v1" for i in range(8))


class TestNumberOfClasses:
    """03 and 04: one class (detectron2#2476), and more than 20 (cvat#1276)."""

    def test_one_class(self, tmp_path):
        devkit(tmp_path, ["defect"], n=30, xml=True)
        assert_masks(tmp_path, ["defect"], n=30)
        data = load(tmp_path, image_size=8)
        assert (data.labels.shape, data.labels.sum(), len(data.val)) == ((30, 1), 30, 6)

    def test_one_class_in_two_images(self, tmp_path):
        devkit(tmp_path, ["defect"], n=2, xml=True)
        data = load(tmp_path, image_size=8)
        assert (len(data.train), len(data.val)) == (1, 1)

    @pytest.mark.parametrize("number", [25, 60, 200])
    def test_many_classes(self, tmp_path, number):
        classes = [f"product {i:03}" for i in range(number)]
        devkit(tmp_path, classes, n=number, xml=True)
        assert_masks(tmp_path, classes, n=number)
        assert load(tmp_path, image_size=8).labels.sum(0).all()

    def test_300_classes_without_masks(self, tmp_path):
        classes = [f"product {i:03}" for i in range(300)]
        devkit(tmp_path, ["x"], n=300, masks=False)
        (tmp_path / "Annotations").mkdir()
        for i, name in enumerate(classes):
            write_xml(tmp_path / f"Annotations/img_{i:02}.xml", name)
        assert load(tmp_path, image_size=8).labels.tolist() == np.eye(300).tolist()


PAINTS = {
    "gray": lambda mask: Image.fromarray(mask * 255),
    "RGB": lambda mask: Image.fromarray(mask * 255).convert("RGB"),
    "RGBA": lambda mask: Image.fromarray(mask * 255).convert("RGBA"),
    "palette": lambda mask: in_palette(mask * 255, [(v, v, v) for v in range(256)]),
}


class TestBinaryMasks:
    """07: masks of 0 and 255 only (PaddleSeg#1110, transformers#27224)."""

    @pytest.mark.parametrize("paint", PAINTS)
    def test_they_are_noticed_and_read_as_the_user_says(self, tmp_path, paint):
        devkit(tmp_path, ["lesion"])
        masks(tmp_path, PAINTS[paint])
        assert "contain only 0 and 255: if 255 marks your objects, pass --mask-value 255=1" in refusal(tmp_path)
        assert_masks(tmp_path, ["object"], mask_values=["255=1"])
        write_lines(tmp_path / "class_names.txt", ["_background_", "lesion"])
        assert_masks(tmp_path, ["lesion"])

    @pytest.mark.parametrize(
        "paint",
        [
            lambda mask: Image.fromarray(mask == 1),
            lambda mask: in_palette(mask, [(0, 0, 0), (255, 255, 255)]),
            lambda mask: Image.fromarray(mask),
        ],
        ids=["1 bit", "two colors", "gray"],
    )
    def test_0_and_1_are_a_class(self, tmp_path, paint):
        devkit(tmp_path, ["lesion"], xml=True)
        masks(tmp_path, paint)
        assert_masks(tmp_path, ["lesion"])

    @pytest.mark.parametrize("ending", [".jpg", ".JPEG"])
    def test_jpegs_are_refused(self, tmp_path, ending):
        devkit(tmp_path, ["lesion"], xml=True)
        masks(tmp_path, lambda mask: Image.fromarray(mask * 250), ending)
        assert "is a JPEG: save masks as PNG" in refusal(tmp_path)


class TestRequantizedPalettes:
    """09: an editor wrote palettes that count the colors of each file (BiSeNet#4)."""

    @pytest.mark.parametrize("border", [False, True])
    def test_vocs_colors(self, tmp_path, border):
        devkit(tmp_path, VOC_CLASSES, n=20)

        def paint(mask):
            mask[:2] = 255 if border else 0
            return quantized(voc_palette()[mask])

        masks(tmp_path, paint)
        listing = listed(tmp_path)
        assert listing.classes.names == VOC_CLASSES
        for i in range(20):
            expected = scene(i, 20)[1]
            expected[:2] = 255 if border else 0
            np.testing.assert_array_equal(listing.read(i)[1], expected)

    def test_own_classes_in_vocs_colors(self, tmp_path):
        devkit(tmp_path, THREE)
        write_lines(tmp_path / "class_names.txt", ["_background_", *THREE])
        masks(tmp_path, lambda mask: quantized(voc_palette()[mask]))
        assert_masks(tmp_path, THREE)

    def test_colors_that_nothing_names(self, tmp_path):
        devkit(tmp_path, THREE)
        write_lines(tmp_path / "class_names.txt", ["_background_", *THREE])
        masks(tmp_path, lambda mask: quantized(COLORS[mask]))
        assert "is black like the background, and value 0 is (" in refusal(tmp_path)


class TestDeepMasks:
    @pytest.mark.parametrize("ending", [".png", ".tif", ".TIFF"])
    def test_16_bits(self, tmp_path, ending):
        devkit(tmp_path, THREE, xml=True)
        masks(tmp_path, lambda mask: Image.fromarray(mask.astype(np.uint16)), ending)
        assert_masks(tmp_path, THREE)

    def test_the_white_border_of_rgb_masks_is_void(self, tmp_path):
        devkit(tmp_path, THREE, xml=True)

        def paint(mask):
            rgb = voc_palette()[mask]
            rgb[:2] = 255
            return Image.fromarray(rgb)

        masks(tmp_path, paint)
        assert (listed(tmp_path).read(0)[1][:2] == 255).all()
        assert classes_of(tmp_path) == THREE

    def test_a_mask_of_another_size(self, tmp_path):
        devkit(tmp_path, THREE, xml=True)
        save_mask(tmp_path / "SegmentationClass/img_03.png", np.ones((24, 20), np.uint8))
        message = refusal(tmp_path)
        assert "image and mask must have the same height and width" in message
        assert "img_03.png is (24, 20): replace the wrong one" in message
