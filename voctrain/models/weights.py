"""Weights for a new model: published ones, a voc-search checkpoint, or a file of other tools."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from voctrain.models.heads import Head, body_of, first_part, fit_head
from voctrain.models.loaded import Loaded, listed
from voctrain.models.matching import Match, find, is_counter
from voctrain.models.normalized import Normalized
from voctrain.models.published import PUBLISHED, published, tags
from voctrain.models.timm_networks import resampled, same_network
from voctrain.models.weights_file import WeightsFile, file_origin, first_line, load_file, read_file, read_state

__all__ = ["file_origin", "is_named", "is_of_encoder", "load_encoder", "load_file", "load_into"]


def is_named(weights: str) -> bool:
    """Whether these are published weights, known by name, rather than a file."""
    return weights in PUBLISHED or (weights in tags() and not Path(weights).exists())


def download(
    architecture: str, weights: str, *, image_size: int | None = None
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The state dict of published weights, and the names of its classes, if they are known.

    image_size: see `published`. Raises `ValueError` if there are none, or they are unavailable.
    """
    chosen = published(architecture, weights, image_size=image_size)
    if chosen is None:
        kind = "published weights" if weights in PUBLISHED else f"weights {weights}"
        raise ValueError(f"{architecture} has no {kind}: use --weights none or another --set architecture=NAME")
    return chosen.get(), chosen.classes


def load_into(model: Normalized, architecture: str, weights: str, head: Head, *, image_size: int | None = None) -> None:
    """Load published weights ("imagenet", or "published" for segmenters) or a file into `model`, with normalization.

    head: initialized anew if it does not fit the file's. image_size: the image size, in pixels, that the model is built
    for, if it works at one only; for the error message. `model.loaded` tells what was loaded.
    Raises `ValueError` if any other tensor is missing, of another shape, or not a finite number.
    """
    file, own = _read(weights, architecture, image_size), model.net.state_dict()
    match = _find(file, model.net, body_of(own, head), architecture)
    state = match.state
    _check_channels(file, match, model)
    sizes = [
        key for key in _misshapen(state, own) if key not in head.last or state[key].shape[1:] != own[key].shape[1:]
    ]
    if sizes and image_size is not None and file.image_size not in (None, image_size):
        raise ValueError(
            f"{file.path} was trained at image size {file.image_size}, the only one that its weights fit, but"
            f" image_size is {image_size} ({_shapes(sizes[0], state, own)}): use --image-size {file.image_size}"
        )
    anew, rest = fit_head(state, own, head, file.classes)
    model.loaded = _take(model.net, file, match, architecture, rest, anew=anew, head=head.parts)
    _adopt_normalization(model, match, architecture, weights)


def load_encoder(
    model: Normalized, encoder: nn.Module, architecture: str, weights: str, known: Collection[str]
) -> None:
    """Load "imagenet" or a classifier's file into `encoder`, the part of `model` that is a classifier without its head.

    architecture: that of the classifier, whose normalization becomes the model's. known: the names of its tensors.
    `model.loaded` tells what was loaded. Raises `ValueError` if a tensor is missing, of another shape, or not a finite
    number.
    """
    file = _read(weights, architecture)
    match = _find(file, encoder, encoder.state_dict(), architecture)
    rest = "all but the encoder is initialized anew"
    model.loaded = _take(encoder, file, match, f"the encoder {architecture}", rest, known=known)
    _adopt_normalization(model, match, architecture, weights)


def is_of_encoder(weights: str, net: nn.Module, encoder: str | None, head: Head) -> bool:
    """Whether a file is a classifier's, for the part `encoder` of a segmenter `net`, rather than the segmenter's own.

    Checkpoints name their task; other files have nothing of the segmenter between its encoder and its last layers, or,
    where it has nothing there either, no such last layers.
    """
    file, own = read_file(weights), net.state_dict()
    if file.task is not None or encoder is None:
        return file.task == "classify"
    match = find(file, net, body_of(own, head))
    between = [key for key in own if first_part(key) != encoder and key not in head.last and not is_counter(key)]
    if match is None or not between:
        return match is None or head.last.isdisjoint(match.state)
    return not any(key in match.state and match.state[key].shape == own[key].shape for key in between)


def _read(weights: str, architecture: str, image_size: int | None = None) -> WeightsFile:
    """These weights of an architecture."""
    if is_named(weights):
        state, classes = download(architecture, weights, image_size=image_size)
        return read_state(f"the published file of {architecture}", state, classes=classes or None)
    file = read_file(weights)
    if file.task and file.architecture and not same_network(file.architecture, architecture):
        raise ValueError(
            f"{weights} contains a {file.architecture}, but architecture is {architecture}: use --set"
            f" architecture={file.architecture}"
        )
    return file


def _find(file: WeightsFile, net: nn.Module, body: Collection[str], architecture: str) -> Match:
    match = find(file, net, body)
    if match is None:
        raise _misfit(file, architecture, f"its tensors have other names, such as {next(iter(file.tensors))}")
    match.state.update(resampled(net, match.state, _misshapen(match.state, net.state_dict())))
    return match


def _take(
    net: nn.Module,
    file: WeightsFile,
    match: Match,
    network: str,
    rest: str | None,
    *,
    anew: Collection[str] = (),
    head: Collection[str] = (),
    known: Collection[str] = (),
) -> Loaded:
    """Load what was found into `net`.

    rest: told of what was not. anew: tensors that may be missing. head: first parts of the names of tensors that the
    network need not have. known: names of others that it need not have.
    """
    state, own = match.state, net.state_dict()
    if wrong := _misshapen(state, own):
        raise _misfit(file, network, f"{len(wrong)} tensors of another shape: {_shapes(wrong[0], state, own)}")
    taken = [key for key in own if key in state]
    for key in taken:
        _check_numbers(file, key, state[key], own[key])
    try:
        missing, unknown = net.load_state_dict(state, strict=False)
    except (RuntimeError, AssertionError) as error:  # of modules that recognize old names and versions
        raise _misfit(file, network, first_line(error)) from None
    missing = [key for key in missing if key not in anew]
    total = len(own) - sum(is_counter(key) for key in missing)
    missing = [key for key in missing if not is_counter(key)]
    body = {first_part(key) for key in own} - set(head)
    numbered = all(part.isdecimal() for part in body)
    strange = [k for k in unknown if first_part(k) in body or (numbered and first_part(k).isdecimal())]
    strange = [key for key in strange if not is_counter(key) and key not in known]
    if missing or strange:
        lists = {"missing": missing, "unknown": strange}
        found = ", ".join(f"{len(keys)} {what} ({listed(keys)})" for what, keys in lists.items() if keys)
        raise _misfit(file, network, f"tensors: {found}")
    dtypes = {state[key].dtype for key in taken if state[key].is_floating_point()} - {torch.float32}
    return Loaded(
        source=Path(file.path).name,
        network=network,
        loaded=total - len(anew),
        total=total,
        prefix="" if file.task is not None else match.prefix,
        dtype=" and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)) or None,
        rest=rest,
        left_out=(*(match.names[key] for key in unknown if not is_counter(key)), *match.around),
    )


def _check_numbers(file: WeightsFile, key: str, there: Tensor, here: Tensor) -> None:
    """Raise `ValueError` for a tensor that the network cannot compute with."""
    if not here.is_floating_point():
        return
    if not there.is_floating_point() or there.layout is not torch.strided or there.is_meta:
        kind = "meta" if there.is_meta else there.dtype if there.layout is torch.strided else there.layout
        kind = str(kind).removeprefix("torch.")
        raise ValueError(f"{file.path} must have floating-point weights, but {key} is {kind}: convert them to float32")
    if not there.to(here.dtype).isfinite().all():
        raise ValueError(f"{file.path} must have finite weights, but {key} has others: use an earlier checkpoint")


def _adopt_normalization(model: Normalized, match: Match, architecture: str, weights: str) -> None:
    """Set the normalization that these tensors were trained with, if it is known."""
    if match.beside.keys() == {"mean", "std"}:
        model.set_normalization(match.beside["mean"], match.beside["std"])
        model.own_normalization = True
    elif chosen := published(architecture, weights if is_named(weights) else "imagenet"):
        model.set_normalization(chosen.mean, chosen.std)
        model.own_normalization = True


def _check_channels(file: WeightsFile, match: Match, model: Normalized) -> None:
    there, here = (
        tensors["mean"].numel() if "mean" in tensors else 0 for tensors in (match.beside, model.state_dict())
    )
    if there not in (0, here):
        raise ValueError(
            f"weights must match the number of image channels, but {file.path} has {there} and the data have {here}:"
            " use weights that were trained on such images"
        )


def _misshapen(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    return [key for key in own if key in state and state[key].shape != own[key].shape]


def _shapes(key: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return f"{key} is {tuple(state[key].shape)} in the file and {tuple(own[key].shape)} in the model"


def _misfit(file: WeightsFile, network: str, difference: str) -> ValueError:
    return ValueError(
        f"{file.path} does not fit {network} ({difference}): use another file, or --set architecture=NAME"
    )
