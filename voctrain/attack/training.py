"""Adversarial attack: one training of a generator of perturbations against a frozen victim, and how it is judged."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voctrain.attack.goals import parse_goal
from voctrain.attack.objective import Objective
from voctrain.attack.visibility import contrast_masking, psnr, rounded, scale_factor, ssim
from voctrain.augment.transforms import augment
from voctrain.checkpoint import pack_checkpoint
from voctrain.config import AttackConfig
from voctrain.data import Data
from voctrain.data.class_names import contrast
from voctrain.device_array import DeviceArray
from voctrain.images import EVAL_BATCH, check_images, to_unit
from voctrain.loop import Epoch, fit
from voctrain.models import build_generator
from voctrain.models.generators import check_name
from voctrain.precision import autocast
from voctrain.seeding import seed_epoch

METRIC = "val_score"
HIDING = 10.0  # goal privacy: weight of the similarity that is left beyond max_ssim, against the victim's answers


def train(
    config: AttackConfig, data: Data, *, device: str | torch.device = "cpu", resume: dict[str, Any] | None = None
) -> Iterator[Epoch]:
    """Train one generator, judged on `data.val` at equal visibility after each epoch.

    It sees the unlabeled test images, or `data.train` where there are none, and never a label. `resume` is the `state`
    of an earlier `Epoch`. Predictions: ids, y_true, prob_clean and prob_attacked (N, C), ssim and linf (N,).
    """
    check(config, data)
    device = torch.device(device)
    evaluator = AttackEvaluator(config, data, device)
    seed_epoch(config.seed, 0)
    generator = new_model(config, data)
    images, index = training_images(data)
    images, index = DeviceArray(images, device), torch.tensor(index)

    def batch_loss(drawn: Tensor) -> tuple[Tensor, None]:
        batch = augment(to_unit(images[drawn.repeat(config.aug_repeats)]), config)
        change = perturb(generator, batch, config)
        loss = evaluator.losses(batch)(batch + change).mean()
        loss = loss + config.l2_penalty * change.square().sum((1, 2, 3)).mean()
        if config.ssim_penalty or config.goal == "privacy":
            seen = ssim(batch, batch + change).mean()
            loss = loss + config.ssim_penalty * (config.min_ssim - seen).clamp(min=0)
            loss = loss + HIDING * (seen - (config.max_ssim or 1.0)).clamp(min=0)
        return loss, None

    def evaluate(generator: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        return evaluator(perturbations(generator, evaluator.images, config)) if len(data.val) else ({}, {})

    yield from fit(
        generator,
        config,
        draw=lambda: index[torch.randperm(len(index))],
        batch_loss=batch_loss,
        train_metrics=lambda outputs: {},
        evaluate=evaluate,
        metric=METRIC,
        device=device,
        resume=resume,
    )


class AttackEvaluator(Objective):
    """Evaluates perturbations of the validation images, by what the victim answers to them at equal visibility."""

    def __init__(self, config: AttackConfig, data: Data, device: str | torch.device = "cpu"):
        super().__init__(config, device)
        check_victim(config.victim, self.victim.classes, data)
        self.ids, self.y_true = [data.ids[i] for i in data.val], data.labels[data.val]
        self.images = to_unit(DeviceArray(data.images, torch.device(device))[torch.tensor(data.val)])
        self.clean = self.victim.probabilities(self.images)

    @torch.inference_mode()
    def __call__(self, perturbations: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Metrics and predictions of a perturbation of each image, (N, channels, S, S) or one for all.

        They are scaled by one `factor`, down or up, to a mean SSIM of min_ssim as near as `scale_factor` gets (goal
        privacy: not at all), and rounded to 8 bits. So they may exceed the scale or the eps that they were made with.
        unscaled_…: success and similarity of the perturbations as they came. Raises `FloatingPointError` where they
        are not finite: to NaN a victim sees nothing, which would be a perfect attack.
        """
        if not perturbations.isfinite().all():
            raise FloatingPointError("the perturbations are no longer finite")
        factor = 1.0
        if self.goal.kind != "privacy":
            factor = scale_factor(self.images, perturbations, self.config.min_ssim)
        metrics, predictions = self.at(factor * perturbations)
        whole = metrics if factor == 1 else self.at(perturbations)[0]
        metrics |= {"factor": factor} | {f"unscaled_{name}": whole[name] for name in ("score", "ssim", "linf")}
        return {f"val_{name}": value for name, value in metrics.items()}, predictions

    @torch.inference_mode()
    def at(self, perturbations: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Metrics, without prefix, and predictions of these perturbations as they are."""
        attacked = rounded(self.images + perturbations)
        seen, change = ssim(self.images, attacked), attacked - self.images
        linf = change.abs().amax((1, 2, 3))
        predictions = {"ids": np.array(self.ids), "y_true": self.y_true, "prob_clean": self.clean}
        predictions |= {"prob_attacked": self.victim.probabilities(attacked)}
        predictions |= {"ssim": seen.cpu().numpy(), "linf": linf.cpu().numpy()}
        metrics = self.measure(predictions) | {
            "ssim": seen.mean().item(),
            "psnr": psnr(self.images, attacked).clamp(max=100).mean().item(),  # infinite for an image left as it is
            "linf": linf.max().item(),
            "l2": change.square().sum((1, 2, 3)).sqrt().mean().item(),
        }
        return metrics, predictions


def training_images(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The images that a generator may see, uint8 (M, S, S, channels), and the indices of those to use."""
    if len(data.test_ids):
        return data.test_images, np.arange(len(data.test_ids))
    return data.images, data.train


def perturb(generator: nn.Module, images: Tensor, config: AttackConfig) -> Tensor:
    """scale · tanh(m(x) · g(x)), cut so that the images stay in [0, 1]: what is added to them.

    m(x), the images' local variance to a power, puts it where their own texture hides it.
    """
    output = generator(images).float()
    if config.contrast_masking:
        output = output * contrast_masking(images) ** config.contrast_masking
    return (images + config.scale * output.tanh()).clamp(0, 1) - images


@torch.inference_mode()
def perturbations(generator: nn.Module, images: Tensor, config: AttackConfig) -> Tensor:
    """Of all images, (N, channels, S, S) in [0, 1]."""
    with autocast(config, images.device):
        return torch.cat([perturb(generator, batch, config) for batch in images.split(EVAL_BATCH)])


def predict(
    generator: nn.Module,
    images: np.ndarray,
    config: AttackConfig,
    *,
    factor: float = 1.0,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Attacked images, uint8 (N, S, S, channels), of images like that; `factor` is `val_factor` of the metrics."""
    device = torch.device(device)
    unit = to_unit(DeviceArray(images, device)[torch.arange(len(images))])
    attacked = rounded(unit + factor * perturbations(generator, unit, config))
    return (attacked * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def check(config: AttackConfig, data: Data) -> None:
    """Raise `ValueError` where `config` asks for what there is not, or `data` do not have."""
    check_images(config, data)
    check_name(config.architecture, config.image_size)
    parse_goal(config.goal, data.classes)


def check_victim(file: str | Path, classes: tuple[str, ...], data: Data) -> None:
    """Raise `ValueError` unless the victim in `file` knows the classes of the data."""
    if classes != data.classes:
        victim, those = contrast(classes, data.classes)
        raise ValueError(
            f"a victim must know the classes of the data, but {file} knows {victim}, while the data have {those}: give"
            " a classify run on these data"
        )


def new_model(config: AttackConfig, data: Data) -> nn.Module:
    """The untrained generator."""
    return _build(config, data.images.shape[-1])


def input_size(name: str, image_size: int) -> int:
    """The size that the generator sees: the images' own."""
    return image_size


def checkpoint(config: AttackConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict:
    """What a checkpoint file holds; `torch.load(weights_only=True)` reads it, `restore` rebuilds the generator."""
    return pack_checkpoint("attack", config, data, weights, metrics) | {"channels": data.images.shape[-1]}


def restore(saved: dict, *, device: str | torch.device = "cpu") -> tuple[nn.Module, AttackConfig]:
    """The generator of a checkpoint, in eval mode, and its configuration."""
    config = AttackConfig.from_dict(saved["config"])
    generator = _build(config, saved["channels"])
    generator.load_state_dict(saved["model"])
    return generator.to(device, memory_format=torch.channels_last).eval(), config


def _build(config: AttackConfig, channels: int) -> nn.Module:
    objective = cache(lambda device: Objective(config, device))  # the victim is loaded when it is asked
    return build_generator(
        config.architecture,
        image_size=config.image_size,
        in_channels=channels,
        activation=config.activation,
        middle=config.middle,
        width=config.width,
        descent=lambda images: objective(images.device).descent(images),
    )
