import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from voctrain.submission import decode, encode, planes, write_submission


def test_hand_computed_codes():
    assert encode(np.array([0, 1, 1, 0, 1])) == "2 2 5 1"
    assert encode(np.zeros((3, 2))) == ""
    assert encode(np.ones((2, 2))) == "1 4"
    assert encode(np.array([[1, 0], [0, 1]])) == "1 1 4 1"


@given(arrays.arrays(bool, arrays.array_shapes(max_dims=3, max_side=12)))
def test_decode_inverts_encode(mask):
    assert np.array_equal(decode(encode(mask), mask.shape), mask)


@given(st.lists(st.booleans(), min_size=1))
def test_runs_are_maximal_and_ascending(bits):
    numbers = [int(n) for n in encode(np.array(bits)).split()]
    starts, lengths = numbers[::2], numbers[1::2]
    assert sum(lengths) == sum(bits)
    # Maximal runs: there is a gap between consecutive runs.
    assert all(b > a + n for a, n, b in zip(starts, lengths, starts[1:], strict=False))


@pytest.mark.parametrize("code", ["1", "0 1", "1 0", "3 1 1 1", "1 2 2 1", "4 2", "a b", "1.5 1"])
def test_an_invalid_code_is_rejected(code):
    with pytest.raises(ValueError, match=r"a run-length code must contain|runs must be ascending"):
        decode(code, (4,))


def test_planes_of_a_label_map():
    stack = planes(np.array([[0, 20], [1, 1]]), 20)
    assert stack.shape == (20, 2, 2)
    assert stack[0].tolist() == [[False, False], [True, True]]
    assert stack[19].tolist() == [[False, True], [False, False]]
    with pytest.raises(ValueError, match="got 255"):
        planes(np.array([[255]]), 20)


def test_the_file_has_two_rows_per_image(tmp_path):
    classes = np.zeros(20, dtype=bool)
    classes[[0, 19]] = True
    write_submission(tmp_path / "s.csv", [("7", classes, None), ("x", classes[::-1], np.array([[0, 2], [2, 0]]))])
    # Plane 1 of (20, 2, 2) begins at position 5, so its positions 2 and 3 are 6 and 7.
    assert (tmp_path / "s.csv").read_text() == (
        "Id,Predicted\n7_classification,1 1 20 1\n7_segmentation,\nx_classification,1 1 20 1\nx_segmentation,6 2\n"
    )
