"""A network that takes images in [0, 1]: its normalization is a part of it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """A network `net` and the normalization of its input, (B, C, H, W) in [0, 1]; `forward` is the subclass's.

    own_normalization: whether the normalization came with the weights; else it is the identity until it is set.
    """

    def __init__(self, net: nn.Module, *, in_channels: int = 3):
        super().__init__()
        self.net = net
        self.own_normalization = False
        self.register_buffer("mean", torch.zeros(1, in_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, in_channels, 1, 1))

    def set_normalization(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Subtract `mean` and divide by `std`, a value a channel each, in units of [0, 1] images.

        Of a channel that never varies, std counts as 1e-6: it becomes 0.
        """
        self.mean.copy_(torch.as_tensor(mean).view_as(self.mean))
        self.std.copy_(torch.as_tensor(std).view_as(self.std).clamp(min=1e-6))

    def normalized(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As torch's; a dict that lost torch's record of versions, which mnasnet asks for, counts as up to date."""
        if not hasattr(state_dict, "_metadata"):
            state_dict = OrderedDict(state_dict)
            state_dict._metadata = self.state_dict()._metadata
        return super().load_state_dict(state_dict, *args, **kwargs)
