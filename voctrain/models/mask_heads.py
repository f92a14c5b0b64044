"""Masks as supervision of a classifier: its feature maps must locate each class, in training or for good."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from voctrain.models import timm_networks
from voctrain.models.auxiliary import outputs_of
from voctrain.models.linear_maps import CELL, LinearMaps
from voctrain.models.maps import as_map, hooked, map_shapes

STRIDES = (8, 32)  # input pixels per cell: finer maps come too early to know classes, coarser ones cannot locate them
DEPTH = 2  # of modules: a network's parts and their parts, but not what is inside of a block
SHARE = 0.02  # of the cells, which decide whether an image has a class


class MaskHeads(nn.Module):
    """A 1×1 convolution on the last feature map of each size between `STRIDES`, for training only.

    A (shallow) network without maps of these sizes gets a head on its last map. net: maps (B, 3, image_size,
    image_size). Raises `ValueError` if it has no square feature maps.
    """

    def __init__(self, net: nn.Module, *, image_size: int, num_classes: int):
        super().__init__()
        sizes = range(image_size // STRIDES[1], math.ceil(image_size / STRIDES[0]) + 1)
        widths = _last_maps(net, image_size, sizes)
        self.names = tuple(widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, 1 + num_classes, 1) for width in widths.values())

    def forward(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The outputs of `net`, and the logits (B, 1 + num_classes, h, w) of each map, background first."""
        outputs, maps = _with_maps(net, self.names, images)
        return outputs, [conv(each) for conv, each in zip(self.convs, maps, strict=True)]


class MaskPooling(nn.Module):
    """Linear layers that classify cells, of which the surest have a say in the classes of the image.

    To the logit of a class they add the log odds of the class's mean probability in the `SHARE` of cells where that is
    greatest. net: maps (B, 3, image_size, image_size). Raises `ValueError` if it has no square feature maps.
    """

    def __init__(self, net: nn.Module, *, image_size: int, num_classes: int):
        super().__init__()
        widths = _last_maps(net, image_size, range(2, image_size // CELL + 1))
        self.names = tuple(widths)
        self.layers = LinearMaps(tuple(widths.values()), 1 + num_classes)

    def forward(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The outputs, and in a list the logits of cells, (B, 1 + num_classes, h, w), background first."""
        (logits, *auxiliary), maps = _with_maps(net, self.names, images)
        cells = self.layers.cell_logits(maps, images)
        probabilities = cells.float().softmax(1)[:, 1:].flatten(2)
        count = int(probabilities.shape[-1])  # a tensor while torch.jit traces
        surest = probabilities.topk(max(1, round(SHARE * count)), -1).values
        return (logits + surest.mean(-1).logit(eps=1e-6), *auxiliary), [cells]

    def maps(self, net: nn.Module, images: Tensor) -> list[Tensor]:
        return _with_maps(net, self.names, images)[1]


def _last_maps(net: nn.Module, image_size: int, sizes: Sequence[int]) -> dict[str, int]:
    """The modules with the last map of each of these sizes, from fine to coarse, and the channels of these maps."""
    images = torch.zeros(1, 3, image_size, image_size)
    shapes = {name: shape for name, shape in map_shapes(net, images, as_map).items() if name.count(".") < DEPTH}
    if not shapes:
        raise ValueError("mask_loss requires a network with feature maps (B, C, H, W): use another, or mask_loss=0")
    stages = {name: shapes[name] for name in timm_networks.stages(net) if name in shapes}
    if len({shape[-1] for shape in stages.values()}) > 1:  # without what the classes alone need: it learns too much
        shapes = stages
    last = {shape[-1]: name for name, shape in shapes.items() if shape[-1] in sizes}
    names = [last[size] for size in sorted(last, reverse=True)] or [list(shapes)[-1]]
    return {name: shapes[name][1] for name in names}


def _with_maps(net: nn.Module, names: Sequence[str], images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    found: dict[str, Any] = {}
    with hooked(net, names, found.__setitem__):
        outputs = outputs_of(net(images))
    maps = [as_map(found[name]) for name in names]
    return outputs, [each for each in maps if each is not None]
