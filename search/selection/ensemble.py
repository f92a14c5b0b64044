"""Which models are averaged, and with what weights: greedy selection on predictions of images they never saw.

Caruana et al., "Ensemble selection from libraries of models", 2004: starting from the best one, the model that helps
most is added again and again, with replacement, and how often each was added is its weight. They draw models anew
several times against overfitting. Here a few models are chosen on few images, so the images are drawn.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from search.selection.retraining import Retraining
from search.study.bootstrap import Score

STEPS = 8  # that a selection takes at most
BAGS = 5  # selections, each on a half of the images
RESAMPLES = 200  # of the images, for the error of a difference


class Column(NamedTuple):
    """What the models of one configuration and seed say of the N labeled images, each of those it never saw."""

    name: str
    mirrored: bool  # whether of the mirrored images
    networks: tuple[Retraining, ...]  # one for each fold; those of both views are the same
    probabilities: np.ndarray  # (N, …)


Scorer = Callable[[np.ndarray, np.ndarray], Score]  # the score of the probabilities (n, …) of the images `rows` (n,)


class Mixture(NamedTuple):
    """A way to use the columns: their weights (K,), which sum to 1, and the probabilities that result (N, …).

    If weights were fitted, each image's probabilities are those with weights that were fitted on other images.
    """

    name: str
    weights: np.ndarray
    probabilities: np.ndarray


def mixtures(columns: Sequence[Column], best: int, scorer: Scorer, fold: np.ndarray, most: int | None) -> list[Mixture]:
    """The column `best` alone, the average of all, and a greedy selection: the simplest first.

    fold (N,): the part that each image is in; the selection is cross-fitted over these. most: networks in an ensemble.
    """
    rows = np.arange(len(fold))
    single = np.eye(len(columns))[best]
    scores = [scorer(column.probabilities, rows)(slice(None)) for column in columns]
    uniform = _limited(columns, np.ones(len(columns)), scores, most)
    if not uniform.any():
        return [Mixture("single", single, mean(columns, single))]
    crossed = np.zeros(columns[0].probabilities.shape, np.float32)
    for number in np.unique(fold):
        weights = bagged(columns, scorer, rows[fold != number], most)
        crossed[fold == number] = mean(columns, weights, rows[fold == number])
    return [
        Mixture("single", single, mean(columns, single)),
        Mixture("uniform", uniform, mean(columns, uniform)),
        Mixture("greedy", bagged(columns, scorer, rows, most), crossed),
    ]


def simplest(found: Sequence[Mixture], scorer: Scorer) -> int:
    """The first mixture whose score is within one standard error of the best one's, by bootstrap over the images."""
    size, rng = len(found[0].probabilities), np.random.default_rng(0)
    scores = [scorer(mixture.probabilities, np.arange(size)) for mixture in found]
    whole = [score(slice(None)) for score in scores]
    best = int(np.argmax(whole))
    draws = [rng.integers(size, size=size) for _ in range(RESAMPLES)]
    for index, score in enumerate(scores[:best]):
        if whole[best] - whole[index] <= np.std([scores[best](rows) - score(rows) for rows in draws]):
            return index
    return best


def bagged(columns: Sequence[Column], scorer: Scorer, rows: np.ndarray, most: int | None) -> np.ndarray:
    """The mean weights (K,) of selections on random halves of the images `rows`."""
    rng = np.random.default_rng(0)
    halves = [rng.permutation(rows)[: max(1, len(rows) // 2)] for _ in range(BAGS)]
    weights = np.mean([greedy(columns, scorer, np.sort(half)) for half in halves], axis=0)
    return _limited(columns, weights, weights, most)


def greedy(columns: Sequence[Column], scorer: Scorer, rows: np.ndarray) -> np.ndarray:
    """Weights (K,) by selection with replacement, on the images `rows`: those of the best of all steps."""
    library = [column.probabilities[rows].astype(np.float32) for column in columns]
    counts, total = np.zeros(len(columns)), np.zeros_like(library[0])
    best, kept = -np.inf, counts
    for step in range(1, STEPS + 1):
        scores = [scorer((total + each) / step, rows)(slice(None)) for each in library]
        chosen = int(np.argmax(scores))
        counts[chosen] += 1
        total += library[chosen]
        if scores[chosen] > best:
            best, kept = scores[chosen], counts.copy()
    return kept / kept.sum()


def mean(columns: Sequence[Column], weights: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
    """The weighted mean of what the columns say of the images `rows`, float32 (n, …)."""
    used = [(column, weight) for column, weight in zip(columns, weights, strict=True) if weight]
    total = np.zeros(columns[0].probabilities[rows].shape, np.float32)
    for column, weight in used:
        total += np.float32(weight) * column.probabilities[rows]
    return total


def _limited(
    columns: Sequence[Column], weights: np.ndarray, worth: Sequence[float] | np.ndarray, most: int | None
) -> np.ndarray:
    """The weights without those of the configurations of least worth, until `most` networks are left; they sum to 1.

    All are 0 if that is fewer than a configuration has.
    """
    best = {c.name: max(w for o, w in zip(columns, worth, strict=True) if o.name == c.name) for c in columns}
    networks, kept = 0, set[str]()
    for name in sorted(best, key=lambda name: -best[name]):
        networks += next(len(column.networks) for column in columns if column.name == name)
        if most is None or networks <= most:
            kept.add(name)
    weights = np.where([column.name in kept for column in columns], weights, 0)
    return weights / max(weights.sum(), 1e-9)
