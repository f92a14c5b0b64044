"""Weights files as people have them: of torch.save, with the state dict anywhere in it, and of safetensors."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor
from torchvision import models

CHECKPOINT = {"task", "config", "classes", "image_size", "model"}  # the keys that every voc-search checkpoint has
DEPTH = 4  # dictionaries in dictionaries in which tensors are looked for
REPAIR = "save its tensors only, with torch.save(model.state_dict(), …)"
# Classes and functions of plain values in files of training scripts: settings, paths, and NumPy's numbers.
IGNORED = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.torch_version.TorchVersion",
)
# What is often saved under the name of a weights file, by its first bytes in lower case.
SIGNATURES = {
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"<?xml": "an XML file: download the file itself",
    b"version https://git-lfs": "a Git LFS pointer: get the file itself with git lfs pull",
    b"\x89hdf": "an HDF5 file: convert it to a PyTorch state dict",
    b"\x1f\x8b": "compressed with gzip: decompress it",
    b"\x93numpy": f"a NumPy array: {REPAIR}",
}


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, and what it tells of them.

    tensors: by name; the names of those in nested dictionaries begin with the keys of these, with dots between.
    owners: by tensor, the name of its dictionary with a dot, such as "state_dict."; "" is the file's own.
    versions: torch's record of module versions, by which modules recognize old names of their tensors; by the module's
        name with a dot. None if there is none.
    task, image_size: of a voc-search checkpoint. classes: the names of the outputs, without background, if known.
    """

    path: str
    tensors: dict[str, Tensor]
    owners: dict[str, str]
    versions: dict[str, Any] | None = None
    task: str | None = None
    architecture: str | None = None
    classes: tuple[str, ...] | None = None
    image_size: int | None = None


def load_file(path: str | Path) -> dict[str, Any]:
    """The contents of a weights file, on the CPU: those of a voc-search checkpoint, or else its tensors by name.

    A checkpoint has at least task, config (with architecture), classes, image_size and model (a state dict that
    includes the normalization). Raises `ValueError` like `read_file`.
    """
    saved = _contents(path)
    return dict(saved) if _is_checkpoint(saved) else read_state(path, saved).tensors


def read_file(path: str | Path) -> WeightsFile:
    """The tensors of a weights file, on the CPU, wherever in it they are.

    Raises `ValueError` for a file that is missing, damaged or of another kind, that has no tensors, or that contains
    pickled objects; numbers and paths as training scripts save them (`argparse.Namespace`, NumPy) are no obstacle.
    """
    saved = _contents(path)
    if not _is_checkpoint(saved):
        return read_state(path, saved)
    config = saved["config"] if isinstance(saved["config"], Mapping) else {}
    return read_state(
        path,
        saved["model"],
        task=saved["task"],
        architecture=config.get("architecture"),
        classes=tuple(map(str, saved["classes"])),
        image_size=saved["image_size"],
    )


def file_origin(path: str | Path) -> tuple[str | None, str | None]:
    """The task and the architecture that a file names: a voc-search checkpoint, or the `arch` of training scripts."""
    file = read_file(path)
    if file.task is None and file.architecture in models.list_models(module=models):
        return "classify", file.architecture
    return (None, None) if file.task is None else (file.task, file.architecture)


def read_state(path: str | Path, saved: Any, **details: Any) -> WeightsFile:
    """The tensors in these contents of a file. Raises `ValueError` if there are none."""
    if not isinstance(saved, Mapping):
        kind = "other values" if isinstance(saved, _Ignored) else f"a {type(saved).__name__}"
        raise ValueError(f"{path} must contain a state dict, but contains {kind}: {REPAIR}")
    tensors: dict[str, Tensor] = {}
    owners: dict[str, str] = {}
    versions: dict[str, Any] = {}

    def collect(found: Mapping[Any, Any], owner: str, depth: int) -> None:
        for key, value in found.items():
            if isinstance(value, Tensor) and not value.is_nested:  # those have no shape
                tensors[f"{owner}{key}"], owners[f"{owner}{key}"] = value, owner
            elif isinstance(value, Mapping) and depth:
                collect(value, f"{owner}{key}.", depth - 1)
        for module, version in (getattr(found, "_metadata", None) or {}).items():
            versions[f"{owner}{module}." if module else owner] = version

    collect(saved, "", DEPTH)
    if not tensors:
        raise ValueError(f"{path} contains no tensors: {REPAIR}")
    arch = saved.get("arch")
    details = {"architecture": arch if isinstance(arch, str) else None, **details}
    return WeightsFile(str(path), tensors, owners, versions or None, **details)


def _is_checkpoint(saved: Any) -> bool:
    if not isinstance(saved, Mapping) or not saved.keys() >= CHECKPOINT:
        return False
    return isinstance(saved["model"], Mapping) and isinstance(saved["classes"], list | tuple)


def _contents(path: str | Path) -> Any:
    """What torch.save or safetensors has written, read without running code of the file."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"weights must be none, imagenet or a weights file, but there is no file {str(path)!r}")
    try:
        with open(file, "rb") as content:
            start = content.read(64)
        if start[8:9] == b"{":  # after the length of a header in JSON
            return _safetensors(file)
        _check_kind(file, start)
        with (
            torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED]),
            warnings.catch_warnings(action="ignore"),
        ):
            return torch.load(file, weights_only=True, map_location="cpu")
    except _OtherKind as kind:
        raise ValueError(f"{path} {kind}") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        kind = _objects(file, named[1]) if named else "is not a file of torch.save with its default pickle protocol"
        raise ValueError(f"{path} {kind}: {REPAIR}") from None
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path} cannot be read ({first_line(error)}): copy, download or save it again") from None


def _safetensors(file: Path) -> dict[str, Any]:
    """Tensors by name, or the checkpoint of an exported model, which has everything but its weights as metadata."""
    tensors = safetensors.torch.load_file(file)
    with safe_open(file, "pt") as content:
        told = content.metadata() or {}
    if not told.keys() >= CHECKPOINT - {"model"}:
        return dict(tensors)
    return {"model": tensors, **{name: _value(text) for name, text in told.items()}}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # text as it is
        return text


class _OtherKind(Exception):
    """What a file is instead of a weights file, and the repair."""


def _check_kind(file: Path, start: bytes) -> None:
    """Raise `_OtherKind` for a file that torch.load would not explain."""
    if not start:
        raise _OtherKind("is empty: copy or download it again")
    for signature, kind in SIGNATURES.items():
        if start.lstrip().lower().startswith(signature):
            raise _OtherKind(f"is {kind}")
    if not start.startswith((b"PK", b"\x80")):
        raise _OtherKind(f"is neither a file of torch.save nor of safetensors: {REPAIR}")
    if start.startswith(b"\x80"):  # a pickle, the format of PyTorch before 1.6
        return
    if not zipfile.is_zipfile(file):
        raise _OtherKind("is incomplete: copy or download it again")
    with zipfile.ZipFile(file) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise _OtherKind(
            "is a TorchScript archive, which is a program: save its tensors only, with"
            " torch.save(torch.jit.load(FILE).state_dict(), …)"
        )
    if "data.pkl" not in names:
        raise _OtherKind(f"is a zip archive without a PyTorch state dict: {REPAIR}")


def _objects(file: Path, named: str) -> str:
    """What a file with pickled objects is. named: the first of their classes."""
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # a file of the old format
        classes = [named]
    whole = any(name.startswith(("torch.nn.modules.", "torchvision.models.", "timm.models.")) for name in classes)
    what = "a whole pickled model" if whole else "pickled objects"
    return f"contains {what} ({named}), which may run code when it is loaded"


class _Ignored:
    """Stands for a value beside the tensors, so that nothing of its own class runs, or crashes on a damaged file."""

    def __new__(cls, *args: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
