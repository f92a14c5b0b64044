"""A network that takes images in [0, 1] and normalizes them itself."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from voctrain.models.loaded import Loaded


class StateDict(OrderedDict[str, Tensor]):
    """A state dict with torch's record of module versions, which torch attaches to a plain `OrderedDict`."""

    _metadata: Any


class Normalized(nn.Module):
    """A network `net` and the normalization of its input, (B, C, H, W) in [0, 1]; subclasses define `forward`.

    own_normalization: whether the normalization came with the weights. If not, it is the identity until it is set.
    loaded: what was loaded from pretrained weights; None without them.
    backbone: what the names of its parameters begin with that pretrained weights of classifiers have.
    last_layers: the names in `net` of the layers whose outputs are the classes.
    frozen_norms: the names of its batch normalizations whose statistics do not change in training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, *, in_channels: int = 3):
        super().__init__()
        self.net = net
        self.own_normalization = False
        self.loaded: Loaded | None = None
        self.backbone: tuple[str, ...] = ()
        self.last_layers: tuple[str, ...] = ()
        self.frozen_norms: tuple[str, ...] = ()
        self.register_buffer("mean", torch.zeros(1, in_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, in_channels, 1, 1))

    def set_normalization(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Subtract `mean` and divide by `std`, one value per channel each, in units of [0, 1] images.

        The std of a constant channel counts as 1e-6, so that the channel becomes 0.
        """
        self.mean.copy_(torch.as_tensor(mean).view_as(self.mean))
        self.std.copy_(torch.as_tensor(std).view_as(self.std).clamp(min=1e-6))

    def normalized(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen_norms:
            self.get_submodule(name).eval()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Like torch's, but a dict without torch's record of versions, which mnasnet reads, counts as current."""
        if not hasattr(state_dict, "_metadata"):
            state_dict = StateDict(state_dict)
            state_dict._metadata = getattr(self.state_dict(), "_metadata", None)
        return super().load_state_dict(state_dict, *args, **kwargs)
