"""Mixed precision: the dtype, the autocast context and the gradient scaler of a training."""

import torch

from voctrain.config import TrainConfig


def precision_of(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of mixed precision: `config.precision`, where `auto` is the fastest dtype of the device.

    CUDA: bfloat16 from compute capability 8.0 (Ampere), float16 below (P100, V100, T4). CPU: bfloat16 if the CPU has
    instructions for it, else float32. All others: float32.
    """
    if config.precision != "auto":
        return getattr(torch, config.precision)
    if device.type == "cuda":  # torch.cuda.is_bf16_supported asks the current device, which may be another one
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    fast = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """A mixed-precision context in the dtype of `precision_of`."""
    dtype = precision_of(config, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def grad_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler:
    """A gradient scaler, enabled in float16 only: bfloat16 has the range of float32."""
    return torch.amp.GradScaler(device.type, enabled=precision_of(config, device) == torch.float16)
