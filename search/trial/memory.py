"""The most memory that a training took."""

import contextlib
import resource
import sys
from pathlib import Path

import torch


def reset_peak(device: str) -> None:
    """Begin to measure. On a CPU the whole process is measured; where the system cannot begin anew, since its start."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux, see proc(5)
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> float:
    """GB since `reset_peak`: of the GPU where the training is there, else of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
