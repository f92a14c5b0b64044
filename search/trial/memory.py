"""The memory of a training: its limit and its peak."""

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch

CUDA_GB = 0.6  # of a GPU that CUDA takes in each process, beside PyTorch's memory


def limit(device: str, gpus: float) -> None:
    """Let this process allocate only its share of a GPU, so that no trial runs out of memory because of its neighbors.

    What CUDA itself takes in each process is part of the share.
    """
    if device == "cuda" and gpus < 1:
        torch.cuda.set_per_process_memory_fraction(max(0.0, gpus - CUDA_GB / total(device)))


def total(device: str) -> float:
    """GB of the GPU, or of this machine."""
    if device == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e9
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def reset_peak(device: str) -> None:
    """Start measuring. On a CPU the whole process is measured, since its start if the system cannot reset the peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux, see proc(5)
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> float:
    """Peak memory in GB since `reset_peak`: the GPU's if the training runs there, otherwise this process's."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
