"""Attacks to compare a generator with: noise, gradient steps, and one perturbation for all images.

Every attack returns perturbations within ± eps, (B, channels, S, S), that keep the images in [0, 1]. `losses` maps
perturbed images to their distance from the goal, (B,); an attack minimizes it. `AttackEvaluator` rescales perturbations
to the visibility budget, so what is evaluated may exceed eps.

Written by hand rather than taken from torchattacks because the victims are multi-label, the losses are those of a goal,
eps may differ between pixels, and the victim stays in eval mode with its normalization inside.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from voctrain.attack.objective import Losses, gradient
from voctrain.attack.training import AttackEvaluator
from voctrain.attack.visibility import bisect, rounded, ssim
from voctrain.config import AttackConfig
from voctrain.data import Data

BATCH = 32  # images per step


def uniform_noise(images: Tensor, eps: float | Tensor) -> Tensor:
    return _within(images, eps * torch.empty_like(images).uniform_(-1, 1))


def random_sign(images: Tensor, eps: float | Tensor) -> Tensor:
    return _within(images, eps * torch.empty_like(images).uniform_(-1, 1).sign())


def fgsm(images: Tensor, eps: float, losses: Losses) -> Tensor:
    """One step along the sign of the gradient (Goodfellow et al., 2015)."""
    return _within(images, -eps * gradient(images, losses).sign())


def pgd(images: Tensor, eps: float | Tensor, losses: Losses, *, steps: int = 40, restarts: int = 2) -> Tensor:
    """Projected gradient descent from random starts, keeping each image's best restart (Madry et al., 2018).

    eps: a number, or a tensor that broadcasts to the images.
    """
    bound = torch.as_tensor(eps, device=images.device)
    nearest, least = torch.zeros_like(images), torch.full((len(images),), torch.inf, device=images.device)
    for _ in range(restarts):
        change = uniform_noise(images, eps)
        for _ in range(steps):
            step = 2.5 * eps / steps * gradient(images + change, losses).sign()
            change = _within(images, (change - step).clamp(-bound, bound))
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # see `gradient`
            reached = losses(images + change)
        better = reached < least
        nearest = torch.where(better.view(-1, 1, 1, 1), change, nearest)
        least = torch.where(better, reached, least)
    return nearest


def universal(images: Tensor, eps: float, losses_of: Callable[[Tensor], Losses], *, epochs: int = 5) -> Tensor:
    """One perturbation (1, channels, S, S) for all images, by decreasing sign steps.

    It follows Moosavi-Dezfooli et al. (2017). losses_of: maps a batch of images to its `losses`.
    """
    change = torch.zeros_like(images[:1])
    for epoch in range(epochs):
        for index in torch.randperm(len(images)).split(BATCH):
            batch = images[index]
            up = gradient((batch + change).clamp(0, 1), losses_of(batch)).sum(0, keepdim=True)
            change = (change - eps / 2 * (1 - epoch / epochs) * up.sign()).clamp(-eps, eps)
    return change


def budget_eps(evaluator: AttackEvaluator, noise: Callable[[Tensor, float], Tensor] = random_sign) -> float:
    """The eps at which this noise is just as visible as the budget allows (for goal privacy: as it requires)."""
    budget = evaluator.config.max_ssim or evaluator.config.min_ssim

    def seen(eps: float) -> bool:
        attacked = rounded(evaluator.images + seeded(noise, evaluator.images, eps))
        return ssim(evaluator.images, attacked).mean().item() < budget

    low, high = bisect(seen)
    return high if evaluator.goal.kind == "privacy" else low


def seeded(attack: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The result of the attack with a fixed random seed."""
    with torch.random.fork_rng():  # restores the generators of all devices
        torch.manual_seed(0)
        return attack(*arguments)


def random_sign_score(data: Data, fields: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of random signs at the visibility budget; fields: those of an `AttackConfig`."""
    evaluator = AttackEvaluator(AttackConfig.from_dict(fields), data)
    return evaluator(seeded(random_sign, evaluator.images, budget_eps(evaluator)))[0]


def _within(images: Tensor, change: Tensor) -> Tensor:
    return (images + change).clamp(0, 1) - images
