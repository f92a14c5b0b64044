"""Weights to begin with: torchvision's published ones, or those of a file of ours or of torchvision's."""

import pickle
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer


def resolve(weights: str, architectures: Iterable[str]) -> None:
    """Make sure, before any training, that `weights` can be had for these architectures: downloads or reads them.

    Raises `ValueError` saying what to do where they cannot.
    """
    if weights == "imagenet":
        for name in architectures:
            _download(name)
    elif weights != "none":
        from voctrain.models import build_classifier

        saved = load_file(weights)
        size = saved["image_size"] if _is_ours(saved) else 224
        for name in architectures:
            build_classifier(name, weights=weights, image_size=size)


def published(name: str) -> torchvision.models.WeightsEnum:
    """torchvision's default weights of an architecture. Raises `ValueError` where it publishes none."""
    try:
        return torchvision.models.get_model_weights(name).DEFAULT
    except ValueError:
        raise ValueError(f"there are no ImageNet weights of {name}: leave it out, or use --weights none") from None


def _download(name: str) -> dict[str, Tensor]:
    weights = published(name)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        file = weights.url.rpartition("/")[2]
        raise ValueError(
            f"the ImageNet weights of {name} cannot be downloaded ({error}): put {file} from a machine with network into"
            f" {torch.hub.get_dir()}/checkpoints, or use --weights none"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def load_file(path: str | Path) -> dict[str, Any]:
    """A weights file: a checkpoint of ours, or a plain state dict. Nothing in it is executed.

    Raises `ValueError` for a file that is missing or not one.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no weights file {path}: use none, imagenet, a file, or a run") from None
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, UnicodeDecodeError, ValueError, KeyError):
        raise ValueError(f"{path} is not a weights file that can be read safely: give a state dict or a best.pt") from None
    tensors = saved.get("model") if _is_ours(saved) else saved
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ValueError(f"{path} holds no state dict: give one of torchvision's, or a best.pt of ours")
    return saved


def file_architecture(path: str | Path) -> str | None:
    """The architecture that a weights file names; a plain state dict names none."""
    saved = load_file(path)
    return saved["config"]["architecture"] if _is_ours(saved) else None


def fill(model: nn.Module, weights: str, name: str, head: set[str]) -> None:
    """Load `weights` into a Classifier and give it their normalisation.

    head: the names of the tensors that depend on the number of classes; where their shapes differ, the model's own stay.
    Raises `ValueError` where any other tensor is missing or has another shape.
    """
    saved = _download(name) if weights == "imagenet" else load_file(weights)
    tensors = saved["model"] if _is_ours(saved) else saved
    tensors = {k.removeprefix("module.").removeprefix("net."): v for k, v in tensors.items()}
    mean, std = tensors.pop("mean", None), tensors.pop("std", None)
    own = model.net.state_dict()
    wrong = [k for k in own if k not in head and (k not in tensors or tensors[k].shape != own[k].shape)]
    wrong += [k for k in tensors if k not in own]
    if wrong:
        there, here = (str(tuple(d[wrong[0]].shape)) if wrong[0] in d else "absent" for d in (tensors, own))
        trained = f", trained at {saved['image_size']} px" if _is_ours(saved) else ""
        raise ValueError(
            f"{weights} does not hold weights of {name}: {len(wrong)} tensors differ, such as {wrong[0]}, {there} there"
            f" and {here} here{trained}: --set architecture=NAME names another"
        )
    fitting = {k: v for k, v in tensors.items() if v.shape == own[k].shape}
    model.net.load_state_dict(fitting, strict=False)
    if mean is not None:
        model.set_normalisation(mean.flatten().tolist(), std.flatten().tolist())
    else:
        transforms = published(name).transforms()
        model.set_normalisation(transforms.mean, transforms.std)
    model.own_normalisation = True


def _is_ours(saved: Any) -> bool:
    return isinstance(saved, dict) and {"task", "config", "model", "image_size"} <= saved.keys()
