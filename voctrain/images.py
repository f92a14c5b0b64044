"""Batches of images as models take them, and what a training needs to know about its images."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from voctrain.augment.transforms import NEED_COLOR
from voctrain.config import TrainConfig
from voctrain.data import Data
from voctrain.data.class_names import VOID
from voctrain.device_array import DeviceArray

EVAL_BATCH = 64  # images per batch of a prediction; fixed, so that a later prediction equals the one that was scored


def to_unit(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) → float32 (B, C, H, W) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def training_arrays(data: Data, config: TrainConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """The images and masks to train on: the larger ones, if there are any and random crops can show their detail."""
    if data.detail is None or config.crop_scale == 1:
        return data.images, data.masks
    return data.detail, data.detail_masks


class Arrays(NamedTuple):
    """The images and masks of a set on the device, and those to train on."""

    images: DeviceArray
    masks: DeviceArray | None
    train_images: DeviceArray
    train_masks: DeviceArray | None


def arrays_on(device: torch.device, data: Data, config: TrainConfig, *, masks: bool) -> Arrays:
    """masks: whether the training needs any."""

    def pair(images: np.ndarray, of_images: np.ndarray | None) -> tuple[DeviceArray, DeviceArray | None]:
        there = None if of_images is None or not masks else DeviceArray(of_images, device)
        return DeviceArray(images, device), there

    whole, train = (data.images, data.masks), training_arrays(data, config)
    here = pair(*whole)
    return Arrays(*here, *(here if train[0] is data.images else pair(*train)))


def pixel_counts(masks: np.ndarray, index: np.ndarray, num_classes: int) -> np.ndarray:
    """The number of pixels of each class, (C,), in these masks, without void."""
    return sum((np.bincount(masks[i].ravel(), minlength=VOID + 1)[:num_classes] for i in index), np.zeros(num_classes))


def channel_statistics(images: np.ndarray, index: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in [0, 1], of the indexed images of uint8 (N, H, W, C).

    They are exact: computed from the histogram of the 256 levels.
    """
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256))
    for i in index:
        counts += [np.bincount(images[i, ..., c].ravel(), minlength=256) for c in range(len(counts))]
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    return mean.tolist(), np.sqrt(share @ levels**2 - mean**2).tolist()


def check_images(config: TrainConfig, data: Data) -> None:
    """Raise `ValueError` if the images do not have the size or the channels that `config` requires."""
    size, channels = data.images.shape[2:]
    if size != config.image_size:
        raise ValueError(
            f"image_size={config.image_size} must be the size of the data, which were loaded at {size}:"
            f" load them with image_size={config.image_size}"
        )
    colored = [name for name in NEED_COLOR if getattr(config, name)]
    if channels == 1 and colored:
        raise ValueError(f"{colored[0]} needs color images, but these have one channel: leave {colored[0]} out")
