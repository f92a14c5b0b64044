"""Whether the stated score of the chosen trial comes true, on random halves of a real set.

python -m tests.benchmarks.honest_number --data DIR [--halves 20] [--trials 50]

A trial is a linear probe on frozen features of EfficientNet-Lite0: the image size, regularization, label smoothing,
standardization, class weights, principal components, and the average with the mirrored image are drawn at random,
except for the first trial, the default. Each half is a search: out-of-fold predictions of all trials in five folds, the
best of them, and the score that `expected_score` states for as many images as the other half has. The chosen trial and
the default are then trained on the half, and scored on the other half. Row Dice is of decisions by thresholds fitted to
other folds, and on the other half by thresholds fitted to all out-of-fold predictions.

Prints JSON. For mAP and for row Dice, over the halves:
  naive, corrected: two statements, which are the plain best-of-N score, and the score corrected for the choice. bias:
    mean and standard error of the statement minus the score on the other half, of models trained on a quarter more
    images than those of a fold; covered: the part of the halves in which its interval contains that score;
  width: mean and standard error of the width of these intervals;
  chosen, guarded: the part in which the chosen trial is not below the default on the other half (`not_below`), or not
    clearly so, by the paired 95 % interval over its images (`not_clearly_below`), and the mean lead there with its
    standard error. Guarded means that the default is kept unless the chosen one is distinguishable from it.
The halves overlap, so their standard errors are too small. It takes about a quarter of an hour of processor time.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from search.study.bootstrap import Score, paired
from search.study.expected import Expected, expected_score
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.data.split import stratified_folds
from voctrain.features import features
from voctrain.metrics.classification import at_least_one, average_precision, decide, row_dice
from voctrain.metrics.thresholds import fit_thresholds

SIZES = (96, 128, 160)
FOLDS = 5
STATEMENTS = ("naive", "corrected")


@dataclass(frozen=True)
class Trial:
    """A linear probe; the default is what a portfolio would try first."""

    image_size: int = 160
    strength: float = 0.01  # scikit-learn's C, of features of variance 1
    smoothing: float = 0.0
    standardized: bool = False  # each feature by its own standard deviation
    balanced: bool = False
    components: int | None = None  # principal components of the features; None: all
    mirrored: bool = False  # whether predictions are averaged with those of the mirrored image

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Trial":
        return cls(
            image_size=int(rng.choice(SIZES)),
            strength=float(10 ** rng.uniform(-3.5, 0)),
            smoothing=float(rng.choice((0, 0.05, 0.1))),
            standardized=bool(rng.integers(2)),
            balanced=bool(rng.integers(2)),
            components=(None, None, 128, 64, 32)[rng.integers(5)],
            mirrored=bool(rng.integers(2)),
        )


class Probes:
    """Probes of one set. views: features by image size, (2, N, F) each. labels: (N, C)."""

    def __init__(self, views: Mapping[int, np.ndarray], labels: np.ndarray):
        self.views, self.labels = views, labels.astype(bool)
        self.rotated = cache(self._rotated)

    def _rotated(self, size: int, standardized: bool, train: bytes) -> np.ndarray:
        """Features of all images, (2, N, R), in the principal axes of the training images: as many as say all."""
        views, rows = self.views[size].astype(np.float64), np.frombuffer(train, int)
        seen = views[0, rows]
        centered = views - seen.mean(0)
        centered /= seen.std(0) + 1e-3 if standardized else seen.std()
        _, _, axes = np.linalg.svd(centered[0, rows], full_matrices=False)
        return centered @ axes.T

    def predict(self, trial: Trial, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Probabilities (len(test), C) by the probe of the training images."""
        rotated = self.rotated(trial.image_size, trial.standardized, train.tobytes())[..., : trial.components]
        probabilities = [self._one_class(trial, rotated, train, test, c) for c in range(self.labels.shape[1])]
        return np.stack(probabilities, 1)

    def _one_class(self, trial: Trial, rotated: np.ndarray, train: np.ndarray, test: np.ndarray, c: int) -> np.ndarray:
        target = self.labels[train, c]
        if target.all() or not target.any():
            return np.full(len(test), target.mean())
        # A smoothed target is a mixture of both classes.
        inputs, targets = np.tile(rotated[0, train], (2, 1)), np.concatenate([target, ~target])
        weight = np.repeat([1 - trial.smoothing / 2, trial.smoothing / 2], len(train))
        if trial.balanced:
            weight = np.where(targets, weight * np.sum(~target) / np.sum(target), weight)
        kept = weight > 0
        model = LogisticRegression(C=trial.strength, max_iter=300)
        model.fit(inputs[kept], targets[kept], weight[kept])
        views = rotated[: 2 if trial.mirrored else 1, test]
        return np.mean([model.predict_proba(view)[:, 1] for view in views], axis=0)


def mean_average_precision(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """Over the classes that are present."""
    return float(average_precision(y_true, y_prob)[y_true.any(0)].mean())


class OutOfFold(NamedTuple):
    """Predictions of one half by models that have not seen the image: y_true and y_prob (N, C), fold (N,)."""

    y_true: np.ndarray
    y_prob: np.ndarray
    fold: np.ndarray


def known_map(half: OutOfFold) -> Score:
    """mAP over images of a half."""
    return lambda rows: mean_average_precision(half.y_true[rows], half.y_prob[rows])


def known_dice(half: OutOfFold) -> Score:
    """Mean row Dice over images of a half, by thresholds fitted to the other folds."""
    y_true, y_prob, fold = half
    dice = np.empty(len(y_true))
    for out in (fold == number for number in np.unique(fold)):
        thresholds, _ = fit_thresholds(y_true[~out], y_prob[~out])
        dice[out] = row_dice(y_true[out], decide(y_prob[out], thresholds, at_least_one=at_least_one(y_true)))
    return lambda rows: float(dice[rows].mean())


def unseen_map(half: OutOfFold, y_true: np.ndarray, y_prob: np.ndarray) -> Score:
    """mAP over images of the other half, with probabilities `y_prob`."""
    return lambda rows: mean_average_precision(y_true[rows], y_prob[rows])


def unseen_dice(half: OutOfFold, y_true: np.ndarray, y_prob: np.ndarray) -> Score:
    """Mean row Dice over images of the other half, by thresholds fitted to the half."""
    thresholds, _ = fit_thresholds(half.y_true, half.y_prob)
    dice = row_dice(y_true, decide(y_prob, thresholds, at_least_one=at_least_one(half.y_true)))
    return lambda rows: float(dice[rows].mean())


METRICS = {"mAP": (known_map, unseen_map), "dice": (known_dice, unseen_dice)}


def out_of_fold(probes: Probes, trials: list[Trial], half: np.ndarray, folds: int, seed: int) -> list[OutOfFold]:
    """The out-of-fold predictions of trials."""
    y_true = probes.labels[half]
    fold, y_prob = np.empty(len(half), int), [np.empty(y_true.shape) for _ in trials]
    for number, out in enumerate(stratified_folds(y_true, folds, seed=seed)):
        fold[out] = number
        for k, trial in enumerate(trials):
            y_prob[k][out] = probes.predict(trial, np.delete(half, out), half[out])
    return [OutOfFold(y_true, probabilities, fold) for probabilities in y_prob]


def outcomes(probes: Probes, trials: list[Trial], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one half states and the other half says, by metric."""
    rng = np.random.default_rng(seed)
    half, other = (np.sort(rows) for rows in np.array_split(rng.permutation(len(probes.labels)), 2))
    by_trial = out_of_fold(probes, trials, half, FOLDS, seed)
    for name, (known, unseen) in METRICS.items():
        scores = [known(one) for one in by_trial]
        found = expected_score(scores, len(half), unseen=len(other))
        truth = {
            k: unseen(by_trial[k], probes.labels[other], probes.predict(trials[k], half, other))
            for k in {0, found.chosen}
        }
        yield name, outcome(found, truth, len(other))


def outcome(found: Expected, truth: Mapping[int, Score], size: int) -> dict[str, Any]:
    """What came true of a statement. truth: the scores of the chosen trial and the default over `size` new images."""
    score, lead = truth[found.chosen](slice(None)), paired(truth[found.chosen], truth[0], size)
    half_width = (found.score.high - found.score.low) / 2
    stated = (found.naive, found.score.value)
    return {
        "score": score,
        "width": 2 * half_width,
        **dict(zip(STATEMENTS, ((value - score, abs(value - score) <= half_width) for value in stated), strict=True)),
        "lead": lead.value,
        "clearly_below": lead.high < 0,
        "distinguishable": found.is_distinguishable,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The measures above."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def with_error(values: np.ndarray) -> list[float]:
        return [round(float(v), 4) for v in (values.mean(), values.std(ddof=1) / len(values) ** 0.5)]

    def against_default(lead: np.ndarray, clearly_below: np.ndarray) -> dict[str, Any]:
        return {
            "not_below": float(np.mean(lead >= 0)),
            "not_clearly_below": float(np.mean(~clearly_below)),
            "lead": with_error(lead),
        }

    kept = columns["distinguishable"]
    return {
        "score": with_error(columns["score"]),
        "width": with_error(columns["width"]),
        **{
            name: {"bias": with_error(columns[name][:, 0]), "covered": float(columns[name][:, 1].mean())}
            for name in STATEMENTS
        },
        "distinguishable": float(kept.mean()),
        "chosen": against_default(columns["lead"], columns["clearly_below"]),
        "guarded": against_default(columns["lead"] * kept, columns["clearly_below"] & kept),
    }


def network(image_size: int) -> ClassifyConfig:
    """The frozen network."""
    return ClassifyConfig(architecture="tf_efficientnet_lite0", weights="imagenet", image_size=image_size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--halves", type=int, default=20)
    parser.add_argument("--trials", type=int, default=50)
    args = parser.parse_args()
    began = time.process_time()
    sets = {size: load(args.data, image_size=size) for size in SIZES}
    views = {size: features(network(size), data)[0] for size, data in sets.items()}
    probes = Probes(views, sets[SIZES[0]].labels)
    rng = np.random.default_rng(0)
    trials = [Trial(), *(Trial.drawn(rng) for _ in range(args.trials - 1))]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in METRICS}
    for seed in range(args.halves):
        probes.rotated.cache_clear()
        for name, row in outcomes(probes, trials, seed):
            rows[name].append(row)
    result = {"processor": platform.processor(), "images": len(probes.labels), "halves": args.halves}
    result |= {"trials": args.trials, "cpu_seconds": round(time.process_time() - began)}
    print(json.dumps(result | {name: summary(found) for name, found in rows.items()}, indent=1))


if __name__ == "__main__":
    main()
