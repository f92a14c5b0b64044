"""The contents of a checkpoint file, the same for all tasks."""

from typing import Any

from torch import Tensor

from voctrain.config import TrainConfig
from voctrain.data import Data


def pack_checkpoint(
    task: str, config: TrainConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]
) -> dict[str, Any]:
    """Plain values, and a copy of the weights on the CPU, for `torch.save`."""
    return {
        "task": task,
        "config": config.to_dict(),
        "classes": list(data.classes),
        "image_size": config.image_size,
        "resize": data.resize,
        **{name: weights[name].flatten().tolist() for name in ("mean", "std") if name in weights},
        "metrics": dict(metrics),
        "model": {name: tensor.detach().cpu().clone() for name, tensor in weights.items()},
    }
