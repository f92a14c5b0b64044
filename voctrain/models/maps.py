"""The feature maps (B, C, h, w) of a network's modules."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

SPECIAL = 5  # at most so many of a transformer's tokens are no places in the image: its class, registers


def map_shapes(net: nn.Module, images: Tensor, read: Callable[[Any], Tensor | None]) -> dict[str, torch.Size]:
    """The shape of the map that `read` finds in each module's output for these images, in the order of execution."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str, output: Any) -> None:
        if (found := read(output)) is not None:
            shapes.pop(name, None)
            shapes[name] = found.shape

    training = net.training
    with hooked(net.eval(), [name for name, _ in net.named_modules() if name], note), torch.no_grad():
        net(images)
    net.train(training)
    return shapes


def channels_first(output: Any) -> Tensor | None:
    """The square map (B, C, h, w) that a module returned, as convolutions do, or None."""
    fits = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1
    return output if fits else None


def as_map(output: Any) -> Tensor | None:
    """The square map (B, C, h, w) in what a module returned: with channels first or last, or as tokens; or None."""
    if (found := channels_first(output)) is not None or not isinstance(output, Tensor):
        return found
    if output.ndim == 4 and output.shape[1] == output.shape[2] > 1:
        return output.permute(0, 3, 1, 2)
    for special in range(SPECIAL + 1 if output.ndim == 3 else 0):
        side = math.isqrt(max(0, output.shape[1] - special))
        if side > 1 and side**2 + special == output.shape[1]:
            return output[:, special:].transpose(1, 2).unflatten(2, (side, side))
    return None


@contextlib.contextmanager
def hooked(net: nn.Module, names: Iterable[str], receive: Callable[[str, Any], None]) -> Iterator[None]:
    """While active, call `receive` with the name and the output of each of these modules of `net` as it runs."""
    with contextlib.ExitStack() as stack:
        for name in names:
            handle = net.get_submodule(name).register_forward_hook(lambda _m, _i, output, n=name: receive(n, output))
            stack.callback(handle.remove)
        yield
