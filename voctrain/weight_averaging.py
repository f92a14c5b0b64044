"""The exponential moving average of a model's weights, which is evaluated in place of the model."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def final_decay(memory: float, steps: int) -> float:
    """The decay of an average over the last `memory` × `steps` optimizer steps, at least one: 1 - 1 / their number."""
    return 1 - 1 / max(1.0, memory * steps)


def average_decay(decay: float, step: int) -> float:
    """The decay of the moving average at this optimizer step, counted from 1: min(decay, (1 + step) / (10 + step)).

    This is the rule of TensorFlow's `tf.train.ExponentialMovingAverage` with `num_updates`. A constant decay keeps the
    initial random weights in the average: at 0.995, they still make up 37% of it after 200 steps.
    """
    return min(decay, (1 + step) / (10 + step))


class MovingAverage:
    """The average of `model` over the last `memory` × `steps` optimizer steps, in a `model` of its own.

    torch's AveragedModel is not used because it would wait for the GPU here. The running statistics of batch
    normalization are averaged like the weights, so that both cover the same steps.
    """

    def __init__(self, model: nn.Module, memory: float, steps: int):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = final_decay(memory, steps)
        # Paired once, for all steps: what is averaged, and counters, which are copied.
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating, counters = ([p for p in pairs if p[0].is_floating_point() == kind] for kind in (True, False))
        self.averages, self.weights = [p[0] for p in floating], [p[1] for p in floating]
        self.copies, self.counters = [p[0] for p in counters], [p[1] for p in counters]

    def update(self, step: int) -> None:
        """Move the weights and buffers toward the model's; `step` counts from 1 over the whole training."""
        get_ema_multi_avg_fn(average_decay(self.decay, step))(self.averages, self.weights, None)
        if self.counters:
            torch._foreach_copy_(self.copies, self.counters)  # pyright: ignore[reportPrivateImportUsage]  # no public one
