"""A linear probe for masks: logistic regression on the maps of a frozen encoder, cell by cell."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from voctrain.config import SegmentConfig
from voctrain.data import Data
from voctrain.data.class_names import VOID
from voctrain.images import to_unit
from voctrain.metrics.segmentation import confusion, mask_metrics
from voctrain.models import Segmenter, build_segmenter
from voctrain.models.decoders import split_name
from voctrain.precision import autocast

STRIDE = 8  # pixels per side of a cell
CELLS = 100  # of each training image
STRENGTH = 0.01  # scikit-learn's C, of features of variance 1
STEPS = 100  # of the solver; more change little
BATCH = 16  # images


def pixel_probe_metrics(config: SegmentConfig, data: Data, *, device: str | torch.device = "cpu") -> dict[str, float]:
    """The validation metrics of the probe of `CELLS` random cells of each training image, see `mask_metrics`.

    Its features are all maps of the encoder of `config.architecture`, with `config.weights` before any training. No
    mask in train and val may be entirely void. Raises `ValueError` unless the segmenter is a decoder on a pyramid of
    timm's, and for unavailable weights.
    """
    decoder, _ = split_name(config.architecture) or ("", "")
    if decoder in ("", "dpt"):
        raise ValueError(f"a probe requires a pyramid, DECODER/ENCODER, but got architecture={config.architecture}")
    assert data.masks is not None
    device = torch.device(device)
    options = {"image_size": config.image_size, "weights": config.weights}
    model = build_segmenter(config.architecture, **options).to(device).to(memory_format=torch.channels_last).eval()
    rng = np.random.default_rng(0)
    features, targets = [], []
    for index in np.array_split(data.train, range(BATCH, len(data.train), BATCH)):
        maps = _maps(model, torch.from_numpy(data.images[index]).to(device), config)
        truths = _cells(torch.from_numpy(data.masks[index]), model, maps.shape[-1])
        for cells, truth in zip(maps.cpu(), truths, strict=True):
            known = np.flatnonzero(truth.flatten() != VOID)
            chosen = rng.permutation(known)[:CELLS]
            features.append(cells.flatten(1).T[chosen].numpy())
            targets.append(truth.flatten()[chosen].numpy())
    rows, classes = np.concatenate(features), np.concatenate(targets)
    if len(set(classes.tolist())) < 2:
        raise ValueError("a probe requires cells of two classes in the training images: use larger images")
    scale = float(rows.std()) or 1.0
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        fitted = LogisticRegression(C=STRENGTH, max_iter=STEPS).fit(rows / scale, classes)
    weight = torch.from_numpy(np.atleast_2d(fitted.coef_) / scale).float().to(device)
    bias = torch.from_numpy(fitted.intercept_).float().to(device)
    if len(weight) == 1:  # of two classes, scikit-learn has the second one's only
        weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
    names, counts = torch.from_numpy(fitted.classes_).long(), []
    for index in np.array_split(data.val, range(BATCH, len(data.val), BATCH)):
        maps = _maps(model, torch.from_numpy(data.images[index]).to(device), config)
        logits = torch.einsum("kf,bfhw->bkhw", weight, maps) + bias[:, None, None]
        covered = _covered(model, data.images.shape[1])
        whole = F.interpolate(logits, (covered, covered), mode="bilinear", align_corners=False).argmax(1).cpu()
        side = data.images.shape[1]
        truths = torch.from_numpy(data.masks[index])
        counts.append(confusion(truths, names[whole[:, :side, :side]], 1 + len(data.classes)))
    return mask_metrics(torch.cat(counts).numpy())


def _covered(model: Segmenter, side: int) -> int:
    """The side of the square that maps cover, in pixels of the images: those are padded, or resized as a whole."""
    return side if model.input_size is not None else side + -side % model.stride


@torch.inference_mode()
def _maps(model: Segmenter, images: Tensor, config: SegmentConfig) -> Tensor:
    """All maps of the encoder as features of cells, float32 (B, F, G, G), of images uint8 (B, S, S, 3)."""
    seen: list[Tensor] = []
    hook = model.net.get_submodule("encoder").register_forward_hook(lambda module, given, maps: seen.extend(maps[1:]))
    try:
        with autocast(config, images.device):
            model(to_unit(images))
    finally:
        hook.remove()
    cells = _covered(model, images.shape[1]) // STRIDE
    maps = [each.float() for each in seen if each.shape[1]]  # transformers have an empty one
    return torch.cat(
        [
            F.adaptive_avg_pool2d(each, cells)
            if each.shape[-1] > cells
            else F.interpolate(each, (cells, cells), mode="bilinear", align_corners=False)
            for each in maps
        ],
        1,
    )


def _cells(masks: Tensor, model: Segmenter, cells: int) -> Tensor:
    """The classes uint8 (B, cells, cells) in the centers of the cells of masks uint8 (B, S, S)."""
    more = _covered(model, masks.shape[-1]) - masks.shape[-1]
    padded = F.pad(masks, (0, more, 0, more), value=VOID)
    return F.interpolate(padded[:, None].float(), (cells, cells), mode="nearest-exact")[:, 0].to(torch.uint8)
