"""The feature maps (B, C, h, w) of a network's modules."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

_LOCK = RLock()  # a hook also runs for another thread's images


def map_shapes(
    net: nn.Module, images: Tensor, read: Callable[[nn.Module, Any], Tensor | None]
) -> dict[str, torch.Size]:
    """The shape of the map that `read` finds in each module's output for these images, in the order of execution."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str, output: Any) -> None:
        if (found := read(net, output)) is not None:
            shapes.pop(name, None)
            shapes[name] = found.shape

    training = net.training
    with hooked(net.eval(), [name for name, _ in net.named_modules() if name], note), torch.no_grad():
        net(images)
    net.train(training)
    return shapes


def channels_first(net: nn.Module, output: Any) -> Tensor | None:
    """The square map (B, C, h, w) that a module of `net` returned, as convolutions do, or None."""
    fits = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1
    return output if fits else None


def as_map(net: nn.Module, output: Any) -> Tensor | None:
    """The square map (B, C, h, w) in what a module of `net` returned, also of torchvision's transformers, or None."""
    shape = output.shape if isinstance(output, Tensor) else ()
    if isinstance(net, SwinTransformer) and len(shape) == 4 and shape[1] == shape[2] > 1:
        return output.permute(0, 3, 1, 2)
    if isinstance(net, VisionTransformer) and len(shape) == 3:
        side = net.image_size // net.patch_size
        if shape[1] == 1 + side**2:  # the first token is the class's
            return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    return channels_first(net, output)


@contextlib.contextmanager
def hooked(net: nn.Module, names: Iterable[str], receive: Callable[[str, Any], None]) -> Iterator[None]:
    """While active, call `receive` with the name and the output of each of these modules of `net` as it runs.

    Only one thread at a time can be in such a block.
    """
    with _LOCK, contextlib.ExitStack() as stack:
        for name in names:
            handle = net.get_submodule(name).register_forward_hook(lambda _m, _i, output, n=name: receive(n, output))
            stack.callback(handle.remove)
        yield
