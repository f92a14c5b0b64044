"""Masks as supervision of a classifier: its feature maps must locate each class, in training or for good."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from voctrain.models.auxiliary import outputs_of
from voctrain.models.linear_maps import CELL, LinearMaps
from voctrain.models.maps import as_map, hooked, map_shapes

STRIDES = (8, 32)  # input pixels per cell: finer maps come too early to know classes, coarser ones cannot locate them
SHARE = 0.02  # the part of an image's cells that decides whether it contains a class


class MaskHeads(nn.Module):
    """A 1×1 convolution on the last feature map of each size between `STRIDES`, for training only.

    A (shallow) network without maps of these sizes gets a head on its last map. net: maps (B, 3, image_size,
    image_size). Raises `ValueError` if it has no square feature maps.
    """

    def __init__(self, net: nn.Module, *, image_size: int, num_classes: int):
        super().__init__()
        sizes = range(image_size // STRIDES[1], math.ceil(image_size / STRIDES[0]) + 1)
        self.maps = StageMaps(net, image_size, sizes)
        self.convs = nn.ModuleList(nn.Conv2d(width, 1 + num_classes, 1) for width in self.maps.widths)

    def forward(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The outputs of `net`, and the logits (B, 1 + num_classes, h, w) of each map, background first."""
        outputs, maps = self.maps.of(net, images)
        return outputs, [conv(each) for conv, each in zip(self.convs, maps, strict=True)]


class MaskPooling(nn.Module):
    """Linear layers that classify the cells of an image, the surest of which contribute to the image's classes.

    The logit of a class gets the log odds of the class's mean probability in the `SHARE` of cells where that is
    highest. net: maps (B, 3, image_size, image_size). Raises `ValueError` if it has no square feature maps.
    located: whether the training masks have a class, (num_classes,); other classes get nothing.
    """

    located: Tensor

    def __init__(self, net: nn.Module, *, image_size: int, num_classes: int):
        super().__init__()
        self.maps = StageMaps(net, image_size, range(2, math.ceil(image_size / CELL) + 1))
        self.layers = LinearMaps(self.maps.widths, 1 + num_classes)
        self.register_buffer("located", torch.ones(num_classes))

    def forward(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The outputs, and in a list the logits of cells, (B, 1 + num_classes, h, w), background first."""
        (logits, *auxiliary), maps = self.maps.of(net, images)
        cells = self.layers(maps, images)
        log_p = cells.float().log_softmax(1)[:, 1:].flatten(2)
        count = max(1, round(SHARE * int(log_p.shape[-1])))  # a shape is a tensor while torch.jit traces
        # In log space, so that gradients do not vanish where a class is improbable.
        mean = (log_p.topk(count, -1).values.logsumexp(-1) - math.log(count)).clamp(max=-1e-6)
        odds = mean - (-mean.expm1()).log()
        return (logits + self.located * odds, *auxiliary), [cells]


class StageMaps:
    """The last maps of a network of each of some sizes, from fine to coarse, or else its very last one.

    widths: their channels.
    """

    def __init__(self, net: nn.Module, image_size: int, sizes: Sequence[int]):
        images = torch.zeros(1, 3, image_size, image_size)
        self.indices: list[int] | None = None  # among those that timm knows of its networks
        if hasattr(net, "forward_intermediates"):
            training = net.training
            with torch.no_grad():
                shapes = dict(enumerate(each.shape for each in _intermediates(net.eval(), images)[1]))
            net.train(training)
            self.indices = _last(shapes, sizes)
            self.widths = [shapes[index][1] for index in self.indices]
        else:
            found = map_shapes(net, images, as_map)
            if not found:
                raise ValueError(
                    "mask_loss and mask_pooling require a network with square feature maps: use another, or omit them"
                )
            # The shallowest modules end the network's stages; the last ones are inside the first block of the next.
            shallow = sorted(found, key=lambda name: -name.count("."))
            self.names = _last({name: found[name] for name in shallow}, sizes)
            self.widths = [found[name][1] for name in self.names]

    def of(self, net: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The outputs of `net` for images, and its maps (B, C, h, w)."""
        if self.indices is not None:
            final, maps = _intermediates(net, images, self.indices)
            head: Any = net
            return (head.forward_head(final),), maps
        found: dict[str, Any] = {}
        with hooked(net, self.names, found.__setitem__):
            outputs = outputs_of(net(images))
        maps = [as_map(net, found[name]) for name in self.names]
        return outputs, [each for each in maps if each is not None]


def _last(shapes: Mapping[Any, torch.Size], sizes: Sequence[int]) -> list[Any]:
    """The last keys of each of these sizes, from fine to coarse, or else the very last one."""
    last = {shape[-1]: key for key, shape in shapes.items() if shape[-1] in sizes}
    return [last[size] for size in sorted(last, reverse=True)] or [list(shapes)[-1]]


def _intermediates(net: Any, images: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
    return net.forward_intermediates(images, indices=indices, norm=True)
