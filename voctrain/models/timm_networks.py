"""timm's networks, by their names there: `timm/NAME[.TAG]`, or `NAME[.TAG]` if torchvision has no such network.

The tag says which of several published weights are meant; the network is the same.
"""

import functools
import math
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, list_pretrained, split_model_name_tag
from torch import Tensor, nn
from torchvision import models

PREFIX = "timm/"
STEP = 32  # sides of the input of networks with a fixed size are multiples of it, which all patches and windows allow
PATCH_14 = "patch14"  # a part of the names of networks whose patches do not divide it


def name_of(architecture: str) -> str | None:
    """The name in timm, with its tag; None if the architecture is not one of timm's."""
    name = architecture.removeprefix(PREFIX)
    plain = split_model_name_tag(name)[0]
    if (name == architecture and name in _torchvision_names()) or not is_model(plain):
        return None
    return name if name == plain or name in _pretrained() else None


def same_network(architecture: str, other: str) -> bool:
    """Whether two names mean the same network, of timm or not; tags make no difference."""
    name, other_name = (name_of(each) or each for each in (architecture, other))
    return split_model_name_tag(name)[0] == split_model_name_tag(other_name)[0]


def build(name: str, *, image_size: int, **options: Any) -> nn.Module:
    """The network for images of side `input_size(name, image_size)`; options: of `timm.create_model`."""
    with warnings.catch_warnings(action="ignore"):  # of modules that timm has moved
        return timm.create_model(name, **size_options(name, image_size), **options)


def size_options(name: str, image_size: int) -> dict[str, int]:
    """The option of `timm.create_model` for a network that takes images of one size only."""
    return {"img_size": input_size(name, image_size)} if _is_fixed(name) else {}


def input_size(name: str, image_size: int) -> int:
    """The size nearest to `image_size` at which the network works."""
    if not _is_fixed(name):
        return max(image_size, STEP, *(settings(name).min_input_size or (0,))[1:])
    step = 14 if PATCH_14 in name else STEP
    return max(1, math.floor(image_size / step + 0.5)) * step


def resampled(net: nn.Module, state: Mapping[str, Tensor], wrong: Collection[str]) -> dict[str, Tensor]:
    """Those of the tensors `wrong` that timm can fit to the image size of `net`: position embeddings and the like.

    state: the state dict of such a network for images of another size. Other networks have none.
    """
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is None or not wrong:
        return {}
    own = net.state_dict()
    try:
        found = convert(dict(state), net)
        return {key: found[key] for key in wrong if key in found and found[key].shape == own[key].shape}
    except Exception:  # of a file that does not fit for other reasons
        return {}


def names() -> list[str]:
    """The names of all networks, without tags."""
    return timm.list_models()


def settings(name: str) -> PretrainedCfg:
    """What timm knows of the network's weights, by default of the best known."""
    found = get_pretrained_cfg(name)
    return PretrainedCfg() if found is None else found


@functools.cache
def tags() -> frozenset[str]:
    """The tags of all published weights."""
    return frozenset(split_model_name_tag(name)[1] for name in _pretrained())


def _is_fixed(name: str) -> bool:
    """Whether the network is built for one size of images, having position embeddings or the like."""
    return settings(name).fixed_input_size


@functools.cache
def _pretrained() -> frozenset[str]:
    return frozenset(list_pretrained())


@functools.cache
def _torchvision_names() -> frozenset[str]:
    return frozenset(models.list_models())
