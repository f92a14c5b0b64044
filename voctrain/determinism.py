"""Training that computes the same bits each time, on CUDA too, where sums are otherwise taken in any order."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from voctrain.config import TrainConfig


@contextmanager
def deterministic_algorithms(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Within this context, CUDA uses deterministic algorithms only, if the configuration is `deterministic`.

    CPUs always do. What was set before is restored. Raises `ValueError` where an operation has none.
    """
    if not config.deterministic or device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the process: cuBLAS reads it once
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their speed, which varies
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise ValueError(
            "deterministic=true requires operations with deterministic algorithms, but this training uses"
            f" {str(error).split()[0]}, which has none on CUDA: use another architecture, or omit deterministic"
        ) from error
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.backends.cudnn.benchmark = before[1]
