"""Files that are either whole or refused."""

import errno
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from search.run_folder.files import StorageError, read_arrays, read_torch, write_arrays, write_torch

ARRAYS = {"ids": np.array(["a", "bb"]), "y_prob": np.linspace(0, 1, 600, dtype=np.float32).reshape(30, 20)}
CHECKPOINT = {"model": {"weight": torch.linspace(0, 1, 2000).view(50, 40)}, "classes": ["cat", "dog"], "score": 0.5}


def same_arrays(found):
    return found.keys() == ARRAYS.keys() and all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


def same_checkpoint(found):
    weight = found["model"]["weight"]
    return torch.equal(weight, CHECKPOINT["model"]["weight"]) and found == {**CHECKPOINT, "model": {"weight": weight}}


@pytest.mark.parametrize(
    ("write", "read", "content", "same"),
    [
        (write_arrays, read_arrays, ARRAYS, same_arrays),
        (write_torch, read_torch, CHECKPOINT, same_checkpoint),
    ],
)
def test_whatever_bit_flips_nothing_else_is_ever_read(write, read, content, same, tmp_path):
    draw, file = random.Random(0), tmp_path / "file"
    write(file, content)
    whole = file.read_bytes()
    assert same(read(file))
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        found = read(file)
        refused += found is None
        assert found is None or same(found)  # some bits, such as a time, say nothing of the content
    assert refused > 300


def test_a_torn_or_missing_file_is_none(tmp_path):
    write_torch(tmp_path / "a.pt", CHECKPOINT)
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-10])
    assert read_torch(tmp_path / "a.pt") is None
    assert read_torch(tmp_path / "b.pt") is None
    assert read_arrays(tmp_path / "b.npz") is None


def test_a_full_disk_is_told_with_the_space_that_is_free_and_needed(tmp_path, monkeypatch):
    file, beside = tmp_path / "a.pt", []

    def fill(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    def space(path):
        beside.extend(path.iterdir())
        return shutil._ntuple_diskusage(64_000_000, 61_000_000, 3_000_000)

    monkeypatch.setattr(Path, "write_bytes", fill)
    monkeypatch.setattr(shutil, "disk_usage", space)
    with pytest.raises(StorageError) as told:
        write_torch(file, {"weight": torch.zeros(500_000)})
    assert str(told.value).startswith(f"cannot write {file}: No space left on device (the disk at ")
    assert str(told.value).endswith(" has 3 MB of 64 MB free, 2 MB needed)")
    assert not beside  # what is left of the file takes no space when that is measured
