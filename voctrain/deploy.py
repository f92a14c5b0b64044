"""Trained models out of their files, as functions of images of any size.

    from voctrain.deploy import load

    model = load("final.pt")  # or model.safetensors
    output = model(images)  # float32 (B, 3, H, W) in [0, 1]

`model.output` tells what the output is.
"""

import importlib
import json
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import safetensors.torch
from safetensors import safe_open

from voctrain.models.deployed import Deployed
from voctrain.models.weights import load_file


def load(path: str | Path) -> Deployed:
    """The model in a checkpoint of a run, or in a file that `write_safetensors` wrote, in eval mode on the CPU.

    Raises `ValueError` for any other file.
    """
    checkpoint = is_zipfile(path) or not Path(path).is_file()
    saved = load_file(path) if checkpoint else read_safetensors(path)
    if "task" not in saved:
        raise ValueError(f"{path} is not a voc-search checkpoint: give a run's best.pt or final.pt")
    return deploy(saved)


def deploy(saved: dict[str, Any]) -> Deployed:
    """The model of a checkpoint."""
    return importlib.import_module(f"voctrain.{saved['task']}").deploy(saved)


def describe(saved: dict[str, Any], model: Deployed) -> dict[str, str]:
    """All that a checkpoint tells of its model, as text: strings as they are, everything else as JSON."""
    told = {name: value for name, value in saved.items() if name not in ("model", "members")}
    if "members" in saved:
        told["members"] = [{name: each[name] for name in ("name", "plain", "mirrored")} for each in saved["members"]]
    told |= {"input": model.input, "output": model.output}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


def write_safetensors(path: str | Path, saved: dict[str, Any], description: dict[str, str]) -> None:
    """Write the weights of a checkpoint with its description as metadata."""
    weights = {name: tensor.contiguous() for name, tensor in saved["model"].items()}
    Path(path).write_bytes(safetensors.torch.save(weights, description))  # save_file lets nobody else read it


def read_safetensors(path: str | Path) -> dict[str, Any]:
    """The checkpoint in a file of `write_safetensors`. Raises `ValueError` for any other file."""
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
        return {"model": weights, "task": told.pop("task"), **{name: _value(text) for name, text in told.items()}}
    except (OSError, safetensors.SafetensorError, KeyError):
        raise ValueError(f"{path} is not a model that voc-search exported: give such a file, or a checkpoint") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
