"""Optimizers and learning-rate schedules of a configuration."""

import sys
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from voctrain.config import LabeledConfig, TrainConfig, given
from voctrain.models.fine_tuning import layers, learning_rate_factor


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of `config`, fused. Biases and normalization (1-D) only decay with `decay_norms`.

    Each group of parameters has its own `factor` of the learning rate, see `learning_rate_factor`.
    """
    parts = layers(model)
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = learning_rate_factor(parts.get(name), config) if isinstance(config, LabeledConfig) else 1.0
            members.setdefault((factor, config.decay_norms or parameter.ndim > 1), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": members[factor, decayed],
            "lr": config.lr * factor,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "factor": factor,
        }
        for factor, decayed in sorted(members, reverse=True)
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=given(config.momentum), fused=True)
    optimizers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}
    fused = None if config.optimizer == "adagrad" and groups[0]["params"][0].device.type != "cpu" else True
    return optimizers[config.optimizer](groups, lr=config.lr, fused=fused)


class Schedule:
    """The learning rate, stepped once per batch, and once per epoch with the score for `plateau`.

    The number of steps is the actual number of batches. Warm-up multiplies the schedule that it precedes.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainConfig, steps_per_epoch: int):
        self.optimizer = optimizer
        total = config.epochs * steps_per_epoch
        main = self._main(optimizer, config, steps_per_epoch, total)
        if warmup := round(config.warmup_epochs * steps_per_epoch):
            warm = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
            main = lr_scheduler.ChainedScheduler([warm, main])
        self.batch = main
        # Unlimited patience means no drop, for all schedules but `plateau`.
        patience, gamma = sys.maxsize, 0.1
        if config.schedule == "plateau":
            patience, gamma = given(config.plateau_patience), given(config.gamma)
        self.epoch = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=gamma, patience=patience)

    @staticmethod
    def _main(
        optimizer: torch.optim.Optimizer, config: TrainConfig, steps_per_epoch: int, total: int
    ) -> lr_scheduler.LRScheduler:
        match config.schedule:
            case "one_cycle":
                # One step more than there are batches, because the scheduler is also stepped after the last batch.
                # The momentum stays as configured; Adagrad has none to cycle.
                peaks = [group["lr"] for group in optimizer.param_groups]
                return lr_scheduler.OneCycleLR(
                    optimizer, peaks, total + 1, div_factor=given(config.div_factor), cycle_momentum=False
                )
            case "cosine":
                return lr_scheduler.CosineAnnealingLR(optimizer, total)
            case "step":
                return lr_scheduler.StepLR(optimizer, given(config.step_epochs) * steps_per_epoch, given(config.gamma))
            case "linear":
                end_factor = given(config.end_factor)

                def factor(step: int) -> float:  # LinearLR cannot rise
                    return 1 + (end_factor - 1) * step / total

                return lr_scheduler.MultiplicativeLR(optimizer, lambda step: factor(step) / factor(step - 1))
            case "replay":
                factors = [lr / config.lr for lr in given(config.lr_by_epoch)]
                last = len(factors) - 1
                return lr_scheduler.LambdaLR(optimizer, lambda step: factors[min(step // steps_per_epoch, last)])
            case _:  # constant, plateau
                return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)

    @property
    def lr(self) -> float:
        """That of a parameter whose factor is 1."""
        group = self.optimizer.param_groups[0]
        return group["lr"] / group["factor"]

    def step(self) -> None:
        self.batch.step()

    def end_epoch(self, score: float) -> None:
        self.epoch.step(score)

    def state_dict(self) -> dict:
        return {"batch": self.batch.state_dict(), "epoch": self.epoch.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.batch.load_state_dict(state["batch"])
        self.epoch.load_state_dict(state["epoch"])
