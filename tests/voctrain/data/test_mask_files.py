"""Masks by index, by color and by palette, as a class list says."""

import numpy as np
import pytest
from PIL import Image

from voctrain.data.class_names import VOC_CLASSES, ClassList
from voctrain.data.discovery import VOC
from voctrain.data.mask_files import look, open_mask, read_mask
from voctrain.data.palette import voc_palette

COLORS = voc_palette()
OWN = ClassList(("cell", "nucleus", "debris"), "labels.txt")
MAP = {(0, 0, 0): 0, (48, 112, 32): 1, (176, 112, 32): 2, (16, 60, 200): 3}
CVAT = ClassList(OWN.names, "labelmap.txt", colors=MAP)
ONE = ClassList(("lesion",), "labels.txt")
MARKED = ClassList(("lesion",), "labels.txt", forced={255: 1})

MASK = np.uint8([[0, 0, 1, 1], [0, 2, 3, 255]])


def rgb(mask, colors=COLORS):
    return np.asarray(colors, np.uint8)[mask]


def read(tmp_path, pixels, classes=OWN, palette=None, name="x.png"):
    """Write pixels, an array or an image, and read them as a mask."""
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
        if palette is not None:
            image.putpalette(np.asarray(palette, np.uint8).tobytes())
        image.save(path)
    mask = read_mask(path, classes)
    assert mask.dtype == np.uint8
    return mask.tolist()


def error(tmp_path, *arguments, **options):
    with pytest.raises(ValueError, match=r"^") as raised:
        read(tmp_path, *arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestValues:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, ">u2", ">i4"])
    def test_arrays_of_integers(self, tmp_path, dtype):
        assert read(tmp_path, MASK.astype(dtype), name="x.npy") == MASK.tolist()

    @pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif"])
    def test_gray_images(self, tmp_path, ending):
        assert read(tmp_path, MASK, name=f"x.{ending}") == MASK.tolist()

    @pytest.mark.parametrize("ending", ["png", "tif"])
    def test_16_bits(self, tmp_path, ending):
        assert read(tmp_path, MASK.astype(np.uint16), name=f"x.{ending}") == MASK.tolist()
        deep = np.where(MASK == 255, 65535, MASK).astype(np.uint16)
        assert read(tmp_path, deep, name=f"x.{ending}") == MASK.tolist()

    def test_32_bits_with_minus_1_for_void(self, tmp_path):
        deep = np.where(MASK == 255, -1, MASK).astype(np.int32)
        assert read(tmp_path, deep, name="x.tif") == MASK.tolist()

    def test_single_bits(self, tmp_path):
        assert read(tmp_path, MASK == 1, ONE) == (MASK == 1).astype(int).tolist()

    @pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
    def test_equal_channels_and_transparency(self, tmp_path, mode):
        assert read(tmp_path, Image.fromarray(MASK % 255).convert(mode)) == (MASK % 255).tolist()

    def test_values_that_a_list_maps(self, tmp_path):
        classes = ClassList(("a", "b"), "_classes.csv", values={7: 1, 9: 2, 1: 255})
        assert read(tmp_path, np.uint8([[0, 7, 9, 1, 255]]), classes) == [[0, 1, 2, 255, 255]]

    def test_values_that_the_user_maps(self, tmp_path):
        classes = ClassList(("a", "b"), "a list", values={7: 1}, forced={7: 2, 200: 0, 300: 1})
        assert read(tmp_path, np.uint16([[0, 7, 200, 300, 1]]), classes, name="x.tif") == [[0, 2, 0, 1, 1]]

    @pytest.mark.parametrize("value", [4, 254, 256, 65534])
    def test_other_values_are_refused(self, tmp_path, value):
        message = error(tmp_path, np.uint16([[0, value]]))
        assert "must be 0 (background), 1..3 (cell, nucleus, debris) or 255 (void), but" in message
        assert f"has {value}: renumber it, add the class, or pass --mask-value {value}=CLASS" in message

    @pytest.mark.parametrize(
        "pixels", [np.zeros((2, 2)), np.zeros(4, int), np.zeros((2, 2, 1), int), np.zeros((0, 3), int), np.array(["a"])]
    )
    def test_arrays_that_are_no_masks_are_refused(self, tmp_path, pixels):
        assert "masks must be integers (height, width), but" in error(tmp_path, pixels, name="x.npy")

    def test_a_background_in_the_middle_of_the_list_leaves_values_without_meaning(self, tmp_path):
        classes = ClassList(("a", "b"), "labels.txt", ordered=False)
        assert read(tmp_path, np.uint8([[0, 255]]), classes) == [[0, 255]]
        message = error(tmp_path, np.uint8([[0, 1]]), classes)
        assert (
            "a class list must begin with the background to tell the classes of mask values, but labels.txt" in message
        )


class TestBinary:
    """0 and 255: void, unless the user says otherwise."""

    BITS = np.uint8([[0, 255], [255, 0]])

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1"])
    def test_with_a_mask_value(self, tmp_path, mode):
        assert read(tmp_path, Image.fromarray(self.BITS).convert(mode), MARKED) == [[0, 1], [1, 0]]

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
    def test_without(self, tmp_path, mode):
        assert read(tmp_path, Image.fromarray(self.BITS).convert(mode), ONE) == self.BITS.tolist()

    def test_a_palette_of_black_and_white_says_nothing(self, tmp_path):
        assert read(tmp_path, np.uint8([[0, 1]]), ONE, palette=[(0, 0, 0), (255, 255, 255)]) == [[0, 1]]
        grays = [(v, v, v) for v in range(256)]
        assert read(tmp_path, self.BITS, MARKED, palette=grays) == [[0, 1], [1, 0]]


class TestColors:
    def test_rgb_in_the_colors_of_a_labelmap(self, tmp_path):
        mask = np.uint8([[0, 1], [2, 3]])
        assert read(tmp_path, rgb(mask, list(MAP)), CVAT) == mask.tolist()

    def test_rgb_in_vocs_colors(self, tmp_path):
        assert read(tmp_path, rgb(MASK)) == MASK.tolist()
        every = np.uint8([[*range(21), 255]])
        assert read(tmp_path, rgb(every), VOC) == every.tolist()

    def test_white_borders_are_void(self, tmp_path):
        pixels = rgb(MASK)
        pixels[MASK == 255] = 255
        assert read(tmp_path, pixels) == MASK.tolist()

    def test_white_may_be_a_class_and_black_too(self, tmp_path):
        classes = ClassList(("a", "b"), "labelmap.txt", colors={(255, 255, 255): 1, (0, 0, 0): 2, (9, 9, 9): 0})
        assert read(tmp_path, rgb(np.uint8([[0, 1, 2]]), [(0,) * 3, (255,) * 3, (9,) * 3]), classes) == [[2, 1, 0]]

    def test_a_background_of_another_color(self, tmp_path):
        classes = ClassList(("a",), "labelmap.txt", colors={(10, 128, 0): 0, (1, 2, 3): 1}, ordered=False)
        mask = rgb(np.uint8([[0, 1]]), [(10, 128, 0), (1, 2, 3)])
        assert read(tmp_path, mask, classes) == [[0, 1]]
        assert read(tmp_path, np.uint8([[3, 3]]), classes, palette=[(9, 9, 9)] * 3 + [(10, 128, 0)]) == [[0, 0]]

    def test_transparency_does_not_matter(self, tmp_path):
        pixels = np.dstack([rgb(MASK), np.full(MASK.shape, 7, np.uint8)])
        assert read(tmp_path, pixels) == MASK.tolist()

    def test_unknown_colors_are_refused_with_their_number(self, tmp_path):
        pixels = rgb(MASK)
        pixels[0, :2] = 1, 2, 3
        assert "must be VOC's, for cell, nucleus, debris, but" in error(tmp_path, pixels)
        message = error(tmp_path, pixels, CVAT)
        assert "must be those of labelmap.txt, but" in message
        assert "list it in a labelmap.txt, one name:red,green,blue:: per line" in message
        assert "has (1, 2, 3) in 2 pixels" in error(tmp_path, pixels, VOC)

    @pytest.mark.parametrize("ending", ["jpg", "JPEG"])
    def test_jpegs_are_refused_because_they_change_values(self, tmp_path, ending):
        image = Image.fromarray(rgb(np.kron(MASK, np.ones((9, 9), np.uint8))))
        assert "save masks as PNG, since JPEG changes values" in error(tmp_path, image, name=f"x.{ending}")
        gray = image.convert("L").point(lambda v: v % 7 * 40)
        assert "save masks as PNG, since JPEG changes values" in error(tmp_path, gray, name=f"x.{ending}")


class TestPalettes:
    @pytest.mark.parametrize(
        "palette",
        [
            COLORS,
            np.pad(COLORS[:21], ((0, 235), (0, 0))),  # void is black
            np.repeat(np.arange(256)[:, None], 3, 1),  # grays
            np.zeros((256, 3)),
            np.arange(768).reshape(256, 3) % 251,  # colors that are nobody's
            COLORS[:21],  # void has no color
        ],
        ids=["VOC", "padded", "gray", "black", "foreign", "short"],
    )
    def test_palettes_that_agree_with_the_indices_or_say_nothing(self, tmp_path, palette):
        assert read(tmp_path, MASK, palette=palette) == MASK.tolist()

    def test_renumbered_colors_are_read_by_color(self, tmp_path):
        """An editor writes the colors of the file by frequency, say."""
        order = [3, 0, 255, 2, 1]
        renumbered = np.vectorize(order.index)(MASK).astype(np.uint8)
        assert read(tmp_path, renumbered, palette=COLORS[order]) == MASK.tolist()
        assert read(tmp_path, renumbered, VOC, palette=COLORS[order]) == MASK.tolist()

    def test_a_palette_of_grays_that_are_numbers(self, tmp_path):
        """GIF files have a palette of the grays in the image. Grays that are no numbers are only there to be seen."""
        assert read(tmp_path, np.uint8([[0, 1, 2]]), palette=[(0, 0, 0), (3, 3, 3), (255, 255, 255)]) == [[0, 3, 255]]
        assert read(tmp_path, np.uint8([[0, 1, 2]]), palette=[(0, 0, 0), (85, 85, 85), (170, 170, 170)]) == [[0, 1, 2]]

    def test_pillows_own_quantization(self, tmp_path):
        image = Image.fromarray(rgb(MASK)).quantize(8, dither=Image.Dither.NONE)
        assert np.array(image).tolist() != MASK.tolist()
        assert read(tmp_path, image) == MASK.tolist()

    def test_a_mask_of_a_single_renumbered_class(self, tmp_path):
        assert read(tmp_path, np.uint8([[0, 0]]), palette=[COLORS[3]]) == [[3, 3]]

    def test_the_colors_of_a_labelmap(self, tmp_path):
        order = [2, 0, 3, 1]
        palette = np.array(list(MAP))[order]
        assert read(tmp_path, np.uint8([[0, 1, 2, 3]]), CVAT, palette=palette) == [order]

    def test_numbers_of_a_labelmap_in_vocs_palette(self, tmp_path):
        """Its colors are not those of the list, which leaves the indices."""
        assert read(tmp_path, MASK, CVAT, palette=COLORS) == MASK.tolist()

    def test_class_colors_at_wrong_indices_beside_unknown_colors_are_refused(self, tmp_path):
        palette = COLORS.copy()
        palette[1:4] = COLORS[2], COLORS[1], (9, 9, 9)
        message = error(tmp_path, MASK, palette=palette)
        assert "value 1 has the color of class 2, and that of value 3 belongs to no class: set each pixel" in message

    def test_a_black_that_is_not_the_first_of_unknown_colors_is_refused(self, tmp_path):
        """An editor put the object first."""
        message = error(tmp_path, np.uint8([[0, 1]]), palette=[(200, 30, 30), (0, 0, 0)])
        assert "value 1 is black like the background, and value 0 is (200, 30, 30): list the colors in" in message
        classes = ClassList(("a",), "a list", forced={0: 1, 1: 0})
        assert read(tmp_path, np.uint8([[0, 1]]), classes, palette=[(200, 30, 30), (0, 0, 0)]) == [[1, 0]]

    def test_the_values_of_the_user_win(self, tmp_path):
        classes = ClassList(OWN.names, "a list", forced={255: 3})
        assert read(tmp_path, MASK, classes, palette=COLORS) == np.where(MASK == 255, 3, MASK).tolist()

    def test_lists_in_another_order_number_vocs_colors(self, tmp_path):
        values = {value: 21 - value for value in range(1, 21)}
        classes = ClassList(VOC_CLASSES, "labels.txt", values=values)
        for pixels in (MASK, rgb(MASK)):
            palette = COLORS if pixels is MASK else None
            assert read(tmp_path, pixels, classes, palette=palette) == [[0, 0, 20, 20], [0, 19, 18, 255]]


class TestLooking:
    """What a mask tells before the classes are known."""

    def look(self, tmp_path, pixels, palette=None):
        read(tmp_path, pixels, ClassList(tuple(f"c{i}" for i in range(100)), ""), palette)
        seen = look(tmp_path / "x.png")
        return seen.values, seen.vocs

    def test_values_in_vocs_colors_are_vocs(self, tmp_path):
        everything = ((0, 1, 2, 3, 255), True)
        assert self.look(tmp_path, rgb(MASK)) == everything
        assert self.look(tmp_path, MASK, COLORS) == everything
        assert self.look(tmp_path, np.minimum(MASK, 4), [*COLORS[:4], COLORS[255]]) == everything
        assert self.look(tmp_path, np.uint8([[0, 25]]), COLORS) == ((0, 25), False)

    def test_other_values_are_their_own(self, tmp_path):
        assert self.look(tmp_path, MASK) == ((0, 1, 2, 3, 255), False)
        assert self.look(tmp_path, np.dstack([MASK] * 3)) == ((0, 1, 2, 3, 255), False)
        assert self.look(tmp_path, np.uint8([[0, 1]]), [(0, 0, 0), (255, 255, 255)]) == ((0, 1), False)
        assert self.look(tmp_path, np.uint8([[0, 0]])) == ((0,), False)
        grays = [(v, v, v) for v in (0, 3, 2, 1, 85, 170)]
        assert self.look(tmp_path, np.uint8([[0, 1, 2]]), grays) == ((0, 2, 3), False)
        assert self.look(tmp_path, np.uint8([[0, 4, 5]]), grays) == ((0, 4, 5), False)

    def test_other_colors_have_no_values(self, tmp_path):
        Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "x.png")
        assert look(tmp_path / "x.png").values is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"^every file must be readable, but .*x.png is not .*: replace it"):
        open_mask(tmp_path / "x.png")
