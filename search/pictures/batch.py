"""Rows of pictures that show what a training sees."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from voctrain.contact_sheet import Tile


def spread(index: np.ndarray, count: int) -> np.ndarray:
    """`count` of these indices, at equal distances."""
    return index[np.linspace(0, len(index) - 1, count).astype(int)]


def tiles(pictures: np.ndarray, texts: Sequence[str]) -> list[Tile]:
    """A tile for each of these pictures, uint8 (N, S, S, channels)."""
    return [Tile((picture,), (text,)) for picture, text in zip(pictures, texts, strict=True)]


def to_bytes(images: Tensor) -> np.ndarray:
    """(B, C, S, S) in [0, 1] → uint8 (B, S, S, C)."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
