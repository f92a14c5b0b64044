"""What a frozen classifier sees in the images of a set: the inputs of its last layer, computed once and kept."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from voctrain.config import ClassifyConfig
from voctrain.data import Data
from voctrain.data.array_file import Write, open_arrays, write_arrays
from voctrain.data.cache import cache_dir
from voctrain.device_array import DeviceArray
from voctrain.images import EVAL_BATCH, to_unit
from voctrain.models import Classifier, build_classifier
from voctrain.models.heads import is_auxiliary
from voctrain.models.published import published
from voctrain.models.weights import is_named
from voctrain.precision import autocast, precision_of

FORMAT = 1  # version of the cached features: increment it when the way they are computed changes
VIEWS = 2  # of each image: as it is, and mirrored


def last_linear(model: Classifier) -> nn.Linear:
    """The last layer of a classifier. Raises `ValueError` if it is not linear, as in squeezenets."""
    name = next(name for name in model.last_layers if not is_auxiliary(name))
    layer = model.net.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"a probe requires a network with a linear last layer, but it ends in {layer}: use another, or"
            " head_init=random"
        )
    return layer


def features(
    config: ClassifyConfig,
    data: Data,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The features of the labeled and of the unlabeled images, float32 (VIEWS, N, F) and (VIEWS, M, F).

    They are those of `config.architecture` with `config.weights`, before any training, and come from the cache if they
    have been computed before. `progress` is called with the number of images and the total.
    Raises `ValueError` for weights that are unavailable and for a network without a linear last layer.
    """
    device = torch.device(device)
    parts = {"labeled": data.images, "unlabeled": data.test_images}
    key = hashlib.sha256(repr((FORMAT, *_identity(config, data), str(precision_of(config, device)))).encode())
    path = cache_dir() / "features" / f"{key.hexdigest()[:32]}.arrays"
    if data.file is not None and (known := open_arrays(path)) is not None:
        return known.arrays["labeled"], known.arrays["unlabeled"]
    model = build_classifier(
        config.architecture, image_size=config.image_size, weights=config.weights, in_channels=data.images.shape[-1]
    )
    width = last_linear(model).in_features
    model.to(device).to(memory_format=torch.channels_last).eval()
    shapes = {name: ((VIEWS, len(images), width), "float32") for name, images in parts.items()}
    found = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
    done, total = 0, sum(map(len, parts.values()))
    for name, images in parts.items():
        rows = DeviceArray(images, device)
        for index in torch.arange(len(images)).split(EVAL_BATCH):
            batch = to_unit(rows[index])
            for view in range(VIEWS):
                seen = _inputs_of_last(model, batch.flip(-1) if view else batch, config)
                found[name][view, index.numpy()] = seen.float().cpu().numpy()
            progress(done := done + len(index), total)
    if data.file is not None:

        def fill(write: Write) -> tuple[str, ...]:
            for name, rows in found.items():
                write(name, 0, rows)
            return ()

        try:
            write_arrays(path, shapes, fill)
        except OSError as error:
            warnings.warn(f"the features are computed again each time: they cannot be kept ({error})", stacklevel=2)
    return found["labeled"], found["unlabeled"]


@torch.inference_mode()
def _inputs_of_last(model: Classifier, images: Tensor, config: ClassifyConfig) -> Tensor:
    seen: list[Tensor] = []
    handle = last_linear(model).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        with autocast(config, images.device):
            model(images)
    finally:
        handle.remove()
    return seen[0]


def _identity(config: ClassifyConfig, data: Data) -> tuple[object, ...]:
    """What features depend on."""
    weights = config.weights
    if is_named(weights):
        chosen = published(config.architecture, weights)
        weights = weights if chosen is None else chosen.name
    elif weights != "none":
        weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    counts = len(data.images), len(data.test_images)
    return data.fingerprint, counts, data.resize, config.image_size, config.architecture, weights
