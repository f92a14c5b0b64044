"""The one epoch loop that all tasks share."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from voctrain.augment.transforms import NEED_COLOUR
from voctrain.config import TrainConfig
from voctrain.data import Data
from voctrain.optim import Schedule, build_optimizer
from voctrain.overflow import FiniteBuffers, mean_loss

EVAL_BATCH = 64  # fixed, so that a prediction made later equals the one that was scored


@dataclass(frozen=True)
class Epoch:
    """What a training yields after each epoch. `weights` and `state` are live references, valid until `next()`."""

    number: int  # from 1
    metrics: dict[str, float]  # flat; lr, train_… and val_…
    predictions: dict[str, np.ndarray]  # what the score was computed from
    weights: dict[str, Tensor]  # the state dict that was evaluated: the moving average's where there is one
    state: dict[str, Any]  # all that resuming needs, loadable with weights_only


class Resident:
    """Images or masks of a whole set, kept where batches are taken from: on the device while they fit there.

    On a GPU, an array above `budget` (part of the free memory) stays in pinned host memory, and batches are copied
    asynchronously. Only copies of rows leave: the array itself may be shared between processes.
    """

    def __init__(self, array: np.ndarray, device: torch.device, budget: float = 0.4):
        self.device = device
        with warnings.catch_warnings():  # shared arrays are read-only, and nobody writes into this one
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            rows = torch.from_numpy(array)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            rows = rows.to(device) if rows.nbytes <= budget * free else rows.pin_memory()
        self.rows = rows.to(device) if device.type == "mps" else rows

    def __getitem__(self, index: Tensor) -> Tensor:
        """A copy of these rows (CPU indices), on the device."""
        rows = self.rows[index.to(self.rows.device, non_blocking=True)]
        if rows.device.type == "cpu" and self.device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.rows)


def to_unit(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) → float32 (B, C, H, W) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def channel_statistics(images: np.ndarray, index: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel, in [0, 1], of these images (uint8, (N, H, W, C)): exact, by histogram."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256))
    for i in index:
        counts += [np.bincount(images[i, ..., c].ravel(), minlength=256) for c in range(len(counts))]
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    return mean.tolist(), np.sqrt(share @ levels**2 - mean**2).tolist()


def check_images(config: TrainConfig, data: Data) -> None:
    """Raise `ValueError` where the images are not as `config` has them."""
    size, channels = data.images.shape[2:]
    if size != config.image_size:
        raise ValueError(
            f"image_size={config.image_size} must be the size of the data, which were loaded at {size}:"
            f" load them with image_size={config.image_size}"
        )
    coloured = [name for name in NEED_COLOUR if getattr(config, name)]
    if channels == 1 and coloured:
        raise ValueError(f"{coloured[0]} needs coloured images, and these have one channel: leave {coloured[0]} out")


def pack_checkpoint(
    task: str, config: TrainConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]
) -> dict[str, Any]:
    """What the checkpoints of all tasks hold: plain values, and a copy of these weights on the CPU."""
    return {
        "task": task,
        "config": config.to_dict(),
        "classes": list(data.classes),
        "image_size": config.image_size,
        **{name: weights[name].flatten().tolist() for name in ("mean", "std") if name in weights},
        "metrics": dict(metrics),
        "model": {name: tensor.detach().cpu().clone() for name, tensor in weights.items()},
    }


def outputs_of(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a model returned, its auxiliary outputs last."""
    return output if isinstance(output, tuple) else (output,)


def precision_of(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of mixed precision: `config.precision`, where `auto` is the fastest that the device computes in.

    CUDA: bfloat16 from compute capability 8.0 (Ampere), float16 below (P100, V100, T4). CPU: bfloat16 where it has
    instructions for it, else float32. All others: float32.
    """
    if config.precision != "auto":
        return getattr(torch, config.precision)
    if device.type == "cuda":  # torch.cuda.is_bf16_supported asks the current device, which may be another one
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    fast = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """A context of mixed precision, in the dtype that `precision_of` gives."""
    dtype = precision_of(config, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def fit(
    model: nn.Module,
    config: TrainConfig,
    *,
    draw: Callable[[], Tensor],
    batch_loss: Callable[[Tensor], tuple[Tensor, Any]],
    train_metrics: Callable[[list], dict[str, float]],
    evaluate: Callable[[nn.Module], tuple[dict[str, float], dict[str, np.ndarray]]],
    metric: str,
    device: torch.device,
    resume: dict[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train `model`, yielding an `Epoch` after each; it ends after `config.epochs` or by early stopping.

    draw: the indices of an epoch's images, (draws,) on the CPU, the same number each time.
    batch_loss: of (B,) indices, the scalar loss and whatever `train_metrics` wants of the batch, detached.
    evaluate: of the model in eval mode, the metrics and the predictions behind them; may be empty.
    metric: the score, higher is better, for `plateau` and early stopping; without it neither acts.

    Every epoch is seeded from (seed, epoch): resumed from any state, it goes on bit-equal on the same machine.
    In float16, gradients are scaled, and a step whose gradients overflow is skipped. The schedule and the average count
    it all the same: the schedule must end with the training, and asking what was skipped would wait for a GPU.
    Raises `FloatingPointError` when training has diverged, see `mean_loss`.
    """
    model.to(device, memory_format=torch.channels_last)
    precision = autocast(config, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision_of(config, device) == torch.float16)
    optimizer = build_optimizer(model, config)
    draws = len(draw())
    # Batch normalisation cannot do with one image: an odd number in batches of two makes one of three.
    batches = max(1, min(math.ceil(draws / config.batch_size), draws // min(config.batch_size, 2)))
    schedule = Schedule(optimizer, config, batches)
    average = None if config.ema_decay is None else copy.deepcopy(model).requires_grad_(False)
    evaluated = model if average is None else average
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    parts |= {} if average is None else {"average": average}
    history: list[dict[str, float]] = []
    if resume is not None:
        history = [dict(metrics) for metrics in resume["history"]]
        for name, part in parts.items():
            if resume[name] or name != "scaler":  # empty, if the state is from a device that needed no scaling
                part.load_state_dict(resume[name])
    buffers = FiniteBuffers(model, enabled=scaler.is_enabled())

    for number in range(len(history) + 1, config.epochs + 1):
        if config.patience is not None and _epochs_without_gain(history, metric) >= config.patience:
            return
        seed_epoch(config.seed, number)
        model.train()
        losses, rates, outputs = [], [], []
        indices = draw().tensor_split(batches)  # of nearly equal size
        for step, index in enumerate(indices, start=(number - 1) * batches + 1):
            with precision:
                loss, output = batch_loss(index)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_gradients(model, config)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            rates.append(schedule.lr)
            schedule.step()
            buffers.repair()
            if average is not None:
                update_average(average, model, average_decay(config.ema_decay, step))
            losses.append(loss.detach())
            outputs.append(output)

        sizes = [len(index) for index in indices]
        train_loss, counted = mean_loss(torch.stack(losses).tolist(), sizes, number, scaler)
        train_scores = train_metrics(list(compress(outputs, counted)))
        evaluated.eval()
        with torch.inference_mode():
            scores, predictions = evaluate(evaluated)
        metrics = {"lr": sum(rates) / len(rates), "train_loss": train_loss, **train_scores, **scores}
        history.append(metrics)
        if metric in metrics:
            schedule.end_epoch(metrics[metric])
        state = {name: part.state_dict() for name, part in parts.items()}
        yield Epoch(number, metrics, predictions, evaluated.state_dict(), state | {"history": list(history)})


def average_decay(decay: float, step: int) -> float:
    """The decay of the moving average at this optimizer step, counted from 1: min(decay, (1 + step) / (10 + step)).

    This is the rule of TensorFlow's `tf.train.ExponentialMovingAverage` with `num_updates`. A constant decay keeps the
    initial random weights in the average: at 0.995, 37% of it is still them after 200 steps.
    """
    return min(decay, (1 + step) / (10 + step))


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average's weights and buffers toward the model's; torch's AveragedModel would wait for a GPU here.

    The statistics of batch normalization are averaged like the weights, so that both cover the same steps.
    """
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
    for ours, theirs in pairs:
        if not ours.is_floating_point():  # counters
            ours.copy_(theirs)


def clip_gradients(model: nn.Module, config: TrainConfig) -> None:
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if config.clip_value is not None:
        nn.utils.clip_grad_value_(model.parameters(), config.clip_value)


def seed_epoch(seed: int, number: int) -> None:
    """Seed all of torch's generators from (seed, epoch): an epoch does not depend on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]))


def _epochs_without_gain(history: list[dict[str, float]], metric: str) -> int:
    scores = [metrics[metric] for metrics in history if metric in metrics]
    return len(scores) - 1 - int(np.argmax(scores)) if scores else 0
