"""Decision thresholds that maximize the mean Dice of an image's classes (the competition's score), cross-validated."""

import numpy as np

from voctrain.metrics.classification import at_least_one, decide, row_dice

SHRINKAGE = 10  # with P positives, a class's own threshold has weight P / (P + this): with few, it is mostly noise
SWEEPS = 3  # over the classes, when searching for a threshold per class


def fit_thresholds(
    y_true: np.ndarray, y_prob: np.ndarray, *, folds: int = 5, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Thresholds (C,) for `decide`, and their cross-validated mean row Dice in [0, 1].

    y_true (N, C) 0/1, y_prob (N, C). One threshold for all classes competes with one per class on held-out folds;
    thresholds per class must win by more than the standard error of the difference. The winner is then fitted on all
    rows. groups (N,): the image of each row, if several models predicted it; rows of an image share a fold and count as
    one observation. Where some images have no class, the thresholds are for `decide` without at least one.
    """
    y_true, y_prob = np.asarray(y_true, dtype=bool), np.asarray(y_prob, dtype=np.float64)
    _, group = np.unique(np.arange(len(y_true)) if groups is None else groups, return_inverse=True)
    copies = np.bincount(group)  # (G,), rows of each image
    fold = np.random.default_rng(seed).permutation(len(copies))[group] % folds
    forced = at_least_one(y_true)
    dice = np.zeros((2, len(y_true)))
    for k in np.unique(fold):
        fit, held_out = fold != k, fold == k
        common = np.full(y_true.shape[1], _common_threshold(y_true[fit], y_prob[fit], forced))
        own = _class_thresholds(y_true[fit], y_prob[fit], common, copies.mean(), forced)
        for row, thresholds in zip(dice, (common, own), strict=True):
            row[held_out] = row_dice(y_true[held_out], decide(y_prob[held_out], thresholds, at_least_one=forced))

    gain = np.bincount(group, dice[1] - dice[0]) / copies  # (G,): the rows of an image are one observation
    thresholds = np.full(y_true.shape[1], _common_threshold(y_true, y_prob, forced))
    if gain.mean() > gain.std() / np.sqrt(len(gain)):
        return _class_thresholds(y_true, y_prob, thresholds, copies.mean(), forced), float(dice[1].mean())
    return thresholds, float(dice[0].mean())


def _common_threshold(y_true: np.ndarray, y_prob: np.ndarray, forced: bool) -> float:
    """The single threshold with the greatest mean row Dice, among all that give different decisions."""
    if not len(y_true):
        return 0.5
    order = np.argsort(-y_prob, axis=1, kind="stable")
    ranked = np.take_along_axis(y_prob, order, 1)  # (N, C), descending
    hits = np.take_along_axis(y_true, order, 1).cumsum(1)
    dice = 2 * hits / (np.arange(1, y_true.shape[1] + 1) + y_true.sum(1, keepdims=True))  # of the first k classes
    if forced:  # the first class is chosen at any threshold: only the later ones change the score
        return _best_cut(ranked[:, 1:].ravel(), np.diff(dice, axis=1).ravel())
    return _best_cut(ranked.ravel(), np.diff(dice, axis=1, prepend=~y_true.any(1, keepdims=True)).ravel())


def _class_thresholds(
    y_true: np.ndarray, y_prob: np.ndarray, start: np.ndarray, copies: float = 1, forced: bool = True
) -> np.ndarray:
    """Thresholds (C,) by coordinate ascent on the mean row Dice, then shrunk toward `start` for rare classes.

    copies: mean number of rows per image.
    """
    thresholds = start.copy()
    chosen = y_prob >= thresholds
    rows, size = np.arange(len(y_true)), y_true.sum(1)  # (N,)
    top = y_prob.argmax(1) if len(y_true) else rows
    fallback = 2 * y_true[rows, top] / (1 + size) if forced else size == 0  # the Dice without any decision
    for _ in range(SWEEPS):
        before = thresholds.copy()
        for c in range(y_true.shape[1]):
            chosen[:, c] = False
            others, hits = chosen.sum(1), (chosen & y_true).sum(1)
            without = np.where(others > 0, 2 * hits / np.maximum(others + size, 1), fallback)
            gain = 2 * (hits + y_true[:, c]) / (others + 1 + size) - without
            thresholds[c] = _best_cut(y_prob[:, c], gain)
            chosen[:, c] = y_prob[:, c] >= thresholds[c]
        if np.array_equal(before, thresholds):
            break
    positives = y_true.sum(0) / copies
    return start + (thresholds - start) * positives / (positives + SHRINKAGE)


def _best_cut(scores: np.ndarray, gains: np.ndarray) -> float:
    """The threshold t with the greatest sum of `gains` over scores >= t, halfway between adjacent scores (or 0, 1)."""
    order = np.argsort(-scores, kind="stable")
    scores = np.concatenate([[1.0], scores[order], [0.0]])
    total = np.concatenate([[0.0], gains[order].cumsum()])
    total[scores[:-1] == scores[1:]] = -np.inf  # no threshold separates equal scores
    best = int(total.argmax())
    return float((scores[best] + scores[best + 1]) / 2)
