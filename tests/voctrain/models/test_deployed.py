import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from voctrain.data.resizing import RESIZE, place, resize_square, window
from voctrain.models.deployed import from_square, to_squares

SHAPES = [(50, 70), (70, 50), (21, 400), (32, 32), (9, 13), (33, 31), (500, 375)]


def unit(array):
    return torch.tensor(array).float().permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize", RESIZE)
def test_squares_are_those_of_the_data(shape, resize):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = resize_square(image, 32, resize=resize)
    squares = to_squares(unit(image), torch.arange(32), resize)
    assert squares.shape == (1, 3, 32, 32)
    assert (squares - unit(expected)).abs().max() < 1.01 / 255  # Pillow rounds after each of its two passes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("resize", "lanczos"), [("squash", False), ("pad", False), ("crop", False), ("crop", True)])
def test_maps_return_to_the_image(shape, resize, lanczos):
    square = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    part = window(*shape, resize)
    if lanczos:
        whole = Image.fromarray(square).resize((part.width, part.height), Image.Resampling.LANCZOS)
    else:
        whole = F.interpolate(torch.from_numpy(square)[None, None], part[2:], mode="bilinear")[0, 0]
    expected = place(np.asarray(whole), shape, resize)
    ones, places = [torch.ones(side) for side in shape], torch.arange(32)
    rows, columns = (from_square(*sides, places, resize, lanczos=lanczos) for sides in (ones, ones[::-1]))
    assert (rows @ torch.from_numpy(square) @ columns.mT).numpy() == pytest.approx(expected, abs=1e-4)
