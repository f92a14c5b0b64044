"""What is read of a set's bytes, and when it is read again."""

import os
import time

import numpy as np
import pytest

from voctrain.data import content, load
from voctrain.data.content import read_content
from voctrain.data.layouts import read_layout


@pytest.fixture
def reads(monkeypatch):
    """The number of times that all bytes were read."""
    calls = []
    real = content.fingerprint
    monkeypatch.setattr(content, "fingerprint", lambda listing: calls.append(1) or real(listing))
    return calls


@pytest.fixture
def settled(monkeypatch):
    """As if all files had been there for a while."""
    monkeypatch.setattr(content, "SETTLED", -1.0)


def change_pixel(root):
    image = np.load(root / "train/img/train_3.npy")
    image[0, 0, 0] ^= 1
    np.save(root / "train/img/train_3.npy", image)


def test_bytes_are_read_once(kaggle, cache, reads, settled):
    first = load(kaggle, image_size=8)
    for other in (load(kaggle, image_size=9), load(kaggle, image_size=8, resize="pad")):
        assert other.fingerprint == first.fingerprint
        assert other.class_source == first.class_source
    assert len(reads) == 1
    moved = kaggle.rename(kaggle.parent / "moved")
    assert load(moved, image_size=8).fingerprint == first.fingerprint
    assert len(reads) == 1
    assert len(os.listdir(cache / "contents")) == 1


def test_the_same_content_is_read_from_the_cache_as_from_the_files(devkit, cache, reads, settled):
    first, second = (read_content(read_layout(devkit)) for _ in range(2))
    assert first == second
    assert len(reads) == 1
    colored = first.classes
    assert (type(second.classes.names), second.classes) == (tuple, colored)


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_change_of_the_same_size_is_noticed_even_if_the_time_is_put_back(kaggle, cache, reads, settled, keep_times):
    before = load(kaggle, image_size=16)
    file = kaggle / "train/img/train_3.npy"
    status = file.stat()
    time.sleep(0.02)  # the file system's clock ticks every few milliseconds
    change_pixel(kaggle)
    assert file.stat().st_size == status.st_size
    if keep_times:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = load(kaggle, image_size=16)
    assert after.fingerprint != before.fingerprint
    assert len(reads) == 2


def test_files_that_have_just_changed_are_read_again(kaggle, cache, reads):
    load(kaggle, image_size=8)
    load(kaggle, image_size=8)
    assert len(reads) == 2
    assert not (cache / "contents").exists()


def test_other_code_reads_again(kaggle, cache, reads, settled, monkeypatch):
    load(kaggle, image_size=8)
    monkeypatch.setattr(content, "_code", lambda: "newer")
    load(kaggle, image_size=8)
    assert len(reads) == 2


@pytest.mark.parametrize("text", ["", "{", "{'classes': 1}", "[]", "{'x': {}}", "\0"])
def test_a_damaged_answer_is_replaced(kaggle, cache, reads, settled, text):
    first = read_content(read_layout(kaggle))
    (file,) = (cache / "contents").iterdir()
    file.write_text(text)
    assert read_content(read_layout(kaggle)) == first
    assert read_content(read_layout(kaggle)) == first
    assert len(reads) == 2


def test_bad_files_are_found_once(kaggle, cache, reads, settled, monkeypatch):
    (kaggle / "train/img/train_5.npy").write_bytes(b"not an array")
    (kaggle / "test/img/test_1.npy").write_bytes(b"")
    first = load(kaggle, image_size=8, skip_bad=True)
    assert (len(first.ids), len(first.test_ids)) == (43, 2)
    monkeypatch.setattr(content, "_bad_files", lambda listing: pytest.fail("they were searched again"))
    second = load(kaggle, image_size=8, skip_bad=True)
    assert second.warnings == first.warnings
    assert "2 images with bad files are left out: 5, 1" in first.warnings
