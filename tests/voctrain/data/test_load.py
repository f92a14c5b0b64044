"""What `load` adds to reading files: the fingerprint, the cache and progress."""

import errno
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from voctrain.data import Data, cache_dir, decode, load

pytestmark = pytest.mark.usefixtures("cache")


class TestFingerprint:
    def test_it_depends_on_the_content_but_not_on_the_name_or_the_size(self, kaggle):
        before = load(kaggle, image_size=8)
        other = kaggle.rename(kaggle.parent / "renamed")
        assert load(other, image_size=9).fingerprint == before.fingerprint
        int(before.fingerprint, 16)

    @pytest.mark.parametrize("part", ["train/img/train_3.npy", "train/seg/train_3.npy", "test/img/test_1.npy"])
    def test_a_changed_pixel_changes_the_fingerprint_and_the_data(self, kaggle, part):
        before = load(kaggle, image_size=16)
        array = np.load(kaggle / part)
        np.save(kaggle / part, array - (array > 100).astype(np.uint8) * 100 if "img" in part else array * 0)
        after = load(kaggle, image_size=16)
        assert after.fingerprint != before.fingerprint
        name = {"train/img": "images", "train/seg": "masks", "test/img": "test_images"}[part.rsplit("/", 1)[0]]
        assert (getattr(after, name) != getattr(before, name)).any()

    def test_a_changed_label_changes_the_fingerprint_and_the_data(self, kaggle):
        before = load(kaggle, image_size=8)
        table = kaggle / "train/train_set.csv"
        table.write_text(table.read_text().replace("0\n", "1\n", 1))  # the last class of row 0
        after = load(kaggle, image_size=8)
        assert after.fingerprint != before.fingerprint
        assert after.labels[0, -1] == 1


def same(a: Data, b: Data) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in Data.__dataclass_fields__ if name != "file"
    )


class TestCache:
    def test_images_are_decoded_once_per_size(self, kaggle, monkeypatch):
        built = []
        monkeypatch.setattr(decode, "decode_images", lambda *a, real=decode.decode_images: built.append(a) or real(*a))
        first, second = load(kaggle, image_size=8), load(kaggle, image_size=8)
        assert len(built) == 1
        assert same(first, second)
        assert type(second.images) is np.ndarray
        assert not second.images.flags.owndata
        assert load(kaggle, image_size=9).images.shape[1] == 9
        assert len(built) == 2

    @pytest.mark.parametrize("damage", ["flipped byte", "truncated", "empty", "other file"])
    def test_a_damaged_cache_is_rebuilt(self, kaggle, cache, damage):
        first = load(kaggle, image_size=8)
        (path,) = (cache / "sets").iterdir()
        intact = path.read_bytes()
        spoiled = bytearray(intact)
        spoiled[70_000] ^= 1  # a pixel of the first array
        spoiled = {"flipped byte": spoiled, "truncated": intact[:-1000], "empty": b"", "other file": b"PK\x03\x04 no"}
        path.unlink()  # its pages are mapped: those who change them in place change `first`, too
        path.write_bytes(spoiled[damage])
        assert same(load(kaggle, image_size=8), first)
        assert path.stat().st_size == len(intact)
        assert os.listdir(cache / "sets") == [path.name]

    def test_concurrent_loads(self, kaggle, cache):
        with ThreadPoolExecutor(4) as pool:
            first, *others = pool.map(lambda _: load(kaggle, image_size=8), range(4))
        assert all(same(first, other) for other in others)
        assert len(os.listdir(cache / "sets")) == 1

    def test_a_full_cache_is_told_with_the_space_that_is_free_and_needed(self, kaggle, tmp_path, monkeypatch):
        def refuse(*arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        said = rf"not writable \(no space left for \d+ MB, {tmp_path}/cache/voctrain has \d+ MB free\): free space, or"
        assert re.search(said, load(kaggle, image_size=16).warnings[-1])

    def test_without_a_writable_cache_folder_loading_only_warns(self, kaggle, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        data = load(kaggle, image_size=8)
        assert len(data.images) == 44
        assert "set XDG_CACHE_HOME" in data.warnings[-1]
        with pytest.raises(ValueError, match=r"sample needs a writable cache folder.* set XDG_CACHE_HOME"):
            load("sample", image_size=8)

    def test_location(self, monkeypatch, tmp_path):
        assert cache_dir() == tmp_path / "cache" / "voctrain"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_dir() == tmp_path / ".cache" / "voctrain"


def test_importing_the_command_loads_no_heavy_module():
    code = "import sys, voctrain.data.__main__; print(*{'torch', 'torchvision', 'pandas', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.realdata
@pytest.mark.skipif("VOC_ROOT" not in os.environ, reason="VOC_ROOT is not set")
def test_real_data():
    data = load(os.environ["VOC_ROOT"], image_size=96)
    assert (len(data.ids), len(data.test_ids)) == (472, 447)
    counts = [22, 18, 22, 17, 23, 19, 28, 65, 37, 44, 24, 59, 52, 21, 151, 23, 31, 24, 18, 26]
    assert data.labels.sum(0).tolist() == counts
    assert np.abs(data.labels[data.val].sum(0) - np.array(counts) / 5).max() <= 1.5
    assert data.sizes.max() == 500
    assert set(np.unique(data.masks)) == {*range(21), 255}
    assert data.warnings == ()


def test_progress_counts_the_images_as_they_are_decoded(kaggle, cache):
    """44 labeled and 3 test images are decoded; the second call reads the cache."""
    calls = []
    load(kaggle, image_size=8, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 47) for done in range(48)]
    calls.clear()
    load(kaggle, image_size=8, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 47)]


def test_larger_copies_are_for_training_only(tmp_path, monkeypatch):
    """They are the same images and masks at another size; the small ones stay what they are."""
    small, both = load("sample", image_size=32), load("sample", image_size=32, store_size=48)
    large = load("sample", image_size=48)
    for name in ("images", "masks", "labels", "test_images"):
        np.testing.assert_array_equal(getattr(both, name), getattr(small, name))
    np.testing.assert_array_equal(both.detail, large.images)
    np.testing.assert_array_equal(both.detail_masks, large.masks)
    assert small.detail is load("sample", image_size=32, store_size=32).detail is None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(both)).detail, both.detail)
    monkeypatch.setattr("voctrain.data.MOST_DETAIL", 40 * 40 * 4 * len(both.ids))
    assert load("sample", image_size=32, store_size=48).detail.shape[1:] == (40, 40, 3)
    monkeypatch.setattr("voctrain.data.MOST_DETAIL", 1000)
    assert load("sample", image_size=32, store_size=48).detail is None
