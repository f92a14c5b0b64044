"""Weights for a new model: torchvision's published ones, a voc-search checkpoint, or a plain state dict."""

import contextlib
import pickle
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from voctrain.models.normalized import Normalized, StateDict

PUBLISHED = ("imagenet", "published")  # torchvision's weights of classifiers and of segmenters
TIMEOUT = 15  # seconds without a response after which a download is aborted


def load_file(path: str | Path) -> dict[str, Any]:
    """A weights file, on the CPU: a voc-search checkpoint or a plain state dict.

    A checkpoint has at least task, config (with architecture), classes, image_size and model (a state dict that
    includes the normalization). Raises `ValueError` for a file that is missing, contains pickled objects or is neither.
    """
    if not Path(path).is_file():
        raise ValueError(f"weights must be none, imagenet or a weights file, but there is no file {str(path)!r}")
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} contains pickled objects or is not a PyTorch file: save tensors only, with"
            " torch.save(model.state_dict(), …)"
        ) from None
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path} cannot be read ({_first_line(error)}): copy or train it again") from None
    state = saved.get("model", saved) if isinstance(saved, dict) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"{path} must be a state dict or a voc-search checkpoint: save it with torch.save(model.state_dict(), …)"
        )
    required = {"task", "config", "classes", "image_size"}
    if state is not saved and not required <= saved.keys():
        missing = ", ".join(repr(key) for key in sorted(required - saved.keys()))
        raise ValueError(f"{path} is not a voc-search checkpoint (no {missing}): save a plain state_dict instead")
    return saved


def file_origin(path: str | Path) -> tuple[str | None, str | None]:
    """Task and architecture of a voc-search checkpoint; None, None for a plain state dict."""
    saved = load_file(path)
    return (saved.get("task"), _architecture(saved)) if _is_checkpoint(saved) else (None, None)


def published_weights(architecture: str) -> WeightsEnum | None:
    """torchvision's default weights of an architecture, or None if there are none."""
    try:
        return getattr(models.get_model_weights(architecture), "DEFAULT", None)
    except ValueError:  # not an architecture of torchvision
        return None


def load_into(
    model: Normalized, architecture: str, weights: str, *, head: frozenset[str], image_size: int | None = None
) -> None:
    """Load published weights ("imagenet", or "published" for segmenters) or a file into `model`, with normalization.

    head: names of the tensors that depend on the number of classes; if that differs, they keep their initial values.
    image_size: the image size, in pixels, that the model is built for, if it works at one only; for the error message.
    Raises `ValueError` if any other tensor is missing, unknown or of another shape.
    """
    source, saved = _read(weights, architecture)
    state, own = _qualified(saved["model"] if _is_checkpoint(saved) else saved), model.state_dict()
    for key in head & state.keys():
        if state[key].shape[:1] != own[key].shape[:1] and state[key].shape[1:] == own[key].shape[1:]:
            state[key] = own[key]
    _check_shapes(source, state, own, saved["image_size"] if _is_checkpoint(saved) else image_size, image_size)
    missing, unknown = model.load_state_dict(state, strict=False)
    # Auxiliary outputs are only used in training, and files without them are common.
    missing = [key for key in missing if key not in ("mean", "std") and not key.lower().startswith("net.aux")]
    if missing or unknown:
        lists = {"missing": missing, "unknown": unknown}
        found = ", ".join(f"{len(keys)} {what} (first {keys[0]})" for what, keys in lists.items() if keys)
        raise _other_model(source, f"tensors: {found}")
    _adopt_normalization(model, state, model.net, architecture)


def load_encoder(model: Normalized, encoder: nn.Module, architecture: str, weights: str) -> None:
    """Load "imagenet" or a classifier's file into `encoder`, the part of `model` that is a classifier without its head.

    architecture: that of the classifier, whose normalization becomes the model's. Raises `ValueError` if a tensor is
    missing or of another shape.
    """
    source, saved = _read(weights, architecture)
    state, own = _qualified(saved["model"] if _is_checkpoint(saved) else saved), encoder.state_dict()
    # The dilated encoders of torchvision correspond to `features` of their classifiers.
    prefix = "net.features." if not any(f"net.{key}" in state for key in own) else "net."
    found = StateDict((key, state[prefix + key]) for key in own if prefix + key in state)
    if missing := [key for key in own if key not in found and not key.endswith("num_batches_tracked")]:
        raise _other_model(source, f"{len(missing)} missing tensors (first {missing[0]})")
    if wrong := [key for key in found if found[key].shape != own[key].shape]:
        raise _other_model(source, f"{len(wrong)} tensors of another shape (first {wrong[0]})")
    found._metadata = getattr(own, "_metadata", None)
    encoder.load_state_dict(found, strict=False)
    _adopt_normalization(model, state, encoder, architecture)


def _read(weights: str, architecture: str) -> tuple[str, Mapping[str, Any]]:
    """A name for these weights of an architecture, for error messages, and their contents."""
    if weights in PUBLISHED:
        return f"the published file of {architecture}", _download(architecture)
    saved = load_file(weights)
    _check_architecture(weights, _architecture(saved), architecture)
    return weights, saved


def _adopt_normalization(model: Normalized, state: Mapping[str, Tensor], net: nn.Module, architecture: str) -> None:
    """Set the normalization that these tensors were trained with, if it is known."""
    if {"mean", "std"} <= state.keys():
        model.set_normalization(state["mean"], state["std"])
        model.own_normalization = True
    elif constants := _published_normalization(net, architecture):
        model.set_normalization(*constants)
        model.own_normalization = True


def _check_architecture(path: str, found: str | None, wanted: str) -> None:
    if found not in (None, wanted):
        raise ValueError(f"{path} contains a {found}, but architecture is {wanted}: use --set architecture={found}")


def _check_shapes(
    source: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor], trained_size: int | None, size: int | None
) -> None:
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if not wrong:
        return
    if "mean" in wrong:
        there, here = state["mean"].numel(), own["mean"].numel()
        raise ValueError(
            f"weights must match the number of image channels, but {source} has {there} and the data have {here}: use"
            " weights that were trained on such images"
        )
    first = f"{wrong[0]} is {tuple(state[wrong[0]].shape)} in the file and {tuple(own[wrong[0]].shape)} in the model"
    if size is not None and trained_size != size:
        raise ValueError(
            f"{source} was trained at image size {trained_size}, the only one that its weights fit, but image_size is"
            f" {size} ({first}): use --image-size {trained_size}"
        )
    raise _other_model(source, f"{len(wrong)} tensors of another shape: {first}")


def _other_model(source: str, difference: str) -> ValueError:
    return ValueError(f"{source} belongs to another model ({difference}): use --set architecture=NAME")


def _is_checkpoint(saved: Mapping[str, Any]) -> bool:
    return isinstance(saved.get("model"), Mapping)


def _architecture(saved: Mapping[str, Any]) -> str | None:
    return saved["config"].get("architecture") if _is_checkpoint(saved) else None


def _qualified(state: Mapping[str, Tensor]) -> StateDict:
    """A copy with the keys of a `Classifier`, from those of a classifier or its bare net, possibly in a wrapper."""
    old = "module." if all(key.startswith("module.") for key in state) else ""
    inner = {key.removeprefix(old) for key in state} - {"mean", "std"}
    new = "" if all(key.startswith("net.") for key in inner) else "net."
    # The published densenets have names with one more dot.
    names = {k: re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", new + k.removeprefix(old)) for k in state}
    renamed = StateDict((names[key], tensor) for key, tensor in state.items())
    # Versions of the modules by name, by which modules recognize old names of their tensors.
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        renamed._metadata = {(new + f"{k}.".removeprefix(old)).rstrip("."): v for k, v in versions.items()}
    elif new:
        renamed._metadata = {"net": {"version": 2}}  # unknown but for the network itself: mnasnet requires a version
    return renamed


def _published_normalization(net: nn.Module, architecture: str) -> tuple[list[float], list[float]] | None:
    """The mean and standard deviation per channel that torchvision trained with, or None if it published no weights."""
    published = published_weights(architecture)
    if published is None:
        return None
    if hasattr(net, "transform_input"):  # trained in [-1, 1]; torchvision converts to it inside the network
        return [0.5] * 3, [0.5] * 3
    transforms = published.transforms()
    return transforms.mean, transforms.std


def _download(architecture: str) -> Mapping[str, Tensor]:
    """The published state dict, from torch hub's cache or the network."""
    published = published_weights(architecture)
    if published is None:
        raise ValueError(
            f"{architecture} has no published weights: use --weights none or another --set architecture=NAME"
        )
    try:
        # torch reports a download on standard output, which belongs to the caller.
        with _socket_timeout(TIMEOUT), contextlib.redirect_stdout(sys.stderr):
            return published.get_state_dict(check_hash=True, progress=False)
    except (OSError, RuntimeError, HTTPException, EOFError, pickle.UnpicklingError) as error:
        name, folder = Path(urlparse(published.url).path).name, Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"the published weights of {architecture} are unavailable ({_first_line(error)}): run once with a network"
            f" connection, put the complete {name} (from {published.url}) into {folder}, or use --weights none"
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
