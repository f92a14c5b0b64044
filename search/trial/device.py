"""The device of a training or a prediction."""

import torch


def pick_device(gpus: float) -> str:
    """The device for a share of GPUs: cuda if it is above 0 and there is one."""
    if gpus and torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
