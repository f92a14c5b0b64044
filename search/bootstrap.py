"""How sure a score is: the percentile bootstrap over validation images (Efron, 1979)."""

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
    return float(low), float(high)


def paired(first: Score, second: Score, size: int) -> tuple[float, float, float]:
    """By how much the first score is ahead of the second on the same images, and the bounds of its 95 % interval."""

    def lead(rows: Any) -> float:
        return first(rows) - second(rows)

    return lead(slice(None)), *interval(lead, size)
