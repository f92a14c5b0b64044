import argparse
import json
import os
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from voctrain.models.weights_file import file_origin, load_file, read_file

WEIGHT = torch.arange(6.0).view(2, 3)
CHECKPOINT = {"task": "segment", "config": {"architecture": "unet"}, "classes": ["cat"], "image_size": 64}


@pytest.fixture
def save(tmp_path):
    def write(content, name="w.pt", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write


def error_of(path):
    """The message, which must be one line that names the file."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        read_file(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        argparse.Namespace(lr=0.1, out=Path("runs"), size=torch.Size([2]), nested=argparse.Namespace(a=None)),
        np.float64(0.7),
        np.float32(0.7),
        np.int64(7),
        np.bool_(True),
        np.str_("resnet"),
        np.zeros((2, 2)),
        torch.__version__,
        torch.float16,
        {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
        [1, None, "text", (2.5, {"a"})],
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_values_of_training_scripts_beside_the_tensors_do_not_matter(save, extra, legacy):
    path = save({"extra": extra, "model": {"w": WEIGHT}}, _use_new_zipfile_serialization=not legacy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(read_file(path).tensors["model.w"], WEIGHT)


def test_names_of_old_numpy_are_known(save):
    """NumPy 1 called its module numpy.core."""
    path = save({"w": WEIGHT, "best": np.float64(0.5), "all": np.ones(2)}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(read_file(path).tensors["w"], WEIGHT)


def test_tensors_are_found_in_dictionaries_and_keep_the_order(save):
    inner = OrderedDict(b=WEIGHT, a=WEIGHT + 1)
    inner._metadata = OrderedDict({"": {"version": 1}, "block": {"version": 2}})
    file = read_file(save({"epoch": 3, "best": torch.tensor(0.5), "checkpoint": {"model": inner}, "list": [WEIGHT]}))
    assert list(file.tensors) == ["best", "checkpoint.model.b", "checkpoint.model.a"]
    assert file.owners == {
        "best": "",
        "checkpoint.model.b": "checkpoint.model.",
        "checkpoint.model.a": "checkpoint.model.",
    }
    assert file.versions == {"checkpoint.model.": {"version": 1}, "checkpoint.model.block.": {"version": 2}}


def test_a_checkpoint_keeps_what_it_tells(save):
    path = save({**CHECKPOINT, "model": {"net.w": WEIGHT}, "thresholds": [0.5]})
    file = read_file(path)
    assert (file.task, file.architecture, file.classes, file.image_size) == ("segment", "unet", ("cat",), 64)
    assert list(file.tensors) == ["net.w"]
    assert load_file(path)["thresholds"] == [0.5]
    assert file_origin(path) == ("segment", "unet")


@pytest.mark.parametrize(
    ("arch", "origin"), [("resnet18", ("classify", "resnet18")), ("my_net", (None, None)), (18, (None, None))]
)
def test_the_architecture_of_training_scripts_is_known(save, arch, origin):
    path = save({"arch": arch, "state_dict": {"w": WEIGHT}})
    assert file_origin(path) == origin
    assert load_file(path).keys() == {"state_dict.w"}


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file({"w": WEIGHT, "half": WEIGHT.half()}, tmp_path / name, metadata={"format": "pt"})
    file = read_file(tmp_path / name)
    assert torch.equal(file.tensors["w"], WEIGHT)
    assert file.tensors["half"].dtype == torch.float16
    assert file.task is None


def test_an_exported_model_is_its_checkpoint(tmp_path):
    told = {key: value if isinstance(value, str) else json.dumps(value) for key, value in CHECKPOINT.items()}
    save_file({"net.w": WEIGHT}, tmp_path / "model.safetensors", metadata=told | {"thresholds": "[0.5]"})
    file = read_file(tmp_path / "model.safetensors")
    assert (file.task, file.architecture, file.classes, file.image_size) == ("segment", "unet", ("cat",), 64)
    assert list(file.tensors) == ["net.w"]
    assert load_file(tmp_path / "model.safetensors")["thresholds"] == [0.5]


class Config:
    """An object of somebody's own code."""


class Runs:
    """Runs a command when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_objects_are_refused_and_do_not_run(save, tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    options = {"_use_new_zipfile_serialization": not legacy}
    message = error_of(save({"model": {"w": WEIGHT}, "config": Config()}, **options))
    assert "contains pickled objects (" in message
    assert "Config), which may run code when it is loaded: save its tensors only" in message
    assert "(posix.mkdir)" in error_of(save({"model": {"w": WEIGHT}, "x": Runs()}, **options))
    assert not (tmp_path / "ran").exists()
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2)}):
        message = error_of(save(content, **options))
        assert "contains a whole pickled model (torch.nn.modules.linear.Linear)" in message
        assert message.endswith("save its tensors only, with torch.save(model.state_dict(), …)")


@pytest.mark.parametrize("content", [[1, 2], [WEIGHT], WEIGHT, 3, None, (WEIGHT,), "text", np.zeros(2)])
def test_other_values_than_dictionaries_are_refused(save, content):
    kind = "other values" if isinstance(content, np.ndarray) else f"a {type(content).__name__}"
    assert f"must contain a state dict, but contains {kind}: save" in error_of(save(content))


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, {"model": {"epoch": 3}}, {"w": [WEIGHT]}, {**CHECKPOINT, "model": {}}]
)
def test_dictionaries_without_tensors_are_refused(save, content):
    assert "contains no tensors: save" in error_of(save(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: copy or download it again"),
        (b"<!DOCTYPE html><html>not found</html>", "is a web page: download the file itself"),
        (b"\n<HTML lang='en'>", "is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an XML file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n0000", "is an HDF5 file"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (b"hello", "is neither a file of torch.save nor of safetensors"),
        (b'{"error": 404}', "is neither a file of torch.save nor of safetensors"),
        (bytes(range(256)), "is neither a file of torch.save nor of safetensors"),
        (pickle.dumps({"w": WEIGHT.numpy()}), "is not a file of torch.save with its default pickle protocol"),
        ((2).to_bytes(8, "little") + b"{}", "contains no tensors"),
        ((20).to_bytes(8, "little") + b"{}", "cannot be read"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, message):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    assert message in error_of(path)


def test_archives_of_other_kinds_are_named(tmp_path, save):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(nn.Linear(3, 2), WEIGHT).save(str(tmp_path / "script.pt"))
    assert "is a TorchScript archive, which is a program" in error_of(tmp_path / "script.pt")
    np.savez(tmp_path / "arrays.npz", w=WEIGHT.numpy())
    assert "is a zip archive without a PyTorch state dict" in error_of(tmp_path / "arrays.npz")
    assert "default pickle protocol" in error_of(save({"w": WEIGHT}, pickle_protocol=4))


@pytest.mark.parametrize("kept", [1, 20, 63, 64, 65, 500, -100, -1])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(tmp_path, save, kind, kept):
    path = tmp_path / "w.pt"
    if kind == "safetensors":
        save_file({"w": WEIGHT.repeat(9, 9)}, path)
    else:
        save({"w": WEIGHT.repeat(9, 9)}, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:kept])
    assert error_of(path)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
    edits=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=4),
)
def test_damaged_files_are_read_or_refused(tmp_path_factory, kind, edits):
    """Never a traceback, and never a crash: values beside the tensors are not even built."""
    path = tmp_path_factory.mktemp("files") / "w.pt"
    if kind == "safetensors":
        save_file({"w": WEIGHT}, path)
    else:
        extras = {"args": argparse.Namespace(a=Path(".")), "best": np.float64(1), "all": np.ones(3)}
        torch.save({"state_dict": {"w": WEIGHT}, **extras}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    for place, removed, added in edits:
        place %= len(content) or 1
        content = content[:place] + added + content[place + removed :]
    path.write_bytes(content)
    message = ""
    try:
        assert read_file(path).tensors
    except ValueError as error:
        message = str(error)
    assert not message or re.fullmatch(rf"{re.escape(str(path))} [^\n]+", message)


def test_a_missing_file_is_named(tmp_path):
    assert "there is no file" in error_of(tmp_path / "none.pt")
    assert "there is no file" in error_of(tmp_path)
