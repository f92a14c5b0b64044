"""The objective of an attack: a loss on the victim's outputs, its gradient, and the score."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voctrain.attack.goals import goal_losses, goal_metrics, parse_goal, shortfall
from voctrain.attack.victim import load_victim
from voctrain.config import AttackConfig

Losses = Callable[[Tensor], Tensor]  # maps images (B, channels, S, S) to their distances from the goal, (B,)
CLIP = 3.0  # standard deviations of a gradient: a few pixels must not dominate a perturbation
NOISE = 1e-6  # of a loss's derivative by a logit: below, it is mostly rounding error of float32 probabilities


class Objective:
    """The goal of a configuration against its victim, which is loaded to the device."""

    def __init__(self, config: AttackConfig, device: str | torch.device = "cpu"):
        with torch.inference_mode(False):  # gradients through its weights are needed, wherever it is first loaded
            self.config, self.victim = config, load_victim(config.victim, device)
        self.goal = parse_goal(config.goal, self.victim.classes)

    def losses(self, images: Tensor) -> Losses:
        """A function from perturbed versions of these images to their distances from the goal, (B,)."""
        distances = self._distances(images)
        return lambda x: distances(self.victim(x).float())

    def _distances(self, images: Tensor) -> Losses:
        """The same as a function of the victim's logits on perturbed images, (B, classes)."""
        clean = decided = torch.empty(0)  # goal fake does without them
        if self.goal.kind != "fake":
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # see `gradient`
                clean = self.victim(images).float()
            decided = self.victim.decide(clean.sigmoid()).float()
        return lambda logits: goal_losses(self.goal, logits, clean, decided, self.config.fake_label)

    def descent(self, images: Tensor) -> Tensor:
        """The direction toward the goal, (B, channels, S, S): root mean square 1 per image, with outliers clipped.

        It is 0 for an image that has reached the goal, rather than rounding errors enlarged, which differ by device.
        """
        distances = self._distances(images)
        down = -gradient(images, lambda x: distances(_without_noise(self.victim(x).float())))
        return (down / down.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)).clamp(-CLIP, CLIP)

    def measure(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`goal_metrics` of the predictions y_true, prob_clean and prob_attacked, (N, C), and ssim, (N,).

        The score of an attack that violates the constraint of its goal is its negative `shortfall`.
        """
        metrics = self._goal_metrics(predictions)
        if missed := self._shortfall(metrics, predictions):
            metrics["score"] = -missed
        return metrics

    def rescored(self, predictions: Mapping[str, np.ndarray]) -> Callable[[Any], float]:
        """The score of a training's predictions as a function of image indices, for intervals over images.

        The constraint of the goal is checked once, on all images.
        """
        needed = ("y_true", "prob_clean", "prob_attacked")
        missed = self._shortfall(self._goal_metrics(predictions), predictions)

        def score(rows: Any) -> float:
            return (
                -missed if missed else self._goal_metrics({name: predictions[name][rows] for name in needed})["score"]
            )

        return score

    def _goal_metrics(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        clean, attacked = predictions["prob_clean"], predictions["prob_attacked"]
        before, after = (self.victim.decide(torch.from_numpy(part)).cpu().numpy() for part in (clean, attacked))
        return goal_metrics(self.goal, predictions["y_true"], (clean, attacked), (before, after))

    def _shortfall(self, metrics: dict[str, float], predictions: Mapping[str, np.ndarray]) -> float:
        return shortfall(self.goal, metrics["delta"], float(predictions["ssim"].mean()), self.config.max_ssim)


def gradient(images: Tensor, losses: Losses) -> Tensor:
    """The gradient of the summed losses at these images, in float32 even within autocast.

    Attacks use its sign, and in half precision the sign of small values is mostly noise.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        images = images.detach().clone().requires_grad_()
        return torch.autograd.grad(losses(images).sum(), images)[0]


def _without_noise(logits: Tensor) -> Tensor:
    """These logits (B, C), through which no gradient below `NOISE` flows."""
    logits.register_hook(lambda slope: torch.where(slope.abs() * slope.shape[1] > NOISE, slope, 0.0))
    return logits
