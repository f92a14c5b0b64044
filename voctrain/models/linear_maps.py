"""Linear layers on a network's feature maps, which classify each cell of an image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 4  # pixels per side of a cell


class LinearMaps(nn.ModuleList):
    """A linear layer on each of several maps and on the mean of the last one, whose outputs are added cell by cell.

    They have few parameters, which can start as a probe (voctrain.pixel_probe). widths: the channels of the maps.
    """

    def __init__(self, widths: Sequence[int], num_classes: int):
        layers = [nn.Conv2d(width, num_classes, 1, bias=False) for width in widths]
        super().__init__([*layers, nn.Conv2d(widths[-1], num_classes, 1)])

    def forward(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Logits (B, num_classes, ⌈H / CELL⌉, ⌈W / CELL⌉) from the maps of images (B, C, H, W)."""
        # Resizing the few results is equal to resizing the maps, and cheaper.
        parts = [layer(part) for layer, part in zip(self, _with_mean(maps), strict=True)]
        return torch.stack(_in_cells(parts, images)).sum(0)


def cell_features(maps: Sequence[Tensor], images: Tensor) -> Tensor:
    """All inputs of the linear layers in cells, (B, F, ⌈H / CELL⌉, ⌈W / CELL⌉)."""
    return torch.cat(_in_cells(_with_mean(maps), images), 1)


def _with_mean(maps: Sequence[Tensor]) -> list[Tensor]:
    return [*maps, maps[-1].mean((2, 3), keepdim=True)]


def _pooled(part: Tensor, height: int, width: int) -> Tensor:
    """Adaptive pooling, deterministic on CUDA where the cells have equal sizes."""
    (rows, more_rows), (columns, more_columns) = divmod(part.shape[-2], height), divmod(part.shape[-1], width)
    even = not more_rows and not more_columns
    return F.avg_pool2d(part, (rows, columns)) if even else F.adaptive_avg_pool2d(part, (height, width))


def _in_cells(parts: list[Tensor], images: Tensor) -> list[Tensor]:
    height, width = (-(-side // CELL) for side in images.shape[-2:])
    return [
        _pooled(part, height, width)
        if part.shape[-1] > width
        else F.interpolate(part, (height, width), mode="bilinear", align_corners=False)
        for part in parts
    ]
