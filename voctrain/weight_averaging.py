"""The exponential moving average of a model's weights, which is evaluated in place of the model."""

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


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average's weights and buffers toward the model's.

    torch's AveragedModel is not used because it would wait for the GPU here. The running statistics of batch
    normalization are averaged like the weights, so that both cover the same steps.
    """
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)([averaged for averaged, _ in floating], [current for _, current in floating], None)
    for averaged, current in pairs:
        if not averaged.is_floating_point():  # counters
            averaged.copy_(current)
