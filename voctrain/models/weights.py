"""Weights for a new model: torchvision's published ones, or a file of ours or of torchvision."""

import contextlib
import pickle
import re
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from voctrain.models.normalized import Normalized

PUBLISHED = ("imagenet", "published")  # torchvision's: of its classifiers, of its segmenters
TIMEOUT = 15  # seconds without an answer after which a download is given up


def load_file(path: str | Path) -> dict[str, Any]:
    """A weights file, on the CPU: a checkpoint of ours or a plain state dict.

    Ours holds at least task, config (with architecture), classes, image_size and model (a state dict, normalization
    included). Raises `ValueError` for a file that is missing, holds pickled objects or is neither of the two.
    """
    if not Path(path).is_file():
        raise ValueError(f"weights must be none, imagenet or a weights file, but there is no file {str(path)!r}")
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds pickled objects or is no PyTorch file: save tensors only, torch.save(model.state_dict(), …)"
        ) from None
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path} cannot be read ({_first_line(error)}): copy or train it again") from None
    state = saved.get("model", saved) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} must hold a state dict or a checkpoint of ours: save it by torch.save(model.state_dict(), …)"
        )
    if state is not saved and not {"task", "config", "classes", "image_size"} <= saved.keys():
        raise ValueError(f"{path} is no checkpoint of ours, for it lacks config or classes: save its state dict alone")
    return saved


def file_origin(path: str | Path) -> tuple[str | None, str | None]:
    """Task and architecture that a weights file of ours was trained with; None, None of a plain state dict."""
    saved = load_file(path)
    return (saved.get("task"), _architecture(saved)) if _is_ours(saved) else (None, None)


def published_weights(architecture: str) -> WeightsEnum | None:
    """torchvision's default weights of an architecture, where there are any."""
    try:
        return models.get_model_weights(architecture).DEFAULT
    except (ValueError, AttributeError):  # not torchvision's; torchvision has none
        return None


def load_into(
    model: Normalized, architecture: str, weights: str, *, head: frozenset[str], image_size: int | None = None
) -> None:
    """Load published weights ("imagenet", of segmenters "published") or a file into `model`, normalization included.

    head: the names of its tensors that depend on the number of classes; of another number, they stay as they are.
    image_size: of a model that is bound to one, in pixels, for the message.
    Raises `ValueError` where any other tensor is missing, unknown or of another shape.
    """
    source, saved = _read(weights, architecture)
    state, own = _qualified(saved["model"] if _is_ours(saved) else saved), model.state_dict()
    for key in head & state.keys():
        if state[key].shape[:1] != own[key].shape[:1] and state[key].shape[1:] == own[key].shape[1:]:
            state[key] = own[key]
    _check_shapes(source, state, own, saved["image_size"] if _is_ours(saved) else image_size, image_size)
    missing, unknown = model.load_state_dict(state, strict=False)
    # Auxiliary outputs are for training only, and files without them are common.
    missing = [key for key in missing if key not in ("mean", "std") and not key.lower().startswith("net.aux")]
    if missing or unknown:
        lists = {"missing": missing, "unknown": unknown}
        found = ", ".join(f"{len(keys)} {what} (first {keys[0]})" for what, keys in lists.items() if keys)
        raise _other_model(source, f"tensors {found}")
    _adopt_normalization(model, state, model.net, architecture)


def load_encoder(model: Normalized, encoder: nn.Module, architecture: str, weights: str) -> None:
    """Load "imagenet" or a classifier's file into `encoder`, the part of `model` that is a classifier without its head.

    architecture: of that classifier. Its normalization becomes the model's. Raises `ValueError` where a tensor is
    missing or of another shape.
    """
    source, saved = _read(weights, architecture)
    state, own = _qualified(saved["model"] if _is_ours(saved) else saved), encoder.state_dict()
    # torchvision's dilated encoders are what their classifiers call features.
    prefix = "net.features." if not any(f"net.{key}" in state for key in own) else "net."
    found = OrderedDict((key, state[prefix + key]) for key in own if prefix + key in state)
    if missing := [key for key in own if key not in found and not key.endswith("num_batches_tracked")]:
        raise _other_model(source, f"{len(missing)} missing tensors (first {missing[0]})")
    if wrong := [key for key in found if found[key].shape != own[key].shape]:
        raise _other_model(source, f"{len(wrong)} tensors of another shape (first {wrong[0]})")
    found._metadata = own._metadata
    encoder.load_state_dict(found, strict=False)
    _adopt_normalization(model, state, encoder, architecture)


def _read(weights: str, architecture: str) -> tuple[str, Mapping[str, Any]]:
    """What to call these weights of an architecture, and what they hold."""
    if weights in PUBLISHED:
        return f"the published file of {architecture}", _download(architecture)
    saved = load_file(weights)
    _check_architecture(weights, _architecture(saved), architecture)
    return weights, saved


def _adopt_normalization(model: Normalized, state: Mapping[str, Tensor], net: nn.Module, architecture: str) -> None:
    """Set the normalization that these tensors were trained with, where it is known."""
    if {"mean", "std"} <= state.keys():
        model.set_normalization(state["mean"], state["std"])
        model.own_normalization = True
    elif constants := _published_normalization(net, architecture):
        model.set_normalization(*constants)
        model.own_normalization = True


def _check_architecture(path: str, found: str | None, wanted: str) -> None:
    if found not in (None, wanted):
        raise ValueError(f"{path} is of a {found}, but the architecture is {wanted}: --set architecture={found}")


def _check_shapes(
    source: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor], trained_size: int | None, size: int | None
) -> None:
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if not wrong:
        return
    if "mean" in wrong:
        there, here = state["mean"].numel(), own["mean"].numel()
        raise ValueError(
            f"weights must match the number of image channels, but {source} has {there} and the data have {here}: give"
            " weights that were trained on such images"
        )
    first = f"{wrong[0]} is {tuple(state[wrong[0]].shape)} there and {tuple(own[wrong[0]].shape)} here"
    if size is not None and trained_size != size:
        raise ValueError(
            f"{source} was trained at image size {trained_size}, which this architecture is bound to, but image_size is"
            f" {size} ({first}): --image-size {trained_size}"
        )
    raise _other_model(source, f"{len(wrong)} of another shape ({first})")


def _other_model(source: str, difference: str) -> ValueError:
    return ValueError(
        f"{source} is of another model, {difference}: is it another architecture? --set architecture=NAME"
    )


def _is_ours(saved: Mapping[str, Any]) -> bool:
    return isinstance(saved.get("model"), Mapping)


def _architecture(saved: Mapping[str, Any]) -> str | None:
    return saved["config"].get("architecture") if _is_ours(saved) else None


def _qualified(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """A copy of the dict with the keys of a `Classifier`, whether of one, of its bare net or of either in a wrapper."""
    old = "module." if all(key.startswith("module.") for key in state) else ""
    inner = {key.removeprefix(old) for key in state} - {"mean", "std"}
    new = "" if all(key.startswith("net.") for key in inner) else "net."
    # torchvision's first densenets had names of one dot more.
    names = {k: re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", new + k.removeprefix(old)) for k in state}
    renamed = OrderedDict((names[key], tensor) for key, tensor in state.items())
    # Versions of the modules, by their names: from them old modules know that their tensors have old names.
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        renamed._metadata = {(new + f"{k}.".removeprefix(old)).rstrip("."): v for k, v in versions.items()}
    elif new:
        renamed._metadata = {"net": {"version": 2}}  # old but for the network itself: mnasnet insists on a version
    return renamed


def _published_normalization(net: nn.Module, architecture: str) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation a channel that torchvision trained with, if it did."""
    published = published_weights(architecture)
    if published is None:
        return None
    if hasattr(net, "transform_input"):  # trained in [-1, 1], to which torchvision converts inside the network
        return [0.5] * 3, [0.5] * 3
    transforms = published.transforms()
    return transforms.mean, transforms.std


def _download(architecture: str) -> Mapping[str, Tensor]:
    """The published state dict, from torch hub's cache or the network."""
    published = published_weights(architecture)
    if published is None:
        raise ValueError(f"{architecture} has no published weights: --weights none, or another --set architecture=NAME")
    try:
        # torch reports a download on standard output, which is the caller's.
        with _socket_timeout(TIMEOUT), contextlib.redirect_stdout(sys.stderr):
            return published.get_state_dict(check_hash=True, progress=False)
    except (OSError, RuntimeError, HTTPException, EOFError, pickle.UnpicklingError) as error:
        name, folder = Path(urlparse(published.url).path).name, Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"the published weights of {architecture} cannot be had ({_first_line(error)}): run once with a network,"
            f" or put {name} (whole, from {published.url}) into {folder}, or use --weights none"
        ) from None


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
