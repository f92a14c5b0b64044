import numpy as np
import pytest

from voctrain.contact_sheet import Tile, sheet

RED, GRAY = (255, 0, 0), (90, 90, 90)


@pytest.fixture
def page():
    red = np.full((4, 4, 3), RED, np.uint8)
    gray = np.full((4, 4, 1), 90, np.uint8)
    return sheet([Tile((red, gray), ("two pictures",)), Tile((gray,), ("word " * 40,))], across=1, size=(100, 50))


def test_pictures_of_a_tile_are_side_by_side_and_tiles_below_each_other(page):
    # 6 pixels of gap; a tile is 50 of picture, 6, the two lines of 16 that the longest text takes, and 6
    assert page.size == (6 + 2 * 106 + 6, 6 + 2 * 94)
    assert page.getpixel((6, 6)) == RED
    assert page.getpixel((105, 55)) == RED
    assert page.getpixel((112, 6)) == GRAY
    assert page.getpixel((6, 6 + 94)) == GRAY


def test_photographs_are_averaged_and_masks_keep_their_pixels():
    board = np.uint8(np.indices((4, 4)).sum(0) % 2 * 255)[..., None].repeat(3, axis=2)  # a chess board
    small, large = (sheet([Tile((board,), ())], 1, (side, side)) for side in (2, 8))
    assert small.getpixel((6, 6)) == (128, 128, 128)
    assert [large.getpixel((6 + x, 6))[0] for x in range(5)] == [0, 0, 255, 255, 0]


def test_a_sheet_of_nothing_is_white():
    assert np.asarray(sheet([], across=2)).min() == 255


def test_a_text_ends_after_two_lines(page):
    assert np.asarray(page)[6 + 94 + 50 :].min() < 100, "no text"
    assert np.asarray(page)[6 + 94 + 50 + 2 * 16 + 6 :].min() == 255
