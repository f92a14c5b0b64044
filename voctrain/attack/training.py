"""Training and evaluation of a generator of perturbations against a frozen victim."""

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voctrain.attack.goals import parse_goal
from voctrain.attack.objective import Objective
from voctrain.attack.unrolled import unrolled
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
from voctrain.models.deployed import DeployedGenerator
from voctrain.models.generators import check_name
from voctrain.precision import autocast
from voctrain.seeding import seed_epoch

METRIC = "val_score"
HIDING = 10.0  # goal privacy: weight of the similarity above max_ssim in the loss


def train(
    config: AttackConfig, data: Data, *, device: str | torch.device = "cpu", resume: dict[str, Any] | None = None
) -> Iterator[Epoch]:
    """Train a generator, evaluated on `data.val` (if not empty) at equal visibility after each epoch.

    It is trained on the unlabeled test images, or on `data.train` if there are none, and never sees a label.
    resume: the `state` of an earlier `Epoch`. Predictions: ids, y_true, prob_clean and prob_attacked (N, C), ssim and
    linf (N,).
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
        draw=lambda: images.order(index[torch.randperm(len(index))]),
        batch_loss=batch_loss,
        train_metrics=lambda outputs: {},
        evaluate=evaluate,
        metric=METRIC,
        device=device,
        resume=resume,
    )


class AttackEvaluator(Objective):
    """Evaluates perturbations of the validation images by the victim's decisions at equal visibility."""

    def __init__(self, config: AttackConfig, data: Data, device: str | torch.device = "cpu"):
        super().__init__(config, device)
        check_victim(config.victim, self.victim.classes, data)
        self.ids, self.y_true = [data.ids[i] for i in data.val], data.labels[data.val]
        self.images = to_unit(DeviceArray(data.images, torch.device(device))[torch.tensor(data.val)])
        self.clean = self.victim.probabilities(self.images)

    @torch.inference_mode()
    def __call__(self, perturbations: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Metrics and predictions of perturbations (N, channels, S, S), or of a single one for all images.

        They are scaled by one `factor`, down or up, to a mean SSIM of min_ssim (see `scale_factor`; not for goal
        privacy), and the attacked images are rounded to 8 bits. So they may exceed the scale or eps of their attack.
        unscaled_…: score and similarity without scaling. Raises `FloatingPointError` if perturbations are not finite:
        a victim recognizes nothing in NaN, which would count as a perfect attack.
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
        """Metrics, without prefix, and predictions of perturbations without scaling."""
        attacked = rounded(self.images + perturbations)
        seen, change = ssim(self.images, attacked), attacked - self.images
        linf = change.abs().amax((1, 2, 3))
        predictions = {"ids": np.array(self.ids), "y_true": self.y_true, "prob_clean": self.clean}
        predictions |= {"prob_attacked": self.victim.probabilities(attacked)}
        predictions |= {"ssim": seen.cpu().numpy(), "linf": linf.cpu().numpy()}
        metrics = self.measure(predictions) | {
            "ssim": seen.mean().item(),
            "psnr": psnr(self.images, attacked).clamp(max=100).mean().item(),  # infinite for an unchanged image
            "linf": linf.max().item(),
            "l2": change.square().sum((1, 2, 3)).sqrt().mean().item(),
        }
        return metrics, predictions


def training_images(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The images to train a generator on: an array uint8 (M, S, S, channels) and indices into it."""
    if len(data.test_ids):
        return data.test_images, np.arange(len(data.test_ids))
    return data.images, data.train


def perturb(generator: nn.Module, images: Tensor, config: AttackConfig) -> Tensor:
    """The perturbation scale · tanh(m(x) · g(x)), clipped so that the attacked images stay in [0, 1].

    m(x), a power of the local contrast of the images, moves perturbations to where texture hides them.
    """
    output = generator(images).float()
    if config.contrast_masking:
        output = output * contrast_masking(images) ** config.contrast_masking
    return (images + config.scale * output.tanh()).clamp(0, 1) - images


class Perturbation(nn.Module):
    """`perturb` as a module, for squares (B, channels, S, S) in [0, 1]."""

    def __init__(self, generator: nn.Module, config: AttackConfig):
        super().__init__()
        self.generator, self.config = generator, config

    def forward(self, images: Tensor) -> Tensor:
        return perturb(self.generator, images, self.config)


@torch.inference_mode()
def perturbations(generator: nn.Module, images: Tensor, config: AttackConfig) -> Tensor:
    """The perturbations of images (N, channels, S, S) in [0, 1]."""
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
    """Attacked versions of images uint8 (N, S, S, channels), of the same type; factor: `val_factor` of the metrics."""
    device = torch.device(device)
    unit = to_unit(DeviceArray(images, device)[torch.arange(len(images))])
    attacked = rounded(unit + factor * perturbations(generator, unit, config))
    return (attacked * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def check(config: AttackConfig, data: Data) -> None:
    """Raise `ValueError` if `config` names something unknown or does not fit `data`."""
    check_images(config, data)
    check_name(config.architecture, config.image_size)
    parse_goal(config.goal, data.classes)


def check_victim(file: str | Path, classes: tuple[str, ...], data: Data) -> None:
    """Raise `ValueError` unless the victim in `file` has the classes of the data."""
    if classes != data.classes:
        victim, those = contrast(classes, data.classes)
        raise ValueError(
            f"a victim must have the classes of the data, but {file} has {victim}, while the data have {those}: use a"
            " classify run on these data"
        )


def new_model(config: AttackConfig, data: Data) -> nn.Module:
    """The untrained generator."""
    return _build(config, data.images.shape[-1])


def input_size(name: str, image_size: int) -> int:
    """The size of the generator's input: that of the images."""
    return image_size


def checkpoint(config: AttackConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict:
    """The contents of a checkpoint file, loadable with `torch.load(weights_only=True)`; see `restore`."""
    return pack_checkpoint("attack", config, data, weights, metrics) | {"channels": data.images.shape[-1]}


def restore(saved: dict, *, device: str | torch.device = "cpu") -> tuple[nn.Module, AttackConfig]:
    """The generator of a checkpoint in eval mode, and its configuration."""
    config = AttackConfig.from_dict(saved["config"])
    generator = _build(config, saved["channels"])
    generator.load_state_dict(saved["model"])
    return generator.to(device).to(memory_format=torch.channels_last).eval(), config


class DeployedGuided(DeployedGenerator):
    """A generator that follows its victim's gradients; exported, it contains the victim."""

    def exportable(self) -> DeployedGenerator:
        config = self.model.config
        assert isinstance(config, AttackConfig)
        objective = Objective(config)
        objective.victim.to(memory_format=torch.contiguous_format)  # simpler operations than channels last
        example = torch.zeros(2, self.channels, self.image_size, self.image_size)
        copied = copy.deepcopy(self)
        copied.model.get_submodule("generator.net").descent = unrolled(objective.descent, example)
        return copied


def deploy(saved: dict) -> DeployedGenerator:
    """The attack of a checkpoint for images of any size, in eval mode, as visible as it was scored."""
    generator, config = restore(saved)
    guided = config.architecture == "guided"
    deployed = (DeployedGuided if guided else DeployedGenerator)(
        Perturbation(generator, config),
        factor=saved["metrics"].get("val_factor", 1.0),
        channels=saved["channels"],
        image_size=saved["image_size"],
        resize=saved.get("resize", "squash"),
    )
    deployed.needed = config.victim if guided else None
    return deployed.eval()


def _build(config: AttackConfig, channels: int) -> nn.Module:
    objective = cache(lambda device: Objective(config, device))  # the victim is loaded on first use
    return build_generator(
        config.architecture,
        image_size=config.image_size,
        in_channels=channels,
        activation=config.activation,
        middle=config.middle,
        width=config.width,
        descent=lambda images: objective(images.device).descent(images),
    )
