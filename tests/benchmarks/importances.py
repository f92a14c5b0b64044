"""Which evaluator of parameter importances to trust, and from how many trials on.

python tests/benchmarks/importances.py [--seeds 20] [--trials 10 20 40 80]

Makes synthetic searches in which it is known how much each parameter matters. In each family of objectives a few
parameters matter and at least ten do not. They are floats (some on a log scale), integers and choices; some of both
kinds exist only under a choice. The noise of a score has half the standard deviation of the objective. Each family is
searched once per seed by random sampling, and once by TPE with successive halving, where a pruned trial's score is that
of its few epochs.

The true importances are total-effect Sobol indices over the whole space. A parameter matters from an index of 0.01 on.
Prints JSON, by evaluator and number of trials:
  first: the part of the searches in which the first bar is a parameter that matters, over all and by sampler (by chance
    it would be as printed under "chance");
  correlation: the mean Spearman rank correlation with the true importances;
  seconds: the mean processor time of an evaluation;
  covered, of the report's own evaluator: the part of the intervals, of parameters that matter, which contain the mean
    share over all searches of the same family, sampler and number of trials.

It takes about an hour of processor time, and with --seeds 2 six minutes.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    MeanDecreaseImpurityImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, create_trial
from scipy.stats import spearmanr
from sklearn.ensemble import BaggingRegressor, RandomForestRegressor
from synthetic_searches import FAMILIES, MATTERS, searched, truth

from search.report.trials import Importance, Surrogate, distributions_of, frame_of, importances, surrogate_of
from search.study.trials import trial_score


class RandomForests(Surrogate):
    """Random forests in place of extremely randomized trees."""

    @cached_property
    def forests(self) -> BaggingRegressor:
        return BaggingRegressor(RandomForestRegressor(20), 30, random_state=0).fit(self.inputs.to_numpy(), self.ranks)


def by_optuna(evaluator: BaseImportanceEvaluator, trials: Sequence[FrozenTrial], coded: bool) -> dict[str, float]:
    """Of the trials' scores, pruned ones included.

    Optuna's PED-ANOVA takes parameters that only some trials have; its other evaluators leave them out. With `coded`,
    each trial has all parameters as numbers in [0, 1]; those that it lacks are 0.5.
    """
    study = optuna.create_study(direction="maximize")
    rows = [(t.params, t.distributions) for t in trials]
    if coded:
        inputs = surrogate_of(frame_of(trials, "random"), distributions_of(trials)).inputs
        spread = dict.fromkeys(inputs, FloatDistribution(0, 1))
        rows = [(row, spread) for row in inputs.where(inputs >= 0, 0.5).to_dict("records")]
    for trial, (params, spread) in zip(trials, rows, strict=True):
        study.add_trial(create_trial(value=trial_score(trial), params=params, distributions=spread))
    return get_param_importances(study, evaluator=evaluator)


def by_forests(kind: type[Surrogate], trials: Sequence[FrozenTrial], ranks: bool) -> dict[str, Importance]:
    frame = frame_of(trials, "random")
    known = surrogate_of(frame, distributions_of(trials))
    return importances(kind(known.inputs, known.ranks if ranks else frame["score"].to_numpy()))


REPORT = "extremely randomized trees of ranks, permutation (the report's)"
EVALUATORS: dict[str, Callable[[Sequence[FrozenTrial]], Mapping[str, Any]]] = {
    "PED-ANOVA": lambda trials: by_optuna(PedAnovaImportanceEvaluator(target_quantile=0.2), trials, False),
    "fANOVA": lambda trials: by_optuna(FanovaImportanceEvaluator(seed=0), trials, False),
    "fANOVA, coded": lambda trials: by_optuna(FanovaImportanceEvaluator(seed=0), trials, True),
    "MDI": lambda trials: by_optuna(MeanDecreaseImpurityImportanceEvaluator(seed=0), trials, False),
    "MDI, coded": lambda trials: by_optuna(MeanDecreaseImpurityImportanceEvaluator(seed=0), trials, True),
    "random forests, permutation": lambda trials: by_forests(RandomForests, trials, False),
    "extremely randomized trees, permutation": lambda trials: by_forests(Surrogate, trials, False),
    REPORT: lambda trials: by_forests(Surrogate, trials, True),
}


def evaluated(job: tuple[int, str, str, Sequence[int]]) -> list[dict[str, Any]]:
    """What each evaluator says of one search, after each number of trials."""
    seed, name, sampler, counts = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    family = next(each for each in FAMILIES if each.__name__ == name)
    effects, trials, rows = truth(family)[0], searched(family, sampler, seed, max(counts)), []
    for count in counts:
        for evaluator, call in EVALUATORS.items():
            started = time.process_time()
            found = call(trials[:count])
            row = {"evaluator": evaluator, "family": name, "sampler": sampler, "seed": seed, "trials": count}
            row["seconds"] = time.process_time() - started
            row["first"] = bool(found) and effects[max(found, key=found.__getitem__)] >= MATTERS
            shares = {key: getattr(bar, "share", bar) for key, bar in found.items()}
            row["correlation"] = spearmanr([*effects.values()], [shares.get(key, 0.0) for key in effects]).statistic
            if evaluator == REPORT:  # where none is seen, it is said to be exactly nothing
                matter = [key for key, effect in effects.items() if effect >= MATTERS]
                row["bars"] = {key: found.get(key, Importance(0.0, 0.0, 0.0)) for key in matter}
            rows.append(row)
    print(f"{name}, {sampler}, seed {seed}", file=sys.stderr)
    return rows


def covered(rows: pd.DataFrame) -> float:
    """The part of the report's intervals that contain the mean share over the searches that they stand for."""
    inside = []
    for _, group in rows.groupby(["family", "sampler", "trials"]):
        for name in group["bars"].iloc[0]:
            bars = [bars[name] for bars in group["bars"]]
            mean = np.mean([bar.share for bar in bars])
            inside += [bar.low <= mean <= bar.high for bar in bars]
    return float(np.mean(inside))


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    chance = [np.mean([effect >= MATTERS for effect in truth(family)[0].values()]) for family in FAMILIES]
    searches = len(rows.drop_duplicates(["family", "sampler", "seed"]))
    result: dict[str, Any] = {"searches": searches, "chance": round(float(np.mean(chance)), 2)}
    for evaluator, of_evaluator in rows.groupby("evaluator", sort=False):
        result[evaluator] = {}
        for count, some in of_evaluator.groupby("trials"):
            figures = dict(some[["first", "correlation", "seconds"]].mean())
            figures |= {f"first, {sampler}": part.mean() for sampler, part in some.groupby("sampler")["first"]}
            if evaluator == REPORT:
                figures["covered"] = covered(some)
            result[evaluator][count] = {name: round(float(value), 2) for name, value in figures.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 20, 40, 80])
    arguments = parser.parse_args()
    names = [family.__name__ for family in FAMILIES]
    searches = product(range(arguments.seeds), names, ("random", "tpe"), [arguments.trials])
    with ProcessPoolExecutor() as pool:
        rows = pd.DataFrame([row for rows in pool.map(evaluated, searches) for row in rows])
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
