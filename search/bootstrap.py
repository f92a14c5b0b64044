"""How sure a score is: the basic bootstrap over validation images (Davison and Hinkley, 1997)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 1000
CONFIDENCE = 0.95


Score = Callable[[Any], float]  # of images, given by their indices, each as often as it is named


def interval(score: Score, size: int, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The bounds of the 95 % interval of a score over images 0 … size - 1; one image tells nothing of others: nan.

    An average precision is higher where images are repeated: that shifts a percentile interval, but not a basic one.
    """
    if size < 2:
        return np.nan, np.nan
    settings = {"n_resamples": resamples, "confidence_level": CONFIDENCE, "method": "basic", "rng": 0}
    found = stats.bootstrap((np.arange(size),), score, vectorized=False, **settings).confidence_interval
    return float(found.low), float(found.high)


def paired(first: Score, second: Score, size: int) -> tuple[float, float, float]:
    """By how much the first score is ahead of the second on the same images, and the bounds of its 95 % interval."""

    def lead(rows: Any) -> float:
        return first(rows) - second(rows)

    return lead(slice(None)), *interval(lead, size)


def described(lead: float, low: float, high: float) -> str:
    """A lead with its interval: +0.0123 (-0.0040 to +0.0290)."""
    return f"{lead:+.4f} ({low:+.4f} to {high:+.4f})"


def with_error(mean: float, standard_error: float | None) -> str:
    """A mean over seeds and its standard error, which one seed has not."""
    return f"{mean:.4f}" + ("" if standard_error is None else f" ± {standard_error:.4f}")
