import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from voctrain.data import Data, DataSource, cache_dir, decode, load, original_masks

pytestmark = pytest.mark.usefixtures("cache")


class TestFingerprint:
    def test_it_is_of_the_content_not_of_name_or_size(self, kaggle):
        before = load(kaggle, image_size=8)
        other = kaggle.rename(kaggle.parent / "renamed")
        assert load(other, image_size=9).fingerprint == before.fingerprint
        int(before.fingerprint, 16)

    @pytest.mark.parametrize("part", ["train/img/train_3.npy", "train/seg/train_3.npy", "test/img/test_1.npy"])
    def test_a_changed_pixel_changes_it_and_the_data(self, kaggle, part):
        before = load(kaggle, image_size=16)
        array = np.load(kaggle / part)
        np.save(kaggle / part, array - (array > 100).astype(np.uint8) * 100 if "img" in part else array * 0)
        after = load(kaggle, image_size=16)
        assert after.fingerprint != before.fingerprint
        name = {"train/img": "images", "train/seg": "masks", "test/img": "test_images"}[part.rsplit("/", 1)[0]]
        assert (getattr(after, name) != getattr(before, name)).any()

    def test_a_changed_label_changes_it_and_the_data(self, kaggle):
        before = load(kaggle, image_size=8)
        table = kaggle / "train/train_set.csv"
        table.write_text(table.read_text().replace("0\n", "1\n", 1))  # of row 0 the last class
        after = load(kaggle, image_size=8)
        assert after.fingerprint != before.fingerprint
        assert after.labels[0, -1] == 1


def same(a: Data, b: Data) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Data.__dataclass_fields__)


class TestCache:
    def test_images_are_decoded_once_a_size(self, kaggle, monkeypatch):
        built = []
        monkeypatch.setattr(decode, "decode_images", lambda *a, real=decode.decode_images: built.append(a) or real(*a))
        first, second = load(kaggle, image_size=8), load(kaggle, image_size=8)
        assert len(built) == 1
        assert same(first, second)
        assert type(second.images) is np.ndarray  # no memmap: it would be copied for each worker
        assert load(kaggle, image_size=9).images.shape[1] == 9
        assert len(built) == 2

    @pytest.mark.parametrize("damage", ["flipped byte", "truncated", "empty", "other file"])
    def test_a_broken_cache_is_rebuilt(self, kaggle, cache, damage):
        first = load(kaggle, image_size=8)
        (path,) = (cache / "sets").iterdir()
        intact = path.read_bytes()
        spoiled = bytearray(intact)
        spoiled[3000] ^= 1  # a pixel of the first array
        spoiled = {"flipped byte": spoiled, "truncated": intact[:-1000], "empty": b"", "other file": b"PK\x03\x04 no"}
        path.write_bytes(spoiled[damage])
        assert same(load(kaggle, image_size=8), first)
        assert path.stat().st_size == len(intact)
        assert os.listdir(cache / "sets") == [path.name]

    def test_several_at_once(self, kaggle, cache):
        with ThreadPoolExecutor(4) as pool:
            first, *others = pool.map(lambda _: load(kaggle, image_size=8), range(4))
        assert all(same(first, other) for other in others)
        assert len(os.listdir(cache / "sets")) == 1

    def test_without_a_cache_folder_it_goes_on_with_a_warning(self, kaggle, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        data = load(kaggle, image_size=8)
        assert len(data.images) == 44
        assert "set XDG_CACHE_HOME" in data.warnings[-1]
        with pytest.raises(ValueError, match=r"sample needs a cache folder .* set XDG_CACHE_HOME"):
            load("sample", image_size=8)

    def test_its_folder(self, monkeypatch, tmp_path):
        assert cache_dir() == tmp_path / "cache" / "voctrain"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_dir() == tmp_path / ".cache" / "voctrain"


class TestSplit:
    def test_with_split(self, kaggle):
        data = load(kaggle, image_size=8)
        ids = list(data.ids)
        split = data.with_split(ids[10:][::-1], ids[:10])
        assert split.train.tolist() == list(range(10, 44))
        assert split.val.tolist() == list(range(10))
        assert split.train.dtype == split.val.dtype == np.int64
        assert split.images is data.images

    @pytest.mark.parametrize(
        ("train", "val"), [(range(44), [0]), (range(43), []), (range(44), ["x"]), ([*range(44), 3], [])]
    )
    def test_with_other_ids(self, kaggle, train, val):
        with pytest.raises(ValueError, match="each id of the data exactly once, but 1 do not match"):
            load(kaggle, image_size=8).with_split(map(str, train), map(str, val))

    def test_all_train(self, kaggle):
        data = load(kaggle, image_size=8).all_train()
        assert data.train.tolist() == list(range(44))
        assert data.val.shape == (0,)
        assert data.train.dtype == data.val.dtype == np.int64


class TestSource:
    def test_original_masks_are_read_at_their_own_sizes_from_any_working_directory(self, kaggle, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        data = pickle.loads(pickle.dumps(load("kaggle", image_size=8)))
        assert data.source == DataSource(str(kaggle))
        monkeypatch.chdir("/")
        for number, mask in zip(("7", "3"), original_masks(data, ("7", "3")), strict=True):
            np.testing.assert_array_equal(mask, np.load(kaggle / f"train/seg/train_{number}.npy"))

    def test_masks_of_val_and_missing_masks(self, devkit):
        (devkit / "SegmentationClass/a_30.png").unlink()
        (devkit / "Annotations/a_30.xml").write_text("<a><object><name>dog</name></object></a>")
        data = load(devkit, image_size=8, use_val=True)
        assert data.source == DataSource(str(devkit), use_val=True)
        void, mask = original_masks(data.all_train(), ("a_30", "a_31"))
        assert void.shape == tuple(data.sizes[30])
        assert (void == 255).all()
        assert set(np.unique(mask)) == {0, 12, 255}

    def test_data_without_original_files(self, kaggle):
        made = dataclasses.replace(load(kaggle, image_size=8), source=None)
        for data in (made, load("digits", image_size=8)):
            with pytest.raises(ValueError, match="these data have none"):
                next(original_masks(data, data.ids))


class TestNames:
    def test_the_sample_is_drawn_once_and_a_folder_of_that_name_is_another(self, kaggle, cache, monkeypatch):
        from voctrain.data import sample

        drawn = []
        monkeypatch.setattr(sample, "make_sample", lambda folder: drawn.append(shutil.copytree(kaggle, folder)))
        assert same(load("sample", image_size=8), load("sample", image_size=8))
        assert len(drawn) == 1
        monkeypatch.chdir(kaggle.parent)
        with pytest.raises(ValueError, match="'sample' is not there"):
            load("./sample", image_size=8)

    def test_voc2009_accepts_both_sums_and_is_unpacked_once(self, devkit, cache, monkeypatch):
        from torchvision.datasets import utils, voc

        from voctrain.data import named_sets

        assert voc.DATASET_YEAR_DICT["2009"]["md5"] == named_sets.VOC2009_MD5[0]
        calls = []

        def fetch(url, root, md5):
            calls.append(url)
            Path(root).mkdir()
            (Path(root) / "VOCtrainval_11-May-2009.tar").touch()
            raise RuntimeError("File not found or corrupted.")

        def unpack(archive, root):
            assert archive.is_file()
            shutil.copytree(devkit, Path(root) / "VOCdevkit" / "VOC2009")

        monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
        monkeypatch.setattr(utils, "extract_archive", unpack)
        with pytest.raises(ValueError, match=r"voc2009 could not be downloaded .*corrupted"):
            load("voc2009", image_size=8)
        monkeypatch.setattr(utils, "check_integrity", lambda path, md5: md5.startswith("59065e4b"))
        assert len(load("voc2009", image_size=8).ids) == len(load("voc2009", image_size=8).ids) == 22
        assert len(calls) == 2
        assert os.listdir(cache / "voc2009") == ["VOCdevkit"]

    def test_voc2009_without_a_network(self, cache, monkeypatch):
        from torchvision.datasets import utils

        def fetch(url, root, md5):
            raise OSError("no route to host")

        monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
        with pytest.raises(ValueError, match=r"no route to host.*connect to a network, or unpack"):
            load("voc2009", image_size=8)
        assert os.listdir(cache) == []


def test_importing_is_light():
    code = "import sys, voctrain.data.__main__; print(*{'torch', 'torchvision', 'pandas', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.realdata
@pytest.mark.skipif("VOC_ROOT" not in os.environ, reason="VOC_ROOT names no devkit")
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
    """44 labeled images and 3 test images; from the cache nothing is decoded."""
    told = []
    load(kaggle, image_size=8, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 47) for done in range(48)]
    told.clear()
    load(kaggle, image_size=8, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 47)]
