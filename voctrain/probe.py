"""A linear probe: logistic regression on the features of a frozen network, and a head that starts as one.

Starting from a probe keeps fine-tuning from distorting features that a random head would pull at random (LP-FT, Kumar
et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", 2022).
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold

from voctrain.config import ClassifyConfig
from voctrain.data import Data
from voctrain.data.array_file import Write, open_arrays, write_arrays
from voctrain.data.cache import cache_dir
from voctrain.features import features, last_linear
from voctrain.metrics.classification import classify_metrics
from voctrain.models import Classifier

FORMAT = 3  # version of the cached probes: increment it when the way they are fitted changes
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, of features of variance 1
FOLDS = 3
MOST = 5000  # images that the regularization is chosen with


@dataclass(frozen=True)
class Probe:
    """weight: float32 (classes, F). bias: float32 (classes,). strength: scikit-learn's C, of features of variance 1."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    def probabilities(self, views: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) of features (V, N, F), averaged over the views."""
        logits = views @ self.weight.T + self.bias
        return (1 / (1 + np.exp(-logits))).mean(0)


def fit_probe(views: np.ndarray, labels: np.ndarray) -> Probe:
    """The multi-label logistic regression from features (V, N, F) to labels (N, classes), all views of an image alike.

    Its regularization has the lowest log loss in cross-validation: a probe that is too sure of its training images
    leaves nothing to learn from them. A class with one kind of label only gets its frequency.
    """
    rows = np.random.default_rng(0).permutation(len(labels))[:MOST]
    folds = list(KFold(min(FOLDS, len(rows))).split(rows)) if len(rows) > 1 else []
    losses = []
    for strength in STRENGTHS if folds else ():
        predicted = np.empty((len(rows), labels.shape[1]))
        for train, test in folds:
            probe = _fit(views[:, rows[train]], labels[rows[train]], strength)
            predicted[test] = probe.probabilities(views[:, rows[test]])
        losses.append(log_loss(labels[rows].ravel(), predicted.ravel(), labels=(0, 1)))
    best = STRENGTHS[int(np.argmin(losses))] if losses else STRENGTHS[0]
    return _fit(views, labels, best)


def _fit(views: np.ndarray, labels: np.ndarray, strength: float) -> Probe:
    count, width = views.shape[0], views.shape[2]
    rows = views.reshape(-1, width)
    scale = float(rows.std()) or 1.0
    scaled, targets = rows / scale, np.tile(labels, (count, 1))

    def one(column: np.ndarray) -> np.ndarray:
        if column.min() == column.max():
            frequency = (column.sum() / count + 0.5) / (len(column) / count + 1)
            return np.append(np.zeros(width), np.log(frequency / (1 - frequency)))
        model = LogisticRegression(C=strength / count, max_iter=1000).fit(scaled, column)
        return np.append(model.coef_[0] / scale, model.intercept_[0])

    with ThreadPoolExecutor() as pool:
        found = np.array(list(pool.map(one, targets.T)), np.float32)
    return Probe(found[:, :-1], found[:, -1], strength)


def start_from_probe(model: Classifier, config: ClassifyConfig, data: Data, device: torch.device) -> None:
    """Set the last layer of a classifier to the probe of the training images; `model` has seen no training yet.

    A head that came with the weights stays.
    """
    if model.loaded is not None and model.loaded.loaded == model.loaded.total:
        return
    views, _ = features(config, data, device=device)
    probe = kept(fit_probe, views[:, data.train], data.labels[data.train])
    layer = last_linear(model)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(probe.weight.copy()))
        layer.bias.copy_(torch.from_numpy(probe.bias.copy()))


def probe_metrics(config: ClassifyConfig, data: Data, *, device: str | torch.device = "cpu") -> dict[str, float]:
    """The validation metrics of the probe of the training images, see `features` and `classify_metrics`."""
    views, _ = features(config, data, device=device)
    probe = kept(fit_probe, views[:, data.train], data.labels[data.train])
    return classify_metrics(data.labels[data.val], probe.probabilities(views[:1, data.val]))


def kept(fit: Callable[..., Probe], *arrays: np.ndarray) -> Probe:
    """The result of `fit`, from the cache if another training has fitted the same arrays before."""
    key = hashlib.sha256(repr((FORMAT, fit.__name__, [array.shape for array in arrays])).encode())
    for array in arrays:
        key.update(np.ascontiguousarray(array).data)
    path = cache_dir() / "probes" / f"{key.hexdigest()[:32]}.arrays"
    if (known := open_arrays(path)) is None:
        probe = fit(*arrays)
        found = {"weight": probe.weight, "bias": probe.bias, "strength": np.array([probe.strength])}

        def fill(write: Write) -> tuple[str, ...]:
            for name, array in found.items():
                write(name, 0, array)
            return ()

        with suppress(OSError):
            write_arrays(path, {name: (array.shape, str(array.dtype)) for name, array in found.items()}, fill)
        return probe
    return Probe(known.arrays["weight"], known.arrays["bias"], float(known.arrays["strength"][0]))
