"""Decision thresholds that serve the competition's row Dice (SEED.md §1), chosen by cross-validation."""

import numpy as np

from voctrain.metrics.classification import decide, row_dice

SHRINKAGE = 10  # a class's own threshold weighs P / (P + this) of P positives: with few, it is mostly noise
SWEEPS = 3  # over the classes, in the search for their own thresholds


def fit_thresholds(
    y_true: np.ndarray, y_prob: np.ndarray, *, folds: int = 5, seed: int = 0, groups: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Thresholds (C,) for `metrics.decide`, and their cross-validated mean row Dice in [0, 1].

    y_true (N, C) 0/1, y_prob (N, C). One threshold for all classes competes with one each, by predictions on folds that
    took no part in the fit; thresholds of their own must win by more than the standard error of the difference. The
    winner is then fitted on everything. `groups` (N,): rows of one image (predicted by several models) share a fold,
    and are the evidence of one image.
    """
    y_true, y_prob = np.asarray(y_true, dtype=bool), np.asarray(y_prob, dtype=np.float64)
    _, group = np.unique(np.arange(len(y_true)) if groups is None else groups, return_inverse=True)
    copies = np.bincount(group)  # (G,), rows of each image
    fold = np.random.default_rng(seed).permutation(len(copies))[group] % folds
    dice = np.zeros((2, len(y_true)))
    for k in np.unique(fold):
        fit, held_out = fold != k, fold == k
        common = np.full(y_true.shape[1], _common_threshold(y_true[fit], y_prob[fit]))
        own = _class_thresholds(y_true[fit], y_prob[fit], common, copies.mean())
        for row, thresholds in zip(dice, (common, own), strict=True):
            row[held_out] = row_dice(y_true[held_out], decide(y_prob[held_out], thresholds))

    gain = np.bincount(group, dice[1] - dice[0]) / copies  # (G,): copies of an image are no further evidence
    thresholds = np.full(y_true.shape[1], _common_threshold(y_true, y_prob))
    if gain.mean() > gain.std() / np.sqrt(len(gain)):
        return _class_thresholds(y_true, y_prob, thresholds, copies.mean()), float(dice[1].mean())
    return thresholds, float(dice[0].mean())


def _common_threshold(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """The one threshold of greatest mean row Dice among all that answer differently."""
    if not len(y_true):
        return 0.5
    order = np.argsort(-y_prob, axis=1, kind="stable")
    ranked = np.take_along_axis(y_prob, order, 1)  # (N, C), falling
    hits = np.take_along_axis(y_true, order, 1).cumsum(1)
    dice = 2 * hits / (np.arange(1, y_true.shape[1] + 1) + y_true.sum(1, keepdims=True))  # of the first k classes
    # The first class is answered at any threshold, by the arg-max rule: only the later ones change the score.
    return _best_cut(ranked[:, 1:].ravel(), np.diff(dice, axis=1).ravel())


def _class_thresholds(y_true: np.ndarray, y_prob: np.ndarray, start: np.ndarray, copies: float = 1) -> np.ndarray:
    """Thresholds (C,) by coordinate ascent on the mean row Dice, then drawn toward `start` for rare classes.

    copies: rows an image.
    """
    thresholds = start.copy()
    chosen = y_prob >= thresholds
    rows, size = np.arange(len(y_true)), y_true.sum(1)  # (N,)
    top = y_prob.argmax(1) if len(y_true) else rows
    fallback = 2 * y_true[rows, top] / (1 + size)
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
    """The threshold t of greatest sum of `gains` over scores >= t, amid two neighbors among the scores, 0 and 1."""
    order = np.argsort(-scores, kind="stable")
    scores = np.concatenate([[1.0], scores[order], [0.0]])
    total = np.concatenate([[0.0], gains[order].cumsum()])
    total[scores[:-1] == scores[1:]] = -np.inf  # no threshold parts equal scores
    best = int(total.argmax())
    return float((scores[best] + scores[best + 1]) / 2)
