"""How much of a GPU trainings need, measured on a few batches."""

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from search.trial import memory
from search.trial.protocol import TrainModule
from voctrain.config import TrainConfig
from voctrain.data import Data

BATCHES = 10  # of an epoch that is measured
RESERVE = 1.5  # other configurations need more than those that are measured
MOST = 8  # trainings on one GPU


@dataclasses.dataclass(frozen=True)
class Demand:
    """What a training takes of a GPU."""

    memory_gb: float  # at its peak, with what CUDA takes
    busy: float  # the part of the time that it computes, from 0 to 1


def trainings_per_gpu(demands: Sequence[Demand], gpu_gb: float) -> int:
    """How many trainings keep one GPU busy and have room in its memory; those measured stand for all others."""
    in_memory = gpu_gb / max(RESERVE * demand.memory_gb for demand in demands)
    at_once = 1 / max(fmean(demand.busy for demand in demands), 1e-3)
    return max(1, math.floor(min(in_memory, at_once, MOST)))


def measure_demands(task: TrainModule, configs: Iterable[TrainConfig], data: Data, device: str) -> list[Demand]:
    """What trainings of these configurations take of this GPU, those that a few batches suffice for."""
    demands = []
    for config in configs:
        with suppress(ValueError, FloatingPointError, torch.OutOfMemoryError):
            demands.append(_demand(task, config, data, device))
    return demands


def _demand(task: TrainModule, config: Any, data: Data, device: str) -> Demand:
    images = BATCHES * config.batch_size
    few = dataclasses.replace(data, train=data.train[:images], val=data.val[:images])
    memory.reset_peak(device)
    epochs = iter(task.train(dataclasses.replace(config, epochs=3, patience=None), few, device=device))
    next(epochs)  # libraries choose and compile kernels
    started = time.monotonic()
    next(epochs)
    seconds = time.monotonic() - started
    with profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]) as profiled:
        next(epochs)
    kernels = (e for e in profiled.events() or () if e.device_type.name == "CUDA" and not e.is_user_annotation)
    computed = sum(kernel.self_device_time_total for kernel in kernels) / 1e6
    return Demand(memory.peak(device) + memory.CUDA_GB, min(1.0, computed / seconds))
