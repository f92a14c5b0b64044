"""How sure a score is: the basic bootstrap over validation images (Davison and Hinkley, 1997)."""

from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 95  # percent


Score = Callable[[Any], float]  # of images, given by their indices, each as often as it is named


def interval(score: Score, size: int, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The bounds of the 95 % interval of a score over images 0 … size - 1."""
    rng = np.random.default_rng(0)
    values = [score(rng.integers(size, size=size)) for _ in range(resamples)]
    low, high = np.percentile(values, ((100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2))
    # Mirrored at the score: an average precision is higher where images are repeated, which must not shift it.
    known = score(slice(None))
    return float(2 * known - high), float(2 * known - low)


def paired(first: Score, second: Score, size: int) -> tuple[float, float, float]:
    """By how much the first score is ahead of the second on the same images, and the bounds of its 95 % interval."""

    def lead(rows: Any) -> float:
        return first(rows) - second(rows)

    return lead(slice(None)), *interval(lead, size)
