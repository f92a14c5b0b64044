"""How many flipped labels the label audit finds in a real set, beside cleanlab's rankings if it is installed.

python -m tests.benchmarks.label_audit --data DIR [--seeds 5]

The models are five linear probes on frozen features of EfficientNet-Lite0, with out-of-fold predictions in five folds.
Either 5 % of all labels are flipped, or one label in 5 % of the images. Prints JSON, with means over the seeds:
  first_tenth: the part of the flipped labels in the first tenth of the ranking; added and removed: the part of those
    that became 1, and 0;
  images: the part of the images with a flipped label in the first tenth of the images, by their most doubtful label.
It takes five minutes of processor time.
"""

import argparse
import importlib
import json
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np

from tests.benchmarks.honest_number import FOLDS, SIZES, Probes, Trial, network, out_of_fold
from voctrain.data import load
from voctrain.features import features
from voctrain.label_audit import doubtful_labels

PART = 0.05
TRIALS = (
    Trial(),
    Trial(image_size=128, standardized=True),
    Trial(image_size=96, strength=0.003),
    Trial(strength=0.003, smoothing=0.1, standardized=True, mirrored=True),
    Trial(image_size=128, strength=0.03, components=64),
)


def flips(shape: tuple[int, int], kind: str, rng: np.random.Generator) -> np.ndarray:
    """Which labels are flipped, bool (N, C)."""
    flipped = np.zeros(shape, bool)
    if kind == "labels":
        flipped.flat[rng.choice(flipped.size, round(PART * flipped.size), replace=False)] = True
    else:
        images = rng.choice(shape[0], round(PART * shape[0]), replace=False)
        flipped[images, rng.integers(0, shape[1], len(images))] = True
    return flipped


def rankings(y_true: np.ndarray, y_prob: np.ndarray) -> dict[str, np.ndarray]:
    """How doubtful each label is, (N, C), by method."""
    found, ours = doubtful_labels(y_true, y_prob), np.zeros(y_true.shape)
    ours[found.image, found.label] = found.doubt
    if find_spec("cleanlab") is None:
        return {"ours": ours}
    score = importlib.import_module("cleanlab.multilabel_classification.rank").get_label_quality_scores_per_class
    lists, mean = [np.flatnonzero(row).tolist() for row in y_true], y_prob.mean(0)
    adjusted = score(lists, mean, method="self_confidence", adjust_pred_probs=True)
    return {"ours": ours, "cleanlab": 1 - score(lists, mean), "cleanlab, adjusted": -adjusted}


def measured(doubt: np.ndarray, flipped: np.ndarray, y_true: np.ndarray) -> dict[str, float]:
    """The measures above, of one ranking. y_true: with the flips."""
    first = np.zeros(doubt.size, bool)
    first[np.argsort(-doubt, axis=None, kind="stable")[: doubt.size // 10]] = True
    found = first.reshape(doubt.shape)
    most = np.argsort(-doubt.max(1), kind="stable")[: len(doubt) // 10]
    return {
        "first_tenth": _part(found, flipped),
        "added": _part(found, flipped & y_true),
        "removed": _part(found, flipped & ~y_true),
        "images": float(flipped[most].any(1).sum() / flipped.any(1).sum()),
    }


def _part(found: np.ndarray, wanted: np.ndarray) -> float:
    """NaN if nothing was wanted."""
    return float((found & wanted).sum() / wanted.sum()) if wanted.any() else np.nan


def compared(views: Mapping[int, np.ndarray], labels: np.ndarray, kind: str, seeds: int) -> dict[str, dict[str, float]]:
    """The mean measures over the seeds, by method."""
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        flipped = flips(labels.shape, kind, np.random.default_rng(seed))
        y_true = labels ^ flipped
        predicted = out_of_fold(Probes(views, y_true), list(TRIALS), np.arange(len(labels)), FOLDS, seed)
        for name, doubt in rankings(y_true, np.stack([each.y_prob for each in predicted])).items():
            results.setdefault(name, []).append(measured(doubt, flipped, y_true))
    return {
        name: {key: round(float(np.nanmean([row[key] for row in rows])), 3) for key in rows[0]}
        for name, rows in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    sets = {size: load(args.data, image_size=size) for size in SIZES}
    views = {size: features(network(size), data)[0] for size, data in sets.items()}
    labels = sets[SIZES[0]].labels.astype(bool)
    print(json.dumps({kind: compared(views, labels, kind, args.seeds) for kind in ("labels", "images")}, indent=1))


if __name__ == "__main__":
    main()
