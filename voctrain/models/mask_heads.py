"""Masks as auxiliary supervision of a classifier: in training, its deepest feature maps must locate each class."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from voctrain.models.maps import hooked, map_shapes

STRIDES = (8, 32)  # input pixels per cell: finer maps come too early to know classes, coarser ones cannot locate them


class MaskHeads(nn.Module):
    """A 1×1 convolution on the last feature map of each size between `STRIDES`, for training only.

    A (shallow) network without maps of these sizes gets a head on its last map. net: maps (B, 3, image_size,
    image_size). Raises `ValueError` if it has no square feature maps.
    """

    def __init__(self, net: nn.Module, *, image_size: int, num_classes: int):
        super().__init__()
        shapes = map_shapes(net, torch.zeros(1, 3, image_size, image_size))
        finest, coarsest = math.ceil(image_size / STRIDES[0]), image_size // STRIDES[1]
        deepest = {shape[-1]: name for name, shape in shapes.items() if coarsest <= shape[-1] <= finest}
        if not shapes:
            raise ValueError("mask_loss requires a network with feature maps (B, C, H, W): use another, or mask_loss=0")
        self.names = tuple(deepest.values()) or (list(shapes)[-1],)
        self.convs = nn.ModuleList(nn.Conv2d(shapes[name][1], 1 + num_classes, 1) for name in self.names)

    @contextlib.contextmanager
    def watch(self, net: nn.Module) -> Iterator[list[Tensor]]:
        """Collect the logits (B, 1 + num_classes, h, w) of each map, background first, while `net` runs forward."""
        found: dict[str, Tensor] = {}
        logits: list[Tensor] = []
        with hooked(net, self.names, found.__setitem__):
            yield logits
        logits += [conv(found[name]) for name, conv in zip(self.names, self.convs, strict=True)]
