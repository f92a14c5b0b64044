"""The epoch loop that all tasks share."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voctrain.config import TrainConfig
from voctrain.determinism import deterministic_algorithms
from voctrain.optim import Schedule, build_optimizer
from voctrain.overflow import FiniteBuffers, mean_loss
from voctrain.precision import autocast, grad_scaler
from voctrain.seeding import seed_epoch
from voctrain.weight_averaging import MovingAverage


@dataclass(frozen=True)
class Epoch:
    """What a training yields after each epoch. `weights` and `state` are live references, valid until `next()`."""

    number: int  # from 1
    metrics: dict[str, float]  # flat; lr, train_… and val_…
    predictions: dict[str, np.ndarray]  # what the score was computed from
    weights: dict[str, Tensor]  # the state dict that was evaluated: that of the moving average, if there is one
    state: dict[str, Any]  # everything resuming needs, loadable with weights_only


def fit(
    model: nn.Module,
    config: TrainConfig,
    *,
    draw: Callable[[], Tensor],
    batch_loss: Callable[[Tensor], tuple[Tensor, Any]],
    train_metrics: Callable[[list], dict[str, float]],
    evaluate: Callable[[Any], tuple[dict[str, float], dict[str, np.ndarray]]],
    metric: str,
    device: torch.device,
    resume: dict[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train `model`, yielding an `Epoch` after each; it ends after `config.epochs` or by early stopping.

    draw: returns the indices of an epoch's images, (draws,), always the same number.
    batch_loss: maps indices (B,) to the scalar loss and a detached value for `train_metrics`.
    evaluate: maps the model in eval mode to metrics and the predictions behind them; both may be empty.
    metric: the score, higher is better, for `plateau` and early stopping; without it neither acts.

    Every epoch is seeded from (seed, epoch): resumed from any state, training continues bit for bit on the same
    machine, on CUDA if the configuration is `deterministic`. Raises `FloatingPointError` when training has diverged,
    see `mean_loss`, and `ValueError` if it cannot be deterministic.
    """
    model.to(device).to(memory_format=torch.channels_last)
    batches = batches_per_epoch(len(draw()), config.batch_size)
    training = Training(model, config, batches, device)
    history = [] if resume is None else training.load_state_dict(resume)

    for number in range(len(history) + 1, config.epochs + 1):
        if config.patience is not None and _epochs_without_gain(history, metric) >= config.patience:
            return
        with deterministic_algorithms(config, device):
            seed_epoch(config.seed, number)
            model.train()
            losses, sizes, rates, outputs = [], [], [], []
            indices = draw().tensor_split(batches)  # of nearly equal size
            for step, index in enumerate(indices, start=(number - 1) * batches + 1):
                rates.append(training.schedule.lr)
                for size, loss, output in training.gradients(index, batch_loss):
                    sizes.append(size)
                    losses.append(loss)
                    outputs.append(output)
                training.update(step)

            train_loss, counted = mean_loss(torch.stack(losses).tolist(), sizes, number, training.scaler)
            train_scores = train_metrics(list(compress(outputs, counted)))
            evaluated = training.evaluated.eval()
            with torch.inference_mode():
                scores, predictions = evaluate(evaluated)
        metrics = {"lr": sum(rates) / len(rates), "train_loss": train_loss, **train_scores, **scores}
        history.append(metrics)
        if metric in metrics:
            training.schedule.end_epoch(metrics[metric])
        yield Epoch(number, metrics, predictions, evaluated.state_dict(), training.state_dict(history))


def batches_per_epoch(draws: int, batch_size: int) -> int:
    """The number of batches of nearly equal size that `draws` images are split into, `batch_size` images at most.

    One exception: an odd number of images in batches of two makes one batch of three, because batch normalization
    cannot train on a single image.
    """
    return max(1, min(math.ceil(draws / batch_size), draws // min(batch_size, 2)))


class Training:
    """Everything a training changes: the model, its moving average, the optimizer, the schedule and the scaler."""

    def __init__(self, model: nn.Module, config: TrainConfig, batches: int, device: torch.device):
        self.model, self.config = model, config
        self.precision, self.scaler = autocast(config, device), grad_scaler(config, device)
        self.optimizer = build_optimizer(model, config)
        self.schedule = Schedule(self.optimizer, config, batches)
        self.average = None
        if config.ema_memory is not None:
            self.average = MovingAverage(model, config.ema_memory, batches * config.epochs)
        self.evaluated = model if self.average is None else self.average.model
        self.buffers = FiniteBuffers(model, enabled=self.scaler.is_enabled())
        self.micro_batch = config.micro_batch or config.batch_size
        self.averages = getattr(config, "reduction", "mean") == "mean"  # whether the loss is a mean over images

    def gradients(
        self, index: Tensor, batch_loss: Callable[[Tensor], tuple[Tensor, Any]]
    ) -> list[tuple[int, Tensor, Any]]:
        """Compute the gradients of a batch, `micro_batch` images at a time; returns size, loss and output of each part.

        If a GPU's memory does not suffice, the batch is computed again in smaller parts, and so are all later ones.
        """
        while True:
            try:
                return self._in_parts(index, batch_loss)
            except torch.OutOfMemoryError:
                if self.micro_batch <= 2:
                    raise
            self.micro_batch = max(2, self.micro_batch // 2)
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _in_parts(
        self, index: Tensor, batch_loss: Callable[[Tensor], tuple[Tensor, Any]]
    ) -> list[tuple[int, Tensor, Any]]:
        parts = []
        for part in index.tensor_split(batches_per_epoch(len(index), self.micro_batch)):
            with self.precision:
                loss, output = batch_loss(part)
            share = len(part) / len(index)
            self.scaler.scale(loss * share if self.averages else loss).backward()
            parts.append((len(part), loss.detach() if self.averages else loss.detach() / share, output))
        return parts

    def update(self, step: int) -> None:
        """One optimizer step; `step` counts from 1 over the whole training.

        In float16, gradients are scaled, and a step whose gradients overflow is skipped. The schedule and the average
        count it nevertheless, because the schedule must end with the training, and because finding out that a step was
        skipped would wait for the GPU.
        """
        self.scaler.unscale_(self.optimizer)
        clip_gradients(self.model, self.config)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.buffers.repair()
        if self.average is not None:
            self.average.update(step)

    def state_dict(self, history: list[dict[str, float]]) -> dict[str, Any]:
        """The `state` of an `Epoch`, with the metrics of the epochs so far."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        return state | {"micro_batch": self.micro_batch, "history": list(history)}

    def load_state_dict(self, state: dict[str, Any]) -> list[dict[str, float]]:
        """Continue from a `state`; returns the metrics of the epochs so far."""
        for name, part in self._parts().items():
            if state[name] or name != "scaler":  # empty if the state is from a device that needed no scaling
                part.load_state_dict(state[name])
        self.buffers = FiniteBuffers(self.model, enabled=self.scaler.is_enabled())
        self.micro_batch = state["micro_batch"]
        return [dict(metrics) for metrics in state["history"]]

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
        return parts | ({} if self.average is None else {"average": self.average.model})


def clip_gradients(model: nn.Module, config: TrainConfig) -> None:
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if config.clip_value is not None:
        nn.utils.clip_grad_value_(model.parameters(), config.clip_value)


def _epochs_without_gain(history: list[dict[str, float]], metric: str) -> int:
    scores = [metrics[metric] for metrics in history if metric in metrics]
    return len(scores) - 1 - int(np.argmax(scores)) if scores else 0
