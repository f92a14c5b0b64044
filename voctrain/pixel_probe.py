"""A linear probe for masks: logistic regression on the maps of a frozen encoder, cell by cell.

The layers of a segmenter `linear/ENCODER`, and of a classifier with `mask_pooling`, have the same form, so that their
training can start from the probe, see `voctrain.probe`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from voctrain.config import LabeledConfig
from voctrain.data import Data
from voctrain.data.class_names import VOID
from voctrain.images import to_unit
from voctrain.models import Classifier, Segmenter
from voctrain.models.decoders import Linear
from voctrain.models.linear_maps import CELL, LinearMaps, cell_features
from voctrain.models.mask_heads import MaskPooling
from voctrain.precision import autocast
from voctrain.probe import Probe, kept

CELLS = 100  # at random from each training image
MOST = 40_000  # from all of them
# scikit-learn's C, of features of variance 1. A probe of 1e-2 is a little better (on VOC with EfficientNet-Lite0 at 160
# pixels, val_mIoU 0.345 against 0.334), but so sure of its training images that fine-tuning learns less (0.389 against
# 0.405).
STRENGTH = 1e-3
STEPS = 100  # of the solver; more change little
BATCH = 4  # images


def start_from_pixel_probe(model: Segmenter, config: LabeledConfig, data: Data, device: torch.device) -> None:
    """`set_pixel_probe`, unless the decoder came with the weights; `model` has seen no training yet."""
    if model.loaded is None or model.loaded.loaded < model.loaded.total:
        set_pixel_probe(model, config, data, device)


def set_pixel_probe(model: Segmenter | Classifier, config: LabeledConfig, data: Data, device: torch.device) -> None:
    """Set the linear layers on the maps of a model to the probe of the training images, if a mask of these is known."""
    assert data.masks is not None
    known = np.array([i for i in data.train if (data.masks[i] != VOID).any()])
    if not len(known):
        return
    model.to(device).to(memory_format=torch.channels_last).eval()
    rows, classes = _cells(model, config, data, known)
    probe = kept(fit_pixel_probe, rows, classes, np.bincount(classes, minlength=1 + len(data.classes)))
    layers: list[Any] = list(_linear(model)[0])
    weights = torch.from_numpy(probe.weight.copy()).split([layer.in_channels for layer in layers], 1)
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.copy_(weight[:, :, None, None])
        layers[-1].bias.copy_(torch.from_numpy(probe.bias.copy()))


def fit_pixel_probe(rows: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> Probe:
    """The multinomial logistic regression from features (N, F) to classes (N,).

    counts: the number of cells of each class, (C,). A class without any is as improbable as half a cell.
    """
    weight = np.zeros((len(counts), rows.shape[1]), np.float32)
    bias = np.where(counts > 0, 0, np.log(0.5 / (len(classes) + 1))).astype(np.float32)
    names = np.flatnonzero(counts)
    if len(names) > 1:
        scale = float(rows.std()) or 1.0
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            fitted = LogisticRegression(C=STRENGTH, max_iter=STEPS).fit(rows / scale, classes)
        learned = names[-len(fitted.coef_) :]  # of two classes, scikit-learn has the second one's only
        weight[learned], bias[learned] = fitted.coef_ / scale, fitted.intercept_
    return Probe(weight, bias, STRENGTH)


def _linear(model: Segmenter | Classifier) -> tuple[LinearMaps, Callable[[Tensor], Sequence[Tensor]]]:
    """The linear layers of a model, and what computes their maps from its prepared images."""
    if isinstance(model, Classifier):
        pooling = model.mask_heads
        assert isinstance(pooling, MaskPooling)
        return pooling.layers, lambda images: pooling.maps.of(model.net, images)[1]
    assert isinstance(model.net, Linear)
    return model.net.heads, model.net.encoder


@torch.inference_mode()
def _cells(
    model: Segmenter | Classifier, config: LabeledConfig, data: Data, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 (N, F) and classes uint8 (N,) of random cells of these images."""
    assert data.masks is not None
    maps = _linear(model)[1]
    rng = np.random.default_rng(0)
    most = max(1, min(CELLS, MOST // len(known)))
    rows, classes = [], []
    for index in np.array_split(known, range(BATCH, len(known), BATCH)):
        images = to_unit(torch.from_numpy(data.images[index])).to(model.mean.device)
        with autocast(config, images.device):
            prepared = model.prepared(images)
            features = cell_features(maps(prepared), prepared).float().cpu()
        truths = _centers(torch.from_numpy(data.masks[index]), features.shape[-1], model)
        for cells, truth in zip(features.flatten(2), truths.flatten(1), strict=True):
            chosen = rng.permutation(np.flatnonzero(truth != VOID))[:most]
            rows.append(cells[:, chosen].T.numpy())
            classes.append(truth[chosen].numpy())
    return np.concatenate(rows), np.concatenate(classes)


def _centers(masks: Tensor, cells: int, model: Segmenter | Classifier) -> Tensor:
    """The classes uint8 (B, cells, cells) in the centers of the cells of masks uint8 (B, S, S)."""
    if model.input_size is None:  # images are padded
        more = cells * CELL - masks.shape[-1]
        masks = F.pad(masks, (0, more, 0, more), value=VOID)
    return F.interpolate(masks[:, None].float(), (cells, cells), mode="nearest-exact")[:, 0].to(torch.uint8)
