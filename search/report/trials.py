"""The trials of a run as a table, and what can be said of them: how the search went, and which parameters matter."""

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from itertools import combinations

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial
from sklearn.ensemble import RandomForestRegressor

from search import study as studies

LEAST = 10  # trials below which nothing is said of parameters
TOP = 0.2  # part of the trials that are called the best
TREES = 100
PAIRED = 5  # most important parameters of which pairs are looked at
GRID = 8  # values a parameter, and GRID² trials, of which the forest is asked for a pair
EDGE = 0.02  # part of a parameter's range that counts as its bound


def origin_of(trial: FrozenTrial, sampler: str) -> str:
    """portfolio, warm start, learned, random or quasi-random: where a trial of a run with this sampler comes from."""
    if origin := trial.user_attrs.get(studies.ORIGIN):
        return "portfolio" if origin.startswith(studies.PORTFOLIO) else "warm start"
    if studies.learned(sampler, trial.number):
        return "learned"
    return "quasi-random" if sampler == "qmc" else "random"


def state(trial: FrozenTrial) -> str:
    """A trial's state; one that seems to run may have been left by a stopped search."""
    return studies.state_name(trial) if trial.state.is_finished() else "unfinished"


def frame_of(trials: Sequence[FrozenTrial], sampler: str) -> pd.DataFrame:
    """A row for each trial that scored, by number: score, origin, parameters."""
    rows = [
        {"number": t.number, "score": score, "origin": origin_of(t, sampler), **t.params}
        for t in trials
        if (score := studies.score(t)) is not None
    ]
    return pd.DataFrame(rows, columns=None if rows else ["number", "score", "origin"])


def best_over_epochs(trials: Iterable[FrozenTrial]) -> tuple[list[int], list[float]]:
    """The epochs that these trials had spent, one after the other, each time one scored; and their best score then."""
    spent, best, points = 0, -math.inf, []
    for trial in trials:
        spent += len(trial.intermediate_values)
        if (score := studies.score(trial)) is not None:
            best = max(best, score)
            points.append((spent, best))
    return [p[0] for p in points], [p[1] for p in points]


def distributions_of(trials: Sequence[FrozenTrial], fixed: Container[str] = ()) -> dict[str, BaseDistribution]:
    """Of each parameter that was searched, its newest distribution.

    Those in `fixed`, and those of which the trials that scored have but one value, were not.
    """
    values = {(name, value) for t in trials if studies.score(t) is not None for name, value in t.params.items()}
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
            low, high = scaled(distribution, distribution.low), scaled(distribution, distribution.high)
            values = [
                (scaled(distribution, v) - low) / (high - low) if isinstance(v, int | float) and v == v else -1.0
                for v in frame[name]
            ]
        columns[name] = np.array(values)
    return pd.DataFrame(columns)


def scaled(distribution: BaseDistribution, value: float) -> float:
    return math.log(value) if distribution.log else float(value)


def importances(trials: Sequence[FrozenTrial], names: Container[str]) -> dict[str, float]:
    """How much each of these parameters decides whether a trial is among the best; they sum to 1, greatest first.

    Conditional PED-ANOVA (Watanabe et al., 2023, and its extension of 2026, as in Optuna): a parameter that only some
    trials have counts among those, and one that fewer than `LEAST` have is left out. Empty with too few trials, or
    where most are equally good.
    """
    scored = [t for t in trials if studies.score(t) is not None]
    if len(scored) < LEAST:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(value=studies.score(t), params=t.params, distributions=t.distributions)
            for t in scored
        ]
    )
    part = max(TOP, LEAST / 2 / len(scored))
    bar = sorted(map(studies.score, scored), reverse=True)[math.ceil(part * len(scored)) - 1]
    if all(studies.score(t) >= bar for t in scored):
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=part)
    having = Counter(name for t in scored for name in t.params)
    known = [name for name, count in having.items() if count >= LEAST and name in names]
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=known)
    return {name: value for name, value in found.items() if value > 0}


def interactions(
    frame: pd.DataFrame, distributions: dict[str, BaseDistribution], names: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Of pairs of these parameters, the part of their joint effect that is not the sum of both, greatest first.

    The squared H statistic (Friedman and Popescu, 2008) of a forest over the trials that have both.
    """
    inputs, found = coded(frame, distributions), {}
    for pair in combinations(names[:PAIRED], 2):
        rows = (inputs[list(pair)] >= 0).all(axis=1).to_numpy()
        if rows.sum() < LEAST:
            continue
        known, score = inputs[rows].to_numpy(), frame["score"].to_numpy()[rows]
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0).fit(known, score)
        columns = [list(inputs).index(name) for name in pair]
        found[pair] = _h_squared(forest, known[: GRID**2], columns)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _h_squared(forest: RandomForestRegressor, known: np.ndarray, columns: list[int]) -> float:
    grids = [np.unique(np.quantile(known[:, c], np.linspace(0, 1, GRID), method="nearest")) for c in columns]
    asked = np.repeat(known[None, None], len(grids[0]), 0).repeat(len(grids[1]), 1)  # (G1, G2, N, D)
    asked[..., columns[0]], asked[..., columns[1]] = grids[0][:, None, None], grids[1][None, :, None]
    joint = forest.predict(asked.reshape(-1, known.shape[1])).reshape(asked.shape[:3]).mean(2)
    joint -= joint.mean()
    apart = joint - joint.mean(0, keepdims=True) - joint.mean(1, keepdims=True)
    return float(np.square(apart).sum() / total) if (total := np.square(joint).sum()) > 0 else 0.0


def at_bounds(trial: FrozenTrial, names: Container[str]) -> list[tuple[str, float, str]]:
    """Those of these parameters of a trial that lie on a bound of the space: name, value, lower or upper."""
    found = []
    for name, distribution in trial.distributions.items():
        if name not in names or isinstance(distribution, CategoricalDistribution) or distribution.single():
            continue
        low, high, value = (scaled(distribution, v) for v in (distribution.low, distribution.high, trial.params[name]))
        place = (value - low) / (high - low)
        if place <= EDGE or place >= 1 - EDGE:
            found.append((name, trial.params[name], "lower" if place <= EDGE else "upper"))
    return found
