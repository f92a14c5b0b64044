import numpy as np
import pytest
from PIL import Image

from voctrain.data import load
from voctrain.data.class_names import VOID
from voctrain.data.discovery import VOC
from voctrain.data.mask_files import read_mask
from voctrain.data.resizing import NEAREST, RESIZE, Window, cut, place, resize_square, window

pytestmark = pytest.mark.usefixtures("cache")
SHAPES = [(4, 9), (9, 4), (7, 7), (1, 6), (5, 2)]


def test_windows():
    assert window(4, 9, "squash") == Window(0, 0, 4, 9)
    assert window(4, 9, "pad") == Window(-3, 0, 9, 9)
    assert window(9, 4, "crop") == Window(2, 0, 4, 4)
    assert window(7, 7, "pad") == window(7, 7, "crop") == window(7, 7, "squash")


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_is_undone_exactly(shape):
    image = np.random.default_rng(0).integers(1, 255, shape, np.uint8)
    padded = cut(image, window(*shape, "pad"), fill=255)
    assert padded.shape == (max(shape),) * 2
    assert (padded != 255).sum() == image.size
    np.testing.assert_array_equal(place(padded, shape, "pad"), image)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_crop_left_out_is_filled(shape):
    image = np.random.default_rng(0).integers(1, 255, shape, np.uint8)
    back = place(cut(image, window(*shape, "crop")), shape, "crop", fill=0)
    assert (back != 0).sum() == min(shape) ** 2
    np.testing.assert_array_equal(back[back != 0], image[back != 0])


def test_squashing_is_pils_resize():
    image = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_square(image, 8), expected)


def test_the_aspect_ratio_stays():
    """A disk in a wide image stays as wide as it is high."""
    y, x = np.mgrid[:40, :80]
    disk = np.where((y - 20) ** 2 + (x - 40) ** 2 < 150, 7, 0).astype(np.uint8)
    extents = {}
    for resize in RESIZE:
        found = np.argwhere(resize_square(disk, 40, NEAREST, resize=resize) == 7)
        extents[resize] = tuple((np.ptp(found, axis=0) + 1).tolist())
    assert extents == {"squash": (25, 12), "pad": (12, 12), "crop": (25, 25)}


class TestLoad:
    def test_masks_are_void_and_images_black_beside_a_padded_image(self, kaggle):
        data = load(kaggle, image_size=32, resize="pad")
        assert data.resize == "pad"
        height, width = data.sizes[0]
        assert (height, width) == (12, 16)
        assert (data.masks[0][:4] == VOID).all()
        assert (data.images[0][:3] == 0).all()
        assert (data.masks[0][8:] != VOID).any()
        assert (data.images[0][4:28].mean((1, 2)) > 50).all()

    def test_each_way_has_its_own_cache_and_the_same_labels_and_fingerprint(self, kaggle):
        squash, pad, crop = (load(kaggle, image_size=16, resize=resize) for resize in RESIZE)
        assert (squash.images != pad.images).any()
        assert (crop.images != pad.images).any()
        assert squash.fingerprint == pad.fingerprint == crop.fingerprint
        np.testing.assert_array_equal(squash.labels, crop.labels)
        np.testing.assert_array_equal(load(kaggle, image_size=16, resize="pad").images, pad.images)

    def test_padded_masks_come_back_at_their_original_sizes(self, kaggle):
        """At the size of the longest side, padding keeps each pixel."""
        data = load(kaggle, image_size=16, resize="pad")
        for i in np.flatnonzero(data.sizes.max(1) == 16):
            back = place(data.masks[i], tuple(data.sizes[i]), "pad")
            np.testing.assert_array_equal(back, read_mask(kaggle / f"train/seg/train_{data.ids[i]}.npy", VOC))

    def test_an_unknown_way_is_rejected(self, kaggle):
        with pytest.raises(ValueError, match="resize must be one of squash, pad, crop, but got 'fit'"):
            load(kaggle, image_size=16, resize="fit")

    def test_digits_are_square(self):
        assert load("digits", image_size=8, resize="pad").resize == "pad"
