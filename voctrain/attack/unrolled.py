"""A function that takes gradients as a graph of ordinary operations, which can be exported like any network."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten


def unrolled(function: Callable[[Tensor], Tensor], images: Tensor) -> GraphModule:
    """A module that computes `function` for any number of images of this size, (B, C, S, S), with B >= 2 here.

    What it takes from the weights of networks is part of it. Written by hand because exporters have no rules for the
    gradients of convolution and pooling.
    """
    rules = {
        **core_aten_decompositions(),
        aten.convolution_backward.default: _convolution_backward,
        aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    }
    trace = make_fx(lambda x: function(x), rules, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    with torch.no_grad():
        graph = trace(images)
    for node in graph.graph.nodes:
        _simplify(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph.requires_grad_(False).eval()


def _convolution_backward(
    grad: Tensor,
    images: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Any,
) -> tuple[Tensor, None, None]:
    """The gradient of the input alone: a transposed convolution."""
    assert not transposed
    sides = zip(images.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    missing = [n - ((g - 1) * s - 2 * p + d * (k - 1) + 1) for n, g, k, s, p, d in sides]
    return aten.convolution(grad, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _max_pool_backward(
    grad: Tensor, images: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, index: Tensor
) -> Tensor:
    zeros = torch.zeros_like(images).flatten(2)
    return zeros.scatter_add(2, index.flatten(2), grad.flatten(2)).view(images.shape)


def _simplify(node: Node) -> None:
    """Let an operation take the number of images from a trace, too, which only torch's own functions do."""
    if node.target is aten.as_strided_.default:  # of average pooling to 1 × 1, which changes no value
        node.replace_all_uses_with(node.all_input_nodes[0])
        node.graph.erase_node(node)
    elif node.target is aten.sym_size.int:
        node.op, node.target = "call_method", "size"
    elif isinstance(node.target, torch._ops.OpOverload) and any(n.target == "size" for n in node.all_input_nodes):
        name = node.target._schema.name.removeprefix("aten::")
        function = getattr(torch, name, None)
        node.op, node.target = ("call_function", function) if function else ("call_method", name)
