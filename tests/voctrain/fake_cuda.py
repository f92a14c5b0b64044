"""A CUDA device without a GPU: it computes on the CPU and counts what a real one would be asked to do.

torch's FakeTensorMode does not suffice: training needs the values of what it draws on the CPU, and torch's builds for
CUDA take no gradients of fake tensors without a driver. Here, tensors on the device wrap real ones, and what is not on
it stays as it is. As on a GPU, operands on different devices raise an error.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from voctrain import loop

aten = torch.ops.aten
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
# The CPU waits where it needs a value, or a number of values to allocate memory for.
WAITING = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero, aten.multinomial),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.repeat_interleave),
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.detach}
# They have no deterministic kernel. Other such operations that we use are decomposed before they arrive here.
NONDETERMINISTIC = {
    *(aten.nll_loss2d_forward, aten.nll_loss2d_backward, aten._adaptive_avg_pool2d_backward),
    *(aten.reflection_pad2d_backward, aten.upsample_bilinear2d_backward, aten.grid_sampler_2d_backward),
}
ANSWERS = {  # of torch.cuda
    **{"is_available": True, "_lazy_init": None, "current_device": 0, "is_current_stream_capturing": False},
    **{"get_device_properties": SimpleNamespace(total_memory=2**34), "get_per_process_memory_fraction": 1.0},
    "memory_allocated": 0,
}


@dataclass
class Counts:
    """What devices were asked to do."""

    launches: Counter = field(default_factory=Counter)  # of kernels, by operation; one that is fused counts once
    cpu_calls: Counter = field(default_factory=Counter)  # operations on the CPU
    copies: list[str] = field(default_factory=list)  # between the CPU and the device, in either direction
    syncs: list[str] = field(default_factory=list)  # operations for which the CPU waits


class OnDevice(torch.Tensor):
    """A tensor on the device, whose values are those of `held`. To C++, it is on the CPU."""

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), **layout, device=CPU)

    def __init__(self, held):
        self.held = held

    device = property(lambda self: GPU)  # pyright: ignore[reportAssignmentType]
    is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]
    is_cpu = property(lambda self: False)  # pyright: ignore[reportAssignmentType]

    def to(self, *args, **options):
        """`Tensor.to`, which must not see the device."""
        copy = options.pop("copy", False)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **options)
        options = {"dtype": dtype or self.dtype, "memory_format": memory_format or torch.preserve_format}
        if device is None or device.type == "cuda":
            return super().to(copy=copy, **options)
        return aten._to_copy(self.detach(), device=device, non_blocking=non_blocking, **options)

    def cpu(self):
        return self.to("cpu")

    def tolist(self):
        return self.to("cpu").tolist()

    def __repr__(self):
        return f"OnDevice({self.held})"

    def numpy(self, **options):
        raise TypeError("can't convert a tensor on cuda:0 to numpy: copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of the device's context")


class FakeCuda(TorchDispatchMode):
    """Makes `cuda` a device; `counts` are those since the last `take`."""

    def __init__(self):
        super().__init__()
        self.counts = Counts()

    def take(self):
        counts, self.counts = self.counts, Counts()
        return counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):  # within inference mode
            with self:
                return func.decompose(*args, **kwargs)
        operation = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        backward = torch._C._current_graph_task_id() != -1  # C++ makes zeros on what it takes for the device
        source = any(isinstance(tensor, OnDevice) for tensor in tensors) or (backward and not tensors)
        target = source
        if operation is aten.copy_:
            target, source = (isinstance(tensor, OnDevice) for tensor in args[:2])
        elif kwargs.get("device") is not None and not (backward and source):
            target = torch.device(kwargs["device"]).type == "cuda"
        if "device" in kwargs:
            kwargs["device"] = CPU
        if operation in (aten.copy_, aten._to_copy) and source != target:
            waits = source or not (kwargs.get("non_blocking") or args[2:] == (True,))
            self._count(self.counts.copies, func, waits)
        elif source or target:
            self._launch(func, operation, args, [] if backward else tensors)
        else:
            self.counts.cpu_calls[str(operation)] += 1
        if operation is aten._pin_memory:
            return args[0].clone()
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        known = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, OnDevice)}
        return tree_map(lambda value: _wrapped(value, known), result) if target else result

    def _launch(self, func, operation, args, tensors):
        strangers = [tensor for tensor in tensors if tensor.ndim and not isinstance(tensor, OnDevice)]
        if strangers and operation not in INDEXING:
            raise RuntimeError(
                f"{func}: expected all tensors on the same device, but found at least two, cuda:0 and cpu"
            )
        for _ in strangers:  # indices on the CPU are copied to the device
            self._count(self.counts.copies, func, waits=True)
        if operation in NONDETERMINISTIC and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(f"{func} does not have a deterministic implementation, but you set …")
        masked = operation in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if masked or operation in WAITING:
            self.counts.syncs.append(str(func))
        elif not func.is_view and operation not in NO_KERNEL:
            self.counts.launches[str(operation)] += 1

    def _count(self, copies, func, waits):
        copies.append(str(func))
        if waits:
            self.counts.syncs.append(str(func))


def _held(value):
    return value.held if isinstance(value, OnDevice) else value


def _wrapped(value, known):
    """A result on the device; that of an operation in place is its operand."""
    if not isinstance(value, torch.Tensor):
        return value
    if id(value) in known:
        return known[id(value)]
    with torch.inference_mode(value.is_inference()):  # views of ordinary tensors are ordinary in inference mode, too
        return OnDevice(value)


@contextlib.contextmanager
def fake_cuda(capability=(8, 0)):
    """Within this context `cuda` is a device of this compute capability; yields its `FakeCuda`."""
    autocast, grouped = torch.autocast, torch._C._group_tensors_by_device_and_dtype

    def grouped_on_device(*args):  # C++ groups them as on the CPU
        return {(GPU if lists[0][0].is_cuda else d, t): (lists, i) for (d, t), (lists, i) in grouped(*args).items()}

    with contextlib.ExitStack() as stack:
        for name, answer in (ANSWERS | {"get_device_capability": capability}).items():
            stack.enter_context(patch.object(torch.cuda, name, lambda *args, answer=answer: answer))
        stack.enter_context(
            patch.object(torch, "autocast", lambda device, *a, **options: autocast("cpu", *a, **options))
        )
        for module in (optimizer, _foreach_utils):
            types = [*module._foreach_supported_types, OnDevice]
            stack.enter_context(patch.object(module, "_foreach_supported_types", types))
        stack.enter_context(patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped_on_device))
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") becomes a copy that can be counted
        torch._C._ensureCUDADeviceGuardSet()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield stack.enter_context(FakeCuda())
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
            torch._C._set_only_lift_cpu_tensors(lifted)


def counted_steps(train, config, data, capability=(8, 0)):
    """The `Counts` of each step of a training but the first of an epoch, and the metrics of its epochs.

    The first step of an epoch includes what comes before it: its order, or the validation of the last epoch.
    """
    epochs, metrics, update = [[]], [], loop.Training.update
    with fake_cuda(capability) as device:

        def counting(training, step):
            update(training, step)
            epochs[-1].append(device.take())

        with patch.object(loop.Training, "update", counting):
            for epoch in train(config, data, device="cuda"):
                metrics.append(epoch.metrics)
                epochs.append([])
    return [counts for steps in epochs for counts in steps[1:]], metrics
