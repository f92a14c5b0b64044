import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from voctrain.data.array_file import open_arrays, write_arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 3)).astype(np.uint8)
SIZES = np.arange(14, dtype=np.int32).reshape(7, 2)
NONE = np.zeros((0, 5, 5, 3), np.uint8)
ARRAYS = {"images": IMAGES, "sizes": SIZES, "none": NONE}


def write_all(path):
    def fill(write):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: write("images", i, IMAGES[i : i + 1]), reversed(range(7))))
        write("sizes", 0, SIZES[:4])
        write("sizes", 4, SIZES[4:])
        return ("two are blue",)

    write_arrays(path, {name: (array.shape, str(array.dtype)) for name, array in ARRAYS.items()}, fill)


@pytest.fixture
def path(tmp_path):
    write_all(tmp_path / "new" / "x.arrays")
    return tmp_path / "new" / "x.arrays"


def test_what_was_written_is_mapped(path):
    file = open_arrays(path)
    assert file.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        found = file.arrays[name]
        assert type(found) is np.ndarray
        assert found.dtype == array.dtype
        assert not found.flags.writeable
        assert not found.flags.owndata
        np.testing.assert_array_equal(found, array)
    assert file.notes == ("two are blue",)
    assert os.listdir(path.parent) == ["x.arrays"]


@pytest.mark.parametrize("place", [0, 5, 65536, 65536 + 524, 65536 + 4096 + 3])
def test_a_changed_byte_is_noticed(path, place):
    """In the header or in an array."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert open_arrays(path) is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"arrays": {"a": 1}}', b"PK\x03\x04", os.urandom(90_000)]
)
def test_other_files_are_damaged(path, content):
    path.write_bytes(content)
    assert open_arrays(path) is None


def test_a_shorter_or_longer_file_is_damaged(path):
    content = path.read_bytes()
    for other in (content[:-1], content + b"\0"):
        path.write_bytes(other)
        assert open_arrays(path) is None
    path.unlink()
    assert open_arrays(path) is None


def test_a_copy_is_checked_once(path, monkeypatch):
    """Copying changes the modification time, but not the content."""
    path.write_bytes(path.read_bytes())
    assert abs(path.stat().st_mtime - time.time()) < 60
    assert open_arrays(path) is not None
    monkeypatch.setattr("voctrain.data.array_file._checksum", lambda file: pytest.fail("it was checked again"))
    assert open_arrays(path) is not None


def test_arrays_outlive_their_file(path):
    images = open_arrays(path).arrays["images"]
    write_all(path)
    path.unlink()
    np.testing.assert_array_equal(images, IMAGES)


def test_a_failure_leaves_nothing(tmp_path):
    def fill(write):
        write("a", 0, np.zeros((1, 2), np.uint8))
        raise ValueError("damaged image")

    with pytest.raises(ValueError, match="damaged image"):
        write_arrays(tmp_path / "x.arrays", {"a": ((3, 2), "uint8")}, fill)
    assert os.listdir(tmp_path) == []


def test_space_is_reserved_before_anything_is_computed(tmp_path):
    """10 million GB."""
    with pytest.raises(OSError, match=r"."):
        write_arrays(tmp_path / "x.arrays", {"a": ((10**7, 10**9), "uint8")}, lambda write: pytest.fail("computing"))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name, age in (("old", 7200), ("new", 60)):
        folder = tmp_path / f".x-{name}"
        folder.mkdir()
        (folder / "x.arrays").write_bytes(b"unfinished")
        os.utime(folder / "x.arrays", (time.time() - age,) * 2)
    write_all(tmp_path / "x.arrays")
    assert sorted(os.listdir(tmp_path)) == [".x-new", "x.arrays"]
