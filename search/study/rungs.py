"""Whether scores at the rungs tell those at the end, measured by the trials that run whole."""

import math
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from search.study.trials import asha_rungs

# Chosen with tests/benchmarks/search_efficiency.py, see .github/ARCHITECTURE.md.
CONTROL = 11  # one trial in this many runs whole; odd, because in small spaces every other proposal is a duplicate
LEAST_WHOLE = 5  # trials that ran whole, from which on rungs are judged
AGREEMENT = 0.5  # a rung's correlation must reach this, less its standard error


class Agreement(NamedTuple):
    """Spearman's rank correlation of the scores at a rung with those at the end, plus and minus a standard error."""

    rung: int  # the epoch
    trials: int
    correlation: float
    low: float
    high: float

    @property
    def misleads(self) -> bool:
        """Whether the trials show too little agreement to prune at this rung."""
        return self.low < AGREEMENT


def runs_whole(number: int, protected: Container[int]) -> bool:
    """Whether a trial runs to the end whatever its rungs say: a protected one, and one in `CONTROL` of all."""
    return number in protected or number % CONTROL == 0


def agreements(curves: Iterable[Mapping[int, float]], epochs: int) -> list[Agreement]:
    """The agreement of each rung with the end. curves: scores by epoch of whole trials; unfinished ones do not count.

    A trial's end is its best score. The standard error is that of Fieller, Hartley and Pearson (1957), after Fisher's
    transformation. With fewer than `LEAST_WHOLE` trials there are none.
    """
    whole = [curve for curve in curves if epochs in curve]
    if len(whole) < LEAST_WHOLE:
        return []
    ends, error = [max(curve.values()) for curve in whole], math.sqrt(1.06 / (len(whole) - 3))
    found = []
    for rung in asha_rungs(epochs):
        scores = [curve[rung] for curve in whole]
        # Equal scores tell nothing.
        constant = len(set(scores)) == 1 or len(set(ends)) == 1
        value = 0.0 if constant else float(np.corrcoef(rankdata(scores), rankdata(ends))[0, 1])
        center = math.atanh(max(-0.999, min(value, 0.999)))
        found.append(Agreement(rung, len(whole), value, math.tanh(center - error), math.tanh(center + error)))
    return found
