"""Metrics of multi-label classification.

y_true is always (N, C) of 0/1 or bool, and y_prob (N, C) of finite probabilities in [0, 1].

Written by hand rather than called from scikit-learn because they are computed after every epoch and are vectorized over
classes here; the tests compare them with scikit-learn's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import classification_report, multilabel_confusion_matrix


def classify_metrics(y_true: np.ndarray, y_prob: np.ndarray, prefix: str = "val_") -> dict[str, float]:
    """The metrics of the probabilities of a whole set.

    accuracy: of all decisions at the threshold 0.5.
    precision, recall, f1: at that threshold, averaged over classes weighted by their frequency.
    f1_macro, mAP: averaged over the classes present in y_true.
    dice: the competition's score, see `row_dice`, of decisions by `decide`.
    Quotients with denominator 0 count as 0.
    """
    y_true = np.asarray(y_true, dtype=bool)
    y_pred = y_prob >= 0.5
    true, predicted, hits = y_true.sum(0), y_pred.sum(0), (y_true & y_pred).sum(0)  # (C,) each
    present = true > 0
    f1 = _ratio(2 * hits, true + predicted)
    metrics = {
        "accuracy": (y_true == y_pred).mean(),
        "precision": _ratio(true @ _ratio(hits, predicted), true.sum()),
        "recall": _ratio(hits.sum(), true.sum()),
        "f1": _ratio(true @ f1, true.sum()),
        "f1_macro": _ratio(f1[present].sum(), present.sum()),
        "mAP": _ratio(average_precision(y_true, y_prob)[present].sum(), present.sum()),
        "dice": row_dice(y_true, decide(y_prob, 0.5, at_least_one=at_least_one(y_true))).mean(),
    }
    return {prefix + name: float(value) for name, value in metrics.items()}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, or 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)


def average_precision(y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """Average precision per class, (C,) float64, like scikit-learn's `average_precision_score`; 0 without positives.

    Images with equal scores are ranked together: each gets the precision at the end of its group.
    """
    order = np.argsort(-y_prob, axis=0, kind="stable")
    score, hit = np.take_along_axis(y_prob, order, 0), np.take_along_axis(np.asarray(y_true, dtype=bool), order, 0)
    rank = np.arange(len(score))[:, None]
    group_end = np.full(score.shape, len(score) - 1)  # (N, C)
    group_end[:-1] = np.where(score[:-1] != score[1:], rank[:-1], len(score) - 1)
    group_end = np.minimum.accumulate(group_end[::-1], axis=0)[::-1]
    precision = np.take_along_axis(hit.cumsum(0) / (rank + 1), group_end, 0)
    return _ratio((hit * precision).sum(0), hit.sum(0))


def at_least_one(y_true: np.ndarray) -> bool:
    """Whether each image has a class, as in VOC, so that a decision for none would be wrong for sure."""
    return bool(np.asarray(y_true, dtype=bool).any(1).all())


def decide(y_prob: np.ndarray, thresholds: np.ndarray | float, *, at_least_one: bool = True) -> np.ndarray:
    """Decisions, bool (N, C): probability >= threshold, which is (C,) or one number for all classes.

    at_least_one: an image with no such class gets its most probable one.
    """
    chosen = y_prob >= thresholds
    if at_least_one:
        empty = np.flatnonzero(~chosen.any(1))
        chosen[empty, y_prob[empty].argmax(1)] = True
    return chosen


def row_dice(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """The competition's score: the Dice of each image's vector of classes, (N,), in [0, 1]; 1 if both are empty."""
    y_true, y_pred = np.asarray(y_true, dtype=bool), np.asarray(y_pred, dtype=bool)
    size = y_true.sum(1) + y_pred.sum(1)
    return np.where(size, _ratio(2 * (y_true & y_pred).sum(1), size), 1.0)


def random_baseline(
    train_labels: np.ndarray, val_labels: np.ndarray, seed: int, *, draws: int = 20, prefix: str = "val_"
) -> dict[str, float]:
    """Metrics of random labels, drawn with their training frequencies; means over `draws` seeded draws."""
    frequency = np.asarray(train_labels).mean(0)
    rng = np.random.default_rng(seed)
    drawn = rng.random((draws, *np.shape(val_labels))) < frequency
    # Adding the frequency does not change the ranking of a class's images, but an image without any label falls back to
    # the most common class.
    scores = [classify_metrics(val_labels, (labels + frequency) / 2, prefix) for labels in drawn]
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}


def co_confusion(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """The number of images with true class i (row) in which class j (column) is predicted, int (C, C)."""
    return np.asarray(y_true, dtype=int).T @ np.asarray(y_pred, dtype=int)


def classify_report(
    y_true: np.ndarray, y_prob: np.ndarray, thresholds: np.ndarray | float, classes: Sequence[str]
) -> dict[str, Any]:
    """Confusion matrices and classification report of the decisions of `decide`, as plain values for JSON.

    multilabel_confusion: [[tn, fp], [fn, tp]] per class. co_confusion: see the function of that name. report:
    precision, recall, f1-score and support per class. averages: the same per average of the classes.
    """
    y_true = np.asarray(y_true, dtype=int)
    y_pred = decide(y_prob, thresholds, at_least_one=at_least_one(y_true)).astype(int)
    zero: Any = 0  # missing in the stubs
    # scikit-learn takes a single column for two exclusive classes: a second one, left out again, shows what is meant.
    wide = [np.pad(y, ((0, 0), (0, y.shape[1] == 1))) for y in (y_true, y_pred)]
    # Without target_names, so that no class takes the place of an average, such as "accuracy".
    found = classification_report(*wide, labels=np.arange(len(classes)), output_dict=True, zero_division=zero)
    assert isinstance(found, dict)
    rows = {name: {key: float(value) for key, value in row.items()} for name, row in found.items()}
    return {
        "multilabel_confusion": multilabel_confusion_matrix(*wide)[: len(classes)].tolist(),
        "co_confusion": co_confusion(y_true, y_pred).tolist(),
        "report": {name: rows.pop(str(c)) for c, name in enumerate(classes)},
        "averages": rows,
    }
