"""Multi-label classification: one training, and the predictions of a trained model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voctrain.augment.mixing import mix
from voctrain.augment.transforms import augment
from voctrain.checkpoint import pack_checkpoint
from voctrain.config import ClassifyConfig
from voctrain.data import Data
from voctrain.device_array import DeviceArray
from voctrain.images import EVAL_BATCH, channel_statistics, check_images, to_unit
from voctrain.loop import Epoch, fit
from voctrain.losses.classification import classification_loss, object_cross_entropy
from voctrain.metrics.classification import classify_metrics
from voctrain.models import build_classifier
from voctrain.models.auxiliary import outputs_of
from voctrain.models.classifiers import check_name, input_size
from voctrain.models.mask_heads import MaskHeads
from voctrain.models.weights import file_origin
from voctrain.precision import autocast
from voctrain.sampling import check_sampling, sampling_pool
from voctrain.seeding import seed_epoch

__all__ = ["check", "checkpoint", "file_architecture", "input_size", "new_model", "predict", "restore", "train"]

METRIC = "val_mAP"
TRANSFORMERS = ("vit_", "swin_")  # have no maps for mask_loss
AUXILIARY = 0.3  # weight of an auxiliary output's loss (Szegedy et al., 2015)


def train(
    config: ClassifyConfig, data: Data, *, device: str | torch.device = "cpu", resume: dict[str, Any] | None = None
) -> Iterator[Epoch]:
    """Train one classifier on `data.train`, scored on `data.val` after each epoch where there is one.

    `resume` is the `state` of an earlier `Epoch`. Predictions: ids, y_true (N, C) uint8, y_prob (N, C) float32.
    """
    check(config, data)
    device = torch.device(device)
    seed_epoch(config.seed, 0)
    model = new_model(config, data)
    images = DeviceArray(data.images, device)
    masks = DeviceArray(data.masks, device) if config.mask_loss else None
    labels = DeviceArray(data.labels.astype(np.float32), device)
    criterion = classification_loss(config, data.labels[data.train]).to(device)
    pool = sampling_pool(data.labels[data.train], config, data.classes)
    train_index, val_index = torch.tensor(data.train), torch.tensor(data.val)

    def batch_loss(index: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        index = index.repeat(config.aug_repeats)
        mask = None if masks is None else masks[index]
        batch, target, mask = vary(to_unit(images[index]), labels[index], config, mask)
        if mask is None:
            logits, *auxiliary = outputs_of(model(batch))
            located = 0.0
        else:
            with model.mask_heads.watch(model.net) as maps:
                logits, *auxiliary = outputs_of(model(batch))
            located = config.mask_loss * sum(object_cross_entropy(m, mask) for m in maps) / len(maps)
        loss = criterion(logits, target) + AUXILIARY * sum(criterion(a, target) for a in auxiliary) + located
        return loss, (logits.detach(), target)

    def train_metrics(outputs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        logits, target = (torch.cat(parts).float().cpu() for parts in zip(*outputs, strict=True))
        return classify_metrics((target >= 0.5).numpy(), logits.sigmoid().numpy(), prefix="train_")

    def evaluate(model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        if not len(data.val):
            return {}, {}
        logits = _logits(model, images, val_index, config)
        loss = criterion(logits, labels[val_index]).item()
        if config.reduction == "sum":  # as of one batch, like train_loss
            loss *= min(config.batch_size, len(data.train)) / len(data.val)
        truth, y_prob = data.labels[data.val], logits.sigmoid().cpu().numpy()
        if not np.isfinite(y_prob).all():
            raise FloatingPointError("the validation outputs are no longer finite")
        ids = np.array([data.ids[i] for i in data.val])
        return (
            {"val_loss": loss, **classify_metrics(truth, y_prob)},
            {"ids": ids, "y_true": truth, "y_prob": y_prob},
        )

    yield from fit(
        model,
        config,
        draw=lambda: train_index[pool.draw()],
        batch_loss=batch_loss,
        train_metrics=train_metrics,
        evaluate=evaluate,
        metric=METRIC,
        device=device,
        resume=resume,
    )


def vary(
    images: Tensor, target: Tensor, config: ClassifyConfig, masks: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A batch as the model trains on it, augmented and then mixed; shapes as of `mix`."""
    if masks is None:
        images = augment(images, config)
    else:
        images, masks = augment(images, config, masks)
    return mix(images, target, config, masks)


def check(config: ClassifyConfig, data: Data) -> None:
    """Raise `ValueError` where `config` asks for what there is not, or `data` do not have."""
    check_images(config, data)
    check_name(config.architecture)
    if config.weights == "published":
        raise ValueError("weights=published are those of segmenters: use weights=imagenet")
    if config.mask_loss and data.masks is None:
        raise ValueError(f"mask_loss needs masks, and these data have none: leave mask_loss={config.mask_loss:g} out")
    if config.mask_loss and config.architecture.startswith(TRANSFORMERS):
        raise ValueError(f"mask_loss needs a convolutional network, but got architecture={config.architecture}")
    check_sampling(config, data.classes)


def new_model(config: ClassifyConfig, data: Data) -> nn.Module:
    """The untrained model; its normalization is that of its weights, else the statistics of the train fold."""
    model = build_classifier(
        config.architecture,
        num_classes=len(data.classes),
        image_size=config.image_size,
        weights=config.weights,
        in_channels=data.images.shape[-1],
    )
    if not model.own_normalization:
        model.set_normalization(*channel_statistics(data.images, data.train))
    if config.mask_loss:
        model.mask_heads = MaskHeads(model.net, image_size=model.input_size, num_classes=len(data.classes))
    return model


def file_architecture(path: str) -> str | None:
    """The architecture that a weights file of ours is for; None where it does not say."""
    return file_origin(path)[1]


def checkpoint(config: ClassifyConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict:
    """What a checkpoint file holds; `torch.load(weights_only=True)` reads it, `restore` rebuilds the model."""
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("mask_heads.")}
    return pack_checkpoint("classify", config, data, kept, metrics)


def restore(saved: dict, *, device: str | torch.device = "cpu") -> tuple[nn.Module, ClassifyConfig]:
    """The model of a checkpoint, in eval mode, [0, 1] images → logits, and its configuration."""
    config = ClassifyConfig.from_dict(saved["config"])
    model = build_classifier(
        config.architecture,
        num_classes=len(saved["classes"]),
        image_size=saved["image_size"],
        in_channels=len(saved["mean"]),
    )
    model.load_state_dict(saved["model"])
    return model.to(device, memory_format=torch.channels_last).eval(), config


def predict(
    model: nn.Module,
    images: np.ndarray,
    config: ClassifyConfig,
    *,
    device: str | torch.device = "cpu",
    flip: bool = False,
) -> np.ndarray:
    """Probabilities (N, C) float32 of images uint8 (N, S, S, 3); `flip` averages with the mirrored image's."""
    resident = DeviceArray(images, torch.device(device))
    with torch.inference_mode():
        logits = _logits(model, resident, torch.arange(len(images)), config)
        probabilities = logits.sigmoid()
        if flip:
            probabilities = (
                probabilities + _logits(model, resident, torch.arange(len(images)), config, -1).sigmoid()
            ) / 2
    return probabilities.cpu().numpy()


def _logits(model: nn.Module, images: DeviceArray, index: Tensor, config: ClassifyConfig, *flips: int) -> Tensor:
    with autocast(config, images.device):
        return torch.cat([model(to_unit(images[i]).flip(flips)).float() for i in index.split(EVAL_BATCH)])
