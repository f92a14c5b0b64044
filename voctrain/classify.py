"""Multi-label classification: training, checkpoints and prediction."""

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
from voctrain.features import last_linear
from voctrain.images import EVAL_BATCH, arrays_on, channel_statistics, check_images, pixel_counts, to_unit
from voctrain.loop import Epoch, fit
from voctrain.losses.classification import classification_loss, object_cross_entropy
from voctrain.metrics.classification import classify_metrics
from voctrain.models import Classifier, build_classifier
from voctrain.models.classifiers import check_name, input_size
from voctrain.models.deployed import DeployedClassifier
from voctrain.models.ensemble import ClassifierEnsemble, members_of
from voctrain.models.fine_tuning import fine_tune
from voctrain.models.mask_heads import MaskHeads, MaskPooling
from voctrain.models.weights_file import file_origin
from voctrain.pixel_probe import set_pixel_probe
from voctrain.precision import autocast
from voctrain.probe import start_from_probe
from voctrain.sampling import check_sampling, sampling_pool
from voctrain.seeding import seed_epoch

__all__ = [
    "check",
    "checkpoint",
    "deploy",
    "file_architecture",
    "input_size",
    "new_model",
    "predict",
    "restore",
    "train",
]

METRIC = "val_mAP"
AUXILIARY = 0.3  # weight of an auxiliary output's loss (Szegedy et al., 2015)


def train(
    config: ClassifyConfig, data: Data, *, device: str | torch.device = "cpu", resume: dict[str, Any] | None = None
) -> Iterator[Epoch]:
    """Train a classifier on `data.train`, evaluated on `data.val` (if not empty) after each epoch.

    resume: the `state` of an earlier `Epoch`. Predictions: ids, y_true (N, C) uint8, y_prob (N, C) float32.
    """
    check(config, data)
    device = torch.device(device)
    seed_epoch(config.seed, 0)
    model = new_model(config, data)
    if resume is None and config.head_init == "probe":
        start_from_probe(model, config, data, device)
        if config.mask_pooling:
            set_pixel_probe(model, config, data, device)
    images, _, train_images, masks = arrays_on(device, data, config, masks=bool(config.mask_loss))
    labels = DeviceArray((data.labels if data.soft_labels is None else data.soft_labels).astype(np.float32), device)
    criterion = classification_loss(config, data.labels[data.train]).to(device)
    pool = sampling_pool(data.labels[data.train], config, data.classes)
    train_index, val_index = torch.tensor(data.train), torch.tensor(data.val)

    def batch_loss(index: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        index = index.repeat(config.aug_repeats)
        mask = None if masks is None else masks[index]
        batch, target, mask = vary(to_unit(train_images[index]), labels[index], config, mask)
        (logits, *auxiliary), maps = model.with_maps(batch)
        loss = criterion(logits, target) + AUXILIARY * sum(criterion(a, target) for a in auxiliary)
        if mask is not None:
            loss = loss + config.mask_loss * sum(object_cross_entropy(m, mask) for m in maps) / len(maps)
        return loss, (logits.detach(), target)

    def evaluate(model: Classifier) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        if not len(data.val):
            return {}, {}
        logits = _logits(model, images, val_index, config)
        loss = criterion(logits, labels[val_index]).item()
        if config.reduction == "sum":  # scaled to one batch, like train_loss
            loss *= min(config.batch_size, len(data.train)) / len(data.val)
        truth, y_prob = data.labels[data.val], logits.sigmoid().cpu().numpy()
        if not np.isfinite(y_prob).all():
            raise FloatingPointError("the validation outputs are no longer finite")
        ids = np.array([data.ids[i] for i in data.val])
        metrics = {"val_loss": loss, **classify_metrics(truth, y_prob)}
        return metrics, {"ids": ids, "y_true": truth, "y_prob": y_prob}

    yield from fit(
        model,
        config,
        draw=lambda: train_images.order(train_index[pool.draw()]),
        batch_loss=batch_loss,
        train_metrics=_train_metrics,
        evaluate=evaluate,
        metric=METRIC,
        device=device,
        resume=resume,
    )


def vary(
    images: Tensor, target: Tensor, config: ClassifyConfig, masks: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Augment a batch for training, then mix it; for the shapes see `mix`."""
    if masks is None:
        images = augment(images, config, size=config.image_size)
    else:
        images, masks = augment(images, config, masks, size=config.image_size)
    return mix(images, target, config, masks)


def check(config: ClassifyConfig, data: Data) -> None:
    """Raise `ValueError` if `config` names something unknown or does not fit `data`."""
    check_images(config, data)
    check_name(config.architecture)
    if config.weights == "published":
        raise ValueError("weights=published is for segmenters: use weights=imagenet")
    if config.head_init == "probe" and config.weights == "none":
        raise ValueError("head_init=probe requires pretrained weights: set weights, or omit head_init")
    for name in ("mask_loss", "mask_pooling"):
        if getattr(config, name) and data.masks is None:
            raise ValueError(f"{name} requires masks, but these data have none: omit {name}")
    check_sampling(config, data.classes)


def new_model(config: ClassifyConfig, data: Data) -> Classifier:
    """The untrained model. It normalizes as its weights were trained, or else by the training fold's statistics."""
    model = build_classifier(
        config.architecture,
        num_classes=len(data.classes),
        image_size=config.image_size,
        weights=config.weights,
        classes=data.classes,
        in_channels=data.images.shape[-1],
    )
    if not model.own_normalization:
        model.set_normalization(*channel_statistics(data.images, data.train))
    fine_tune(model, config)
    if config.head_init == "probe":
        last_linear(model)  # raises if it has none
    options = {"image_size": model.input_size, "num_classes": len(data.classes)}
    if config.mask_pooling:
        assert data.masks is not None
        model.mask_heads = MaskPooling(model.net, **options)
        counts = pixel_counts(data.masks, data.train, 1 + len(data.classes))
        model.mask_heads.located.copy_(torch.from_numpy(counts[1:] > 0))
    elif config.mask_loss:
        model.mask_heads = MaskHeads(model.net, **options)
    return model


def file_architecture(path: str) -> str | None:
    """The architecture of a voc-search weights file; None if the file does not name one."""
    return file_origin(path)[1]


def checkpoint(config: ClassifyConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict:
    """The contents of a checkpoint file, loadable with `torch.load(weights_only=True)`; see `restore`."""
    idle = () if config.mask_pooling else ("mask_heads.",)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(idle)}
    return pack_checkpoint("classify", config, data, kept, metrics)


def restore(
    saved: dict, *, device: str | torch.device = "cpu"
) -> tuple[Classifier | ClassifierEnsemble, ClassifyConfig]:
    """The model of a checkpoint in eval mode, which maps [0, 1] images to logits, and its (first) configuration."""
    config = ClassifyConfig.from_dict(saved["config"])
    if "members" in saved:
        return ClassifierEnsemble(members_of(saved, restore)).to(device).eval(), config
    model = build_classifier(
        config.architecture,
        num_classes=len(saved["classes"]),
        image_size=saved["image_size"],
        in_channels=len(saved["mean"]),
    )
    if config.mask_pooling:
        options = {"image_size": model.input_size, "num_classes": len(saved["classes"])}
        model.mask_heads = MaskPooling(model.net, **options)
    model.load_state_dict(saved["model"])
    return model.to(device).to(memory_format=torch.channels_last).eval(), config


def deploy(saved: dict) -> DeployedClassifier:
    """The model of a checkpoint for images of any size, in eval mode."""
    model, _ = restore(saved)
    return DeployedClassifier(model, image_size=saved["image_size"], resize=saved.get("resize", "squash")).eval()


def predict(
    model: nn.Module,
    images: np.ndarray,
    config: ClassifyConfig,
    *,
    device: str | torch.device = "cpu",
    flip: bool = False,
) -> np.ndarray:
    """Probabilities (N, C) float32 of images uint8 (N, S, S, 3); `flip` averages them with those of mirrored images."""
    rows, index = DeviceArray(images, torch.device(device)), torch.arange(len(images))
    with torch.inference_mode():
        probabilities = _logits(model, rows, index, config).sigmoid()
        if flip:
            probabilities = (probabilities + _logits(model, rows, index, config, -1).sigmoid()) / 2
    return probabilities.cpu().numpy()


def _train_metrics(outputs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """The metrics of an epoch's training batches: logits (B, C) and targets (B, C), in [0, 1] after mixing."""
    logits, target = (torch.cat(parts).float().cpu() for parts in zip(*outputs, strict=True))
    return classify_metrics((target >= 0.5).numpy(), logits.sigmoid().numpy(), prefix="train_")


def _logits(model: nn.Module, images: DeviceArray, index: Tensor, config: ClassifyConfig, *flips: int) -> Tensor:
    """Float32 logits (N, C) of the images at these indices, mirrored along the dimensions `flips`."""
    with autocast(config, images.device):
        return torch.cat([model(to_unit(images[i]).flip(flips)).float() for i in index.split(EVAL_BATCH)])
