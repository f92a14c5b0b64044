"""Where an attack is headed: how far a victim's answers are from the goal, which way is down, and what is a success."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voctrain.attack.goals import goal_losses, goal_metrics, parse_goal, shortfall
from voctrain.attack.victim import load_victim
from voctrain.config import AttackConfig

Losses = Callable[[Tensor], Tensor]  # of images (B, channels, S, S), each one's distance from the goal, (B,)
CLIP = 3.0  # standard deviations of a gradient: a few pixels must not take all of a perturbation


class Objective:
    """The goal of a configuration against its victim, which is loaded onto the device."""

    def __init__(self, config: AttackConfig, device: str | torch.device = "cpu"):
        with torch.inference_mode(False):  # its weights must serve gradients, wherever they are first asked for
            self.config, self.victim = config, load_victim(config.victim, device)
        self.goal = parse_goal(config.goal, self.victim.classes)

    def losses(self, images: Tensor) -> Losses:
        """Of perturbed versions of these images, how far each is from the goal, (B,)."""
        clean = decided = None
        if self.goal.kind != "fake":
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # see `gradient`
                clean = self.victim(images).float()
            decided = self.victim.decide(clean.sigmoid()).float()
        return lambda x: goal_losses(self.goal, self.victim(x).float(), clean, decided, self.config.fake_label)

    def descent(self, images: Tensor) -> Tensor:
        """Of each image the direction toward the goal, (B, channels, S, S): root mean square 1, but for outliers."""
        down = -gradient(images, self.losses(images))
        return (down / down.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)).clamp(-CLIP, CLIP)

    def measure(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`goal_metrics` of y_true, prob_clean and prob_attacked, (N, C), and ssim, (N,).

        The score of an attack that misses what its goal must keep to is by how much, as a negative number.
        """
        metrics = self._answers(predictions)
        if missed := self._shortfall(metrics, predictions):
            metrics["score"] = -missed
        return metrics

    def rescored(self, predictions: Mapping[str, np.ndarray]) -> Callable[[Any], float]:
        """Of predictions as a training gives them, the score as a function of the indices of images.

        Whether an attack keeps to what it must is decided once, on all images.
        """
        needed = ("y_true", "prob_clean", "prob_attacked")
        missed = self._shortfall(self._answers(predictions), predictions)

        def score(rows: Any) -> float:
            return -missed if missed else self._answers({name: predictions[name][rows] for name in needed})["score"]

        return score

    def _answers(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        answers = predictions["prob_clean"], predictions["prob_attacked"]
        decisions = tuple(self.victim.decide(torch.from_numpy(part)).cpu().numpy() for part in answers)
        return goal_metrics(self.goal, predictions["y_true"], answers, decisions)

    def _shortfall(self, metrics: dict[str, float], predictions: Mapping[str, np.ndarray]) -> float:
        return shortfall(self.goal, metrics["delta"], float(predictions["ssim"].mean()), self.config.max_ssim)


def gradient(images: Tensor, losses: Losses) -> Tensor:
    """Of the summed losses, at these images; in float32 whatever autocast surrounds it.

    Attacks take its sign, and of small values half precision leaves little more than noise.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        images = images.detach().clone().requires_grad_()
        return torch.autograd.grad(losses(images).sum(), images)[0]
