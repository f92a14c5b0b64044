"""The built-in sets: generated or downloaded once, into the cache folder."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from voctrain.data import load, named_sets, sample


def test_the_sample_is_generated_once_and_a_folder_named_sample_is_a_folder(kaggle, cache, monkeypatch):

    generated = []
    monkeypatch.setattr(sample, "make_sample", lambda folder: generated.append(shutil.copytree(kaggle, folder)))
    first, second = load("sample", image_size=8), load("sample", image_size=8)
    assert first.fingerprint == second.fingerprint
    assert len(generated) == 1
    monkeypatch.chdir(kaggle.parent)
    with pytest.raises(ValueError, match="'sample' does not exist"):
        load("./sample", image_size=8)


def test_voc2009_accepts_both_checksums_and_is_unpacked_once(devkit, cache, monkeypatch):
    from torchvision.datasets import utils, voc

    assert voc.DATASET_YEAR_DICT["2009"]["md5"] == named_sets.VOC2009_MD5[0]
    calls = []

    def fetch(url, root, md5):
        calls.append(url)
        Path(root).mkdir()
        with tarfile.open(Path(root) / "VOCtrainval_11-May-2009.tar", "w") as archive:
            archive.add(devkit, "VOCdevkit/VOC2009")
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(utils, "download_url", fetch)
    with pytest.raises(ValueError, match=r"voc2009 could not be downloaded .*corrupted"):
        load("voc2009", image_size=8)
    monkeypatch.setattr(utils, "check_integrity", lambda path, md5: md5.startswith("59065e4b"))
    assert len(load("voc2009", image_size=8).ids) == len(load("voc2009", image_size=8).ids) == 22
    assert len(calls) == 2
    assert os.listdir(cache / "voc2009") == ["VOCdevkit"]


def test_an_archive_writes_nowhere_else(cache, tmp_path, monkeypatch):
    from torchvision.datasets import utils

    (tmp_path / "evil").write_text("evil")

    def fetch(url, root, md5):
        Path(root).mkdir()
        with tarfile.open(Path(root) / "VOCtrainval_11-May-2009.tar", "w") as archive:
            archive.add(tmp_path / "evil", "../escaped")

    monkeypatch.setattr(utils, "download_url", fetch)
    with pytest.raises(ValueError, match=r"voc2009 could not be downloaded .*escaped.*unpack the archive"):
        load("voc2009", image_size=8)
    assert os.listdir(cache) == []


def test_voc2009_without_a_network(cache, monkeypatch):
    from torchvision.datasets import utils

    def fetch(url, root, md5):
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "download_url", fetch)
    with pytest.raises(ValueError, match=r"no route to host.*connect to a network, or unpack"):
        load("voc2009", image_size=8)
    assert os.listdir(cache) == []
