"""Semantic segmentation: training, checkpoints and prediction."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voctrain.augment.copy_paste import copy_paste, draw_points
from voctrain.augment.transforms import augment
from voctrain.checkpoint import pack_checkpoint
from voctrain.config import SegmentConfig
from voctrain.data import Data
from voctrain.data.class_names import VOID
from voctrain.data.resizing import place, window
from voctrain.device_array import DeviceArray
from voctrain.images import EVAL_BATCH, arrays_on, channel_statistics, check_images, pixel_counts, to_unit
from voctrain.loop import Epoch, fit
from voctrain.losses.segmentation import MaskLoss, total_cross_entropy
from voctrain.metrics.segmentation import confusion, mask_dice, mask_metrics
from voctrain.models import Segmenter, build_segmenter
from voctrain.models.auxiliary import outputs_of
from voctrain.models.deployed import DeployedSegmenter
from voctrain.models.ensemble import SegmenterEnsemble, members_of
from voctrain.models.fine_tuning import fine_tune
from voctrain.models.segmenters import check_name
from voctrain.models.weights_file import file_origin
from voctrain.pixel_probe import set_pixel_probe, start_from_pixel_probe
from voctrain.precision import autocast
from voctrain.sampling import check_sampling, sampling_pool
from voctrain.seeding import seed_epoch

METRIC = "val_mIoU"


def train(
    config: SegmentConfig, data: Data, *, device: str | torch.device = "cpu", resume: dict[str, Any] | None = None
) -> Iterator[Epoch]:
    """Train a segmenter on `data.train`, evaluated at this size on `data.val` (if not empty) after each epoch.

    resume: the `state` of an earlier `Epoch`. Predictions: ids, confusion (N, C, C) int32, dice (N,) float32.
    """
    check(config, data)
    data = with_masks(data)
    assert data.masks is not None
    device = torch.device(device)
    seed_epoch(config.seed, 0)
    model = new_model(config, data)
    if resume is None and config.head_init == "probe":
        start_from_pixel_probe(model, config, data, device)
    images, masks, train_images, train_masks = arrays_on(device, data, config, masks=True)
    assert masks is not None
    assert train_masks is not None
    num_classes = 1 + len(data.classes)
    criterion = MaskLoss(config, pixel_counts(data.masks, data.train, num_classes)).to(device)
    pool = sampling_pool(data.labels[data.train], config, data.classes)
    train_index = torch.tensor(data.train)
    rarity = class_rarity(data).to(device)

    def batch_loss(index: Tensor) -> tuple[Tensor, Tensor]:
        index = index.repeat(config.aug_repeats)
        batch, target = vary(to_unit(train_images[index]), train_masks[index], config, rarity)
        logits, *auxiliary = outputs_of(model(batch))
        loss = criterion(logits, target) + (config.aux_weight or 0) * sum(criterion(a, target) for a in auxiliary)
        return loss, confusion(target, logits.detach().argmax(1), num_classes)

    yield from fit(
        model,
        config,
        draw=lambda: train_images.order(train_index[pool.draw()]),
        batch_loss=batch_loss,
        train_metrics=lambda outputs: mask_metrics(torch.cat(outputs).cpu().numpy(), prefix="train_"),
        evaluate=lambda model: _validated(model, config, data, images, masks),
        metric=METRIC,
        device=device,
        resume=resume,
    )


def _validated(
    model: Segmenter, config: SegmentConfig, data: Data, images: DeviceArray, masks: DeviceArray
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The metrics on the validation images and the predictions behind them; both are empty without such images."""
    if not len(data.val):
        return {}, {}
    counts, dice, total, known = [], [], 0.0, 0
    for index in torch.tensor(data.val).split(EVAL_BATCH):
        target, logits = masks[index], _logits(model, images[index], config)
        total += total_cross_entropy(logits, target)
        predicted = logits.argmax(1)
        counts.append(confusion(target, predicted, 1 + len(data.classes)))
        dice.append(mask_dice(target, predicted))
        known += counts[-1].sum()
    loss = float(total / max(int(known), 1))
    if not np.isfinite(loss):
        raise FloatingPointError("the validation outputs are no longer finite")
    counts, dice = torch.cat(counts).int().cpu().numpy(), torch.cat(dice).float().cpu().numpy()
    ids = np.array([data.ids[i] for i in data.val])
    metrics = {"val_loss": loss, **mask_metrics(counts), "val_dice": float(dice.mean())}
    return metrics, {"ids": ids, "confusion": counts, "dice": dice}


def probe_metrics(config: SegmentConfig, data: Data, *, device: str | torch.device = "cpu") -> dict[str, float]:
    """The validation metrics of the probe of a `linear/ENCODER` with `config.weights`, before any training."""
    check(config, data)
    data, device = with_masks(data), torch.device(device)
    assert data.masks is not None
    model = new_model(config, data)
    set_pixel_probe(model, config, data, device)
    images, masks = (DeviceArray(part, device, budget=0) for part in (data.images, data.masks))  # each is needed once
    with torch.inference_mode():
        return _validated(model, config, data, images, masks)[0]


def with_masks(data: Data) -> Data:
    """The data without images in train and val whose masks are entirely void, as missing masks are."""
    assert data.masks is not None
    known = np.array([(mask != VOID).any() for mask in data.masks])
    return dataclasses.replace(data, train=data.train[known[data.train]], val=data.val[known[data.val]])


def class_rarity(data: Data) -> Tensor:
    """Weights (C,) of the classes for cropping and copying, proportional to 1 / sqrt(number of images)."""
    return torch.tensor(data.labels[data.train].sum(0), dtype=torch.float32).clamp(min=1) ** -0.5


def vary(images: Tensor, masks: Tensor, config: SegmentConfig, rarity: Tensor) -> tuple[Tensor, Tensor]:
    """Augment images (B, 3, S, S) and masks (B, S, S) for training, then paste objects."""
    focus = draw_points(masks, rarity, config.crop_focus) if config.crop_focus else None
    images, masks = augment(images, config, masks, focus, size=config.image_size)
    return copy_paste(images, masks, rarity, config.copy_paste) if config.copy_paste else (images, masks)


def check(config: SegmentConfig, data: Data) -> None:
    """Raise `ValueError` if `config` names something unknown or does not fit `data`."""
    check_images(config, data)
    check_name(config.architecture)
    if data.masks is None:
        raise ValueError(
            "segmentation requires masks, but these data have none: use a set with SegmentationClass or seg"
        )
    kinds: set[int] = set()
    for i in data.train:
        kinds.update(np.flatnonzero(np.bincount(data.masks[i].ravel(), minlength=256)[:VOID]).tolist())
        if len(kinds) > 1:  # after an image or two: this is called often
            break
    if not kinds:
        raise ValueError("segmentation requires masks, but all training masks are entirely void: use other data")
    if len(kinds) == 1:
        name = ("background", *data.classes)[kinds.pop()]
        raise ValueError(f"segmentation needs pixels of two kinds, but all training masks are {name}: use other data")
    if len(data.val) and all((data.masks[i] == VOID).all() for i in data.val):
        raise ValueError(
            "segmentation needs masks in validation, but those of all validation images are entirely void: choose other"
            " images with --val"
        )
    check_sampling(config, data.classes)


def new_model(config: SegmentConfig, data: Data) -> Segmenter:
    """The untrained model. It normalizes as its weights were trained, or else by the training fold's statistics."""
    model = build_segmenter(
        config.architecture,
        num_classes=1 + len(data.classes),
        image_size=config.image_size,
        width=config.width,
        depth=config.depth,
        weights=config.weights,
        classes=data.classes,
    )
    if not model.own_normalization:
        model.set_normalization(*channel_statistics(data.images, data.train))
    fine_tune(model, config)
    return model


def input_size(name: str, image_size: int) -> int:
    """The size of the network's input: that of the images."""
    return image_size


def file_architecture(path: str) -> str | None:
    """The architecture for a voc-search weights file, or None. A classifier becomes the encoder of an FPN."""
    task, architecture = file_origin(path)
    return f"fpn_{architecture}" if task == "classify" else architecture


def checkpoint(config: SegmentConfig, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]) -> dict:
    """The contents of a checkpoint file, loadable with `torch.load(weights_only=True)`; see `restore`."""
    return pack_checkpoint("segment", config, data, weights, metrics)


def restore(saved: dict, *, device: str | torch.device = "cpu") -> tuple[Segmenter | SegmenterEnsemble, SegmentConfig]:
    """The model of a checkpoint in eval mode, which maps [0, 1] images to logits, and its (first) configuration."""
    config = SegmentConfig.from_dict(saved["config"])
    if "members" in saved:
        return SegmenterEnsemble(members_of(saved, restore)).to(device).eval(), config
    model = build_segmenter(
        config.architecture,
        num_classes=1 + len(saved["classes"]),
        image_size=saved["image_size"],
        width=config.width,
        depth=config.depth,
    )
    model.load_state_dict(saved["model"])
    return model.to(device).to(memory_format=torch.channels_last).eval(), config


def deploy(saved: dict) -> DeployedSegmenter:
    """The model of a checkpoint for images of any size, in eval mode."""
    model, _ = restore(saved)
    return DeployedSegmenter(model, image_size=saved["image_size"], resize=saved.get("resize", "squash")).eval()


def predict(
    model: Segmenter | SegmenterEnsemble,
    images: np.ndarray,
    config: SegmentConfig,
    *,
    index: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    resize: str = "squash",
    log_prior: np.ndarray | None = None,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Yield the label map, uint8 (H, W), of each of the images uint8 (N, S, S, 3), or of the N images at an index.

    sizes: height and width of each map, (N, 2); by default S. resize: how images of these sizes became squares.
    log_prior: log-probabilities of each image's classes, (N, C), background first, which are added to its logits.
    options: see `predict_logits`.
    """
    index = np.arange(len(images)) if index is None else index
    sizes = np.full((len(index), 2), images.shape[1]) if sizes is None else sizes
    priors = np.zeros((len(index), 1)) if log_prior is None else log_prior
    predicted = predict_logits(model, images, config, index=index, **options)
    for logits, size, prior in zip(predicted, sizes, priors, strict=True):
        yield label_map(logits, size, prior, resize)


def predict_logits(
    model: Segmenter | SegmenterEnsemble,
    images: np.ndarray,
    config: SegmentConfig,
    *,
    index: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Iterator[Tensor]:
    """Yield the logits (C, S, S) float32 of each of the images uint8 (N, S, S, 3), or of those at an index.

    flip: average with the logits of the mirrored image. scales: average over the image at these relative sizes.
    """
    rows = DeviceArray(images, torch.device(device), budget=0)  # each is needed once
    for part in torch.as_tensor(np.arange(len(images)) if index is None else index).split(EVAL_BATCH):
        batch = rows[part]
        with torch.inference_mode():  # must not include the yield: the caller's code would run in it
            logits = torch.zeros(())
            for scale in scales:
                for flips in ((), (-1,))[: 1 + flip]:
                    logits = logits + _logits(model, batch, config, scale, flips)
            logits = logits / (len(scales) * (1 + flip))
        yield from logits


@torch.inference_mode()
def label_map(logits: Tensor, size: Sequence[int], prior: np.ndarray, resize: str = "squash") -> np.ndarray:
    """The class with the greatest logit, uint8 (H, W) of this size, from logits (C, h, w) and a prior (C,) or (1,).

    resize: how the image of this size became the square that the logits are of. What a crop left out is background.
    Logits are up-sampled and compared one class at a time: a large image needs two planes, not one per class.
    """
    height, width = (int(side) for side in size)
    part = window(height, width, resize)
    size = [part.height, part.width]
    best = torch.full(size, -torch.inf, device=logits.device)
    label = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    logits = logits + torch.tensor(prior, dtype=logits.dtype, device=logits.device)[:, None, None]
    for number, plane in enumerate(logits):
        plane = F.interpolate(plane[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        label[plane > best] = number
        best = torch.maximum(best, plane)
    return place(label.cpu().numpy(), (height, width), resize)


def _logits(
    model: nn.Module, images: Tensor, config: SegmentConfig, scale: float = 1.0, flips: tuple[int, ...] = ()
) -> Tensor:
    """Logits, float32 (B, C, S, S), of images uint8 (B, S, S, 3) that are scaled and flipped for the network."""
    batch, size = to_unit(images).flip(flips), images.shape[1:3]
    if scale != 1:
        batch = F.interpolate(batch, [max(1, round(side * scale)) for side in size], mode="bilinear", antialias=True)
    with autocast(config, images.device):
        logits = outputs_of(model(batch))[0].float().flip(flips)
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size, mode="bilinear", align_corners=False)
