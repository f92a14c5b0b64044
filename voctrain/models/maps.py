"""The feature maps (B, C, h, w) of a network's modules."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def map_shapes(net: nn.Module, images: Tensor) -> dict[str, torch.Size]:
    """The shape of the square map that each module of `net` outputs for these images, in the order of execution."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] == output.shape[-2] > 1:
            shapes.pop(name, None)
            shapes[name] = output.shape

    training = net.training
    with hooked(net.eval(), [name for name, _ in net.named_modules() if name], note), torch.no_grad():
        net(images)
    net.train(training)
    return shapes


@contextlib.contextmanager
def hooked(net: nn.Module, names: Iterable[str], receive: Callable[[str, Any], None]) -> Iterator[None]:
    """While active, call `receive` with the name and the output of each of these modules of `net` as it runs."""
    with contextlib.ExitStack() as stack:
        for name in names:
            handle = net.get_submodule(name).register_forward_hook(lambda _m, _i, output, n=name: receive(n, output))
            stack.callback(handle.remove)
        yield
