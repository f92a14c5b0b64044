"""Batches that overflow float16: training skips them and continues, unless there are too many."""

import math
from itertools import compress

import torch
from torch import Tensor, nn

MIN_SCALE = 1e-4  # of gradients, as in fairseq; the scale starts at 65536 and is halved by each batch that overflows


def mean_loss(
    losses: list[float], sizes: list[int], number: int, scaler: torch.amp.GradScaler
) -> tuple[float, list[bool]]:
    """The mean loss per image of epoch `number`, from the losses and sizes of its batches, and which batches count.

    All batches count, except that with gradient scaling those whose loss is not finite have overflowed and are ignored.
    Raises `FloatingPointError` when training has diverged: the mean is not finite, more than half of the batches
    overflowed, or the scale has fallen to `MIN_SCALE`.
    """
    counted = [math.isfinite(loss) or not scaler.is_enabled() for loss in losses]
    overflowed = counted.count(False)
    if overflowed > len(losses) / 2:
        raise FloatingPointError(f"{overflowed} of {len(losses)} batches overflowed float16 in epoch {number}")
    if scaler.get_scale() <= MIN_SCALE:
        raise FloatingPointError(f"the gradients overflowed float16 at any scale in epoch {number}")
    total = sum(loss * size for loss, size in compress(zip(losses, sizes, strict=True), counted))
    mean = total / sum(compress(sizes, counted))
    if not math.isfinite(mean):
        raise FloatingPointError(f"the training loss became {mean} in epoch {number}")
    return mean, counted


class FiniteBuffers:
    """Restores a model's buffers after batches that overflow; does nothing unless `enabled`.

    The gradient scaler protects only weights: running statistics of batch normalization stay NaN once they are NaN.
    """

    def __init__(self, model: nn.Module, *, enabled: bool):
        self.buffers = [buffer for buffer in model.buffers() if enabled and buffer.is_floating_point()]
        self.last = self._joined() if self.buffers else torch.empty(0)

    def repair(self) -> None:
        """Reset each value that is not finite to what it was after the last call, without waiting for the GPU."""
        if not self.buffers:
            return
        now = self._joined()
        self.last = torch.where(now.isfinite(), now, self.last)
        pieces = self.last.split([buffer.numel() for buffer in self.buffers])
        views = [piece.view_as(buffer) for piece, buffer in zip(pieces, self.buffers, strict=True)]
        torch._foreach_copy_(self.buffers, views)  # pyright: ignore[reportPrivateImportUsage]  # no public equivalent

    def _joined(self) -> Tensor:
        """All buffers as one vector, which takes a few kernel launches instead of hundreds."""
        return torch.cat([buffer.flatten() for buffer in self.buffers])
