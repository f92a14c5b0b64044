"""Racing: a configuration is dropped as soon as a comparison over the folds so far says that it cannot win.

Maron and Moore, "Hoeffding races", 1994; López-Ibáñez et al., "The irace package", 2016. Decisions follow from the
results of complete folds, in their order, so a continued selection makes the same ones.
"""

from collections.abc import Callable, Sequence

import numpy as np

from search.study.bootstrap import Score

FIRST_LOOK = 2  # folds after which configurations are compared
CLEARLY = 3  # standard errors: there are several looks, and the best so far may be lucky
RESAMPLES = 200


def losers(names: Sequence[str], folds: int, scores: Callable[[str, int], tuple[Score, int] | None]) -> dict[str, int]:
    """The configurations that have lost, with the number of folds after which they had.

    scores: the score of a configuration over the images of its first folds, as a function of these images, and their
    number; None if it has not been trained on all of these folds.
    """
    lost: dict[str, int] = {}
    for fold in range(FIRST_LOOK, folds):
        left = [name for name in names if name not in lost]
        known = {name: found for name in left if (found := scores(name, fold)) is not None}
        if len(known) < len(left):
            break
        best = max(left, key=lambda name: known[name][0](slice(None)))
        first, size = known[best]
        draws = [np.random.default_rng(number).integers(size, size=size) for number in range(RESAMPLES)]
        for name in left:
            other, _ = known[name]
            lead = first(slice(None)) - other(slice(None))
            if name != best and lead > CLEARLY * np.std([first(rows) - other(rows) for rows in draws]):
                lost[name] = fold
    return lost
