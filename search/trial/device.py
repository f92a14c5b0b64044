"""The device of a training or a prediction."""

import os

import torch

FAKE_GPUS = "VOC_SEARCH_FAKE_GPUS"  # tests set this variable where they give Ray GPUs that are not there


class MachineError(RuntimeError):
    """The machine has failed, not a configuration. The message is one line that tells the cause and the repair."""


def pick_device() -> str:
    """The best device of this machine."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(gpus: float) -> str:
    """The device of a trial that was promised this share of GPUs. Raises `MachineError` if there is none."""
    if not gpus:
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if FAKE_GPUS in os.environ:
        return "cpu"
    raise MachineError(
        "Ray gave a trial a GPU, but PyTorch finds none: install the node's driver or a CUDA build of torch, or"
        " search without GPUs with --gpus-per-trial 0"
    )
