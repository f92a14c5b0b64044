"""The trials of a run as a table, and what can be said of them: how the search went, and which parameters matter."""

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from sklearn.ensemble import BaggingRegressor, ExtraTreesRegressor

from search.study.sampler import is_learned
from search.study.trials import PORTFOLIO, Attr, state_name, trial_score

LEAST = 10  # trials below which nothing is said of parameters
# Scored trials from which the first of the importances is a parameter that matters in 80 % of synthetic searches: it is
# in 76 % with 20 trials and in 87 % with 40 (tests/benchmarks/importances.py --seeds 12 --trials 20 40).
RELIABLE = 40
RESAMPLES = 30  # of the trials, each with a forest of its own
TREES = 20  # of each forest
WITHIN = 0.8  # part of the resamples that an importance's interval covers
PAIRED = 5  # most important parameters of which pairs are looked at
GRID = 8  # values of a parameter, and GRID² trials, at which forests are evaluated for a pair
PAIR_FORESTS = 5  # forests that are evaluated for a pair
EDGE = 0.02  # part of a parameter's range that counts as its bound

Numeric = FloatDistribution | IntDistribution


def origin_of(trial: FrozenTrial, sampler: str) -> str:
    """portfolio, warm start, learned, random or quasi-random: where a trial of a run with this sampler comes from."""
    if origin := trial.user_attrs.get(Attr.ORIGIN):
        return "portfolio" if origin.startswith(PORTFOLIO) else "warm start"
    if is_learned(sampler, trial.number):
        return "learned"
    return "quasi-random" if sampler == "qmc" else "random"


def state(trial: FrozenTrial) -> str:
    """A trial's state; one that seems to run may have been left by a stopped search."""
    return state_name(trial) if trial.state.is_finished() else "unfinished"


def frame_of(trials: Sequence[FrozenTrial], sampler: str) -> pd.DataFrame:
    """A row for each trial that scored, by number: score, origin, parameters."""
    rows = [
        {"number": t.number, "score": score, "origin": origin_of(t, sampler), **t.params}
        for t in trials
        if (score := trial_score(t)) is not None
    ]
    return pd.DataFrame(rows, columns=None if rows else ["number", "score", "origin"])


def best_over_epochs(trials: Iterable[FrozenTrial]) -> tuple[list[int], list[float]]:
    """The epochs that these trials had spent, one after the other, each time one scored; and their best score then."""
    spent, best, points = 0, -math.inf, []
    for trial in trials:
        spent += len(trial.intermediate_values)
        if (score := trial_score(trial)) is not None:
            best = max(best, score)
            points.append((spent, best))
    return [p[0] for p in points], [p[1] for p in points]


def distributions_of(trials: Sequence[FrozenTrial], fixed: Container[str] = ()) -> dict[str, BaseDistribution]:
    """Of each parameter that was searched, its newest distribution.

    Those in `fixed`, and those of which the trials that scored have but one value, were not.
    """
    values = {(name, value) for t in trials if trial_score(t) is not None for name, value in t.params.items()}
    searched = {name for name, count in Counter(name for name, _ in values).items() if count > 1}
    known = {name: d for trial in trials for name, d in trial.distributions.items()}
    return {name: d for name, d in known.items() if name in searched and name not in fixed}


def coded(frame: pd.DataFrame, distributions: dict[str, BaseDistribution]) -> pd.DataFrame:
    """Parameters as numbers in [0, 1], on their own scale; a choice by its index; -1 where a trial has none."""
    columns = {}
    for name, distribution in distributions.items():
        if name not in frame:
            continue
        if isinstance(distribution, CategoricalDistribution):
            choices = list(distribution.choices)
            values = [choices.index(v) / max(len(choices) - 1, 1) if v in choices else -1.0 for v in frame[name]]
        else:
            assert isinstance(distribution, Numeric)
            low, high = scaled(distribution, distribution.low), scaled(distribution, distribution.high)
            values = [
                (scaled(distribution, v) - low) / (high - low) if isinstance(v, int | float) and v == v else -1.0
                for v in frame[name]
            ]
        columns[name] = np.array(values)
    return pd.DataFrame(columns)


def scaled(distribution: Numeric, value: float) -> float:
    """A value on the scale, linear or logarithmic, that it is drawn on."""
    return math.log(value) if distribution.log else float(value)


class Importance(NamedTuple):
    """A parameter's share of the importance of all, and the bounds of its 80 % interval, each in [0, 1]."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Surrogate:
    """Forests of extremely randomized trees that predict a trial's rank from its parameters.

    Ranks say more than scores where a few trials collapse. Each forest is fitted to a bootstrap resample of the trials
    and tested on those left out of it.
    """

    inputs: pd.DataFrame  # (trials, parameters), as `coded`
    ranks: np.ndarray  # (trials,), in (0, 1], greatest for the best

    @cached_property
    def forests(self) -> BaggingRegressor:
        forest = ExtraTreesRegressor(TREES)
        return BaggingRegressor(forest, RESAMPLES, random_state=0).fit(self.inputs.to_numpy(), self.ranks)


def surrogate_of(frame: pd.DataFrame, distributions: dict[str, BaseDistribution]) -> Surrogate:
    return Surrogate(coded(frame, distributions), frame["score"].rank(pct=True).to_numpy())


def importances(surrogate: Surrogate) -> dict[str, Importance]:
    """How much each parameter decides a trial's rank, greatest first.

    Permutation importance (Breiman, 2001): by how much the squared error on held-out trials grows when a parameter's
    values are permuted among the trials that have it. The shares of all parameters sum to 1 in each resample of the
    trials; given are their means and the interval of the middle 80 % of resamples. A parameter that fewer than `LEAST`
    trials have, or that never makes the error grow, is left out. Empty with fewer than `LEAST` trials, or where all are
    equally good.
    """
    inputs, ranks, rng = surrogate.inputs.to_numpy(), surrogate.ranks, np.random.default_rng(0)
    if len(ranks) < LEAST or not inputs.size:
        return {}
    shares = []  # (resamples, parameters)
    for forest, drawn in zip(surrogate.forests.estimators_, surrogate.forests.estimators_samples_, strict=True):
        held = np.setdiff1d(np.arange(len(ranks)), drawn)
        asked = np.repeat(inputs[None, held], 1 + inputs.shape[1], 0)  # the first as they are
        for column, permuted in enumerate(asked[1:]):
            having = permuted[:, column] >= 0
            permuted[having, column] = rng.permutation(permuted[having, column])
        predicted = forest.predict(asked.reshape(-1, inputs.shape[1])).reshape(len(asked), -1)
        errors = np.square(predicted - ranks[held]).mean(1)
        growth = (errors[1:] - errors[0]).clip(0) * ((inputs >= 0).sum(0) >= LEAST)
        if total := growth.sum():
            shares.append(growth / total)
    if not shares:
        return {}
    low, high = np.quantile(shares, [(1 - WITHIN) / 2, (1 + WITHIN) / 2], axis=0)
    mean = np.mean(shares, 0)  # a rare large share may lift it out of the middle
    columns = np.array([mean, np.minimum(low, mean), np.maximum(high, mean)])
    bars = zip(surrogate.inputs, columns.T.tolist(), strict=True)
    found = {name: Importance(*bar) for name, bar in bars if bar[0] > 0}
    return dict(sorted(found.items(), key=lambda item: -item[1].share))


def interactions(surrogate: Surrogate, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """For pairs of these parameters, the part of their joint effect that is not the sum of both, greatest first.

    The squared H statistic (Friedman and Popescu, 2008) over the trials that have both.
    """
    found = {}
    for pair in combinations(names[:PAIRED], 2):
        known = surrogate.inputs[(surrogate.inputs[list(pair)] >= 0).all(axis=1)].to_numpy()
        if len(known) >= LEAST:
            found[pair] = _h_squared(surrogate, known[: GRID**2], [list(surrogate.inputs).index(name) for name in pair])
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _h_squared(surrogate: Surrogate, known: np.ndarray, columns: list[int]) -> float:
    grids = [np.unique(np.quantile(known[:, c], np.linspace(0, 1, GRID), method="nearest")) for c in columns]
    asked = np.repeat(known[None, None], len(grids[0]), 0).repeat(len(grids[1]), 1)  # (G1, G2, N, D)
    asked[..., columns[0]], asked[..., columns[1]] = grids[0][:, None, None], grids[1][None, :, None]
    rows = asked.reshape(-1, known.shape[1])
    predicted = np.mean([forest.predict(rows) for forest in surrogate.forests.estimators_[:PAIR_FORESTS]], 0)
    joint = predicted.reshape(asked.shape[:3]).mean(2)
    joint -= joint.mean()
    apart = joint - joint.mean(0, keepdims=True) - joint.mean(1, keepdims=True)
    return float(np.square(apart).sum() / total) if (total := np.square(joint).sum()) > 0 else 0.0


def at_bounds(trial: FrozenTrial, names: Container[str]) -> list[tuple[str, float, str]]:
    """Those of these parameters of a trial that lie on a bound of the space: name, value, lower or upper."""
    found = []
    for name, distribution in trial.distributions.items():
        if name not in names or isinstance(distribution, CategoricalDistribution) or distribution.single():
            continue
        assert isinstance(distribution, Numeric)
        low, high, value = (scaled(distribution, v) for v in (distribution.low, distribution.high, trial.params[name]))
        place = (value - low) / (high - low)
        if place <= EDGE or place >= 1 - EDGE:
            found.append((name, trial.params[name], "lower" if place <= EDGE else "upper"))
    return found
