"""How sure a score is: the basic bootstrap over validation images (Davison and Hinkley, 1997)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 1000
CONFIDENCE = 0.95
TOO_FEW = "too few images to tell"
ROUNDING = 1e-9  # by which a bound may miss the value it equals


Score = Callable[[Any], float]  # of the images with these indices, each counted as often as it is listed


class Estimate(NamedTuple):
    """A score or a lead with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the interval contains the value; False for bounds that are nan."""
        return self.low - ROUNDING <= self.value <= self.high + ROUNDING

    def interval(self, form: str = ".4f") -> str:
        """0.2710 to 0.3305, or that there are too few images for an interval."""
        return f"{self.low:{form}} to {self.high:{form}}" if self.holds else TOO_FEW

    def lead(self) -> str:
        """+0.0123 (-0.0040 to +0.0290)."""
        return f"{self.value:+.4f} ({self.interval('+.4f')})"


def estimated(score: Score, size: int, *, resamples: int = RESAMPLES) -> Estimate:
    """A score over images 0 … size - 1 and its interval.

    An average precision is higher where images are repeated, as in a resample: that shifts a percentile interval, but
    not a basic one. With a few images almost every resample may be higher, and then a basic interval lies below the
    score. In that case, and with a single image, the bounds are nan.
    """
    unknown = Estimate(score(slice(None)), np.nan, np.nan)
    if size < 2:
        return unknown
    settings = {"n_resamples": resamples, "confidence_level": CONFIDENCE, "method": "basic", "rng": 0}
    bounds = stats.bootstrap((np.arange(size),), score, vectorized=False, **settings).confidence_interval
    found = Estimate(unknown.value, float(bounds.low), float(bounds.high))
    return found if found.holds else unknown


def paired(first: Score, second: Score, size: int) -> Estimate:
    """By how much the first score leads the second on the same images."""
    return estimated(lambda rows: first(rows) - second(rows), size)
