import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from search.report.trials import (
    at_bounds,
    best_over_epochs,
    coded,
    distributions_of,
    frame_of,
    importances,
    interactions,
    origin_of,
    surrogate_of,
)
from search.study.trials import PORTFOLIO, Attr


def searched(objective, count=80, seed=0):
    """Trials of a random search, each told its score after one epoch."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(count):
        trial = study.ask()
        value = objective(trial)
        trial.report(value, 1)
        study.tell(trial, value)
    return study.trials


def surrogate(trials):
    return surrogate_of(frame_of(trials, "random"), distributions_of(trials))


def test_the_parameter_that_decides_is_the_most_important():
    def objective(trial):
        x, _ = trial.suggest_float("x", 0, 1), trial.suggest_int("noise", 1, 9)
        return -((x - 0.3) ** 2) + 0.01 * trial.suggest_float("little", 0, 1)

    found = importances(surrogate(searched(objective)))
    assert next(iter(found)) == "x"
    assert found["x"].share > 0.8
    assert sum(bar.share for bar in found.values()) == pytest.approx(1)


def test_the_interval_separates_relevant_parameters():
    def objective(trial):
        x, y, _ = (trial.suggest_float(name, 0, 1) for name in ("x", "y", "noise"))
        return x + y

    few, many = (importances(surrogate(searched(objective, count))) for count in (20, 200))
    for bars in (few, many):
        assert all(bar.low <= bar.share <= bar.high for bar in bars.values())
        assert bars.get("noise", (0, 0))[1] == 0  # the interval reaches zero
    assert many["x"].low > 0.3  # x and y are worth the same
    assert many["y"].low > 0.3
    assert max(many["x"].low, many["y"].low) < min(many["x"].high, many["y"].high)
    assert many["x"].high - many["x"].low < few["x"].high - few["x"].low


def test_a_conditional_parameter_counts_among_those_that_have_it():
    def objective(trial):
        if trial.suggest_categorical("kind", ("plain", "tuned")) == "plain":
            return 0.1 + 0.001 * trial.suggest_float("other", 0, 1)
        return trial.suggest_float("x", 1e-4, 1, log=True)

    found = importances(surrogate(searched(objective)))
    assert next(iter(found)) == "x"
    assert set(found) <= {"x", "kind", "other"}


def test_too_few_trials_give_no_importances():
    trials = searched(lambda trial: trial.suggest_float("x", 0, 1), count=9)
    assert importances(surrogate(trials)) == {}
    rare = [*searched(lambda trial: trial.suggest_float("x", 0, 1)), *searched(lambda t: t.suggest_float("y", 0, 1), 9)]
    assert set(importances(surrogate(rare))) == {"x"}
    assert importances(surrogate(searched(lambda trial: 0 * trial.suggest_float("x", 0, 1)))) == {}  # all are equal
    assert importances(surrogate([])) == {}


def test_parameters_that_depend_on_each_other_are_found():
    def objective(trial):
        x, y, z = (trial.suggest_float(name, -1, 1) for name in "xyz")
        return x * y + z

    trials = searched(objective, 150)
    found = interactions(surrogate(trials), ["z", "x", "y"])
    assert next(iter(found)) == ("x", "y")
    assert found["x", "y"] > 0.4
    assert max(found["z", "x"], found["z", "y"]) < 0.2


def test_origins_and_codes():
    spread = {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "kind": CategoricalDistribution(("a", "b", "c")),
        "depth": IntDistribution(1, 5),
    }

    def made(params, **attributes):
        known = {name: spread[name] for name in params}
        return create_trial(
            value=0.5, params=params, distributions=known, user_attrs=attributes, intermediate_values={1: 0.4, 2: 0.5}
        )

    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            made({"lr": 1e-3, "kind": "c"}, **{Attr.ORIGIN: f"{PORTFOLIO} 1"}),
            made({"lr": 1e-2, "kind": "a", "depth": 2}),
            made({"kind": "b"}, **{Attr.ERROR: "diverged"}),
            made({"kind": "b"}, **{Attr.ORIGIN: "other, trial 3"}),
        ]
    )
    frame = frame_of(study.trials, "tpe")
    assert frame["number"].tolist() == [0, 1, 3]
    assert frame["origin"].tolist() == ["portfolio", "random", "warm start"]
    assert [origin_of(study.trials[1], sampler) for sampler in ("random", "qmc", "gp")] == [
        "random",
        "quasi-random",
        "random",
    ]
    assert best_over_epochs(study.trials) == ([2, 4, 8], [0.5, 0.5, 0.5])  # the diverged one has spent, too
    assert set(distributions_of(study.trials)) == {"lr", "kind"}  # of depth there is one value
    assert set(distributions_of(study.trials, {"lr"})) == {"kind"}
    codes = coded(frame, spread)
    assert codes["lr"].tolist() == pytest.approx([0.5, 1, -1])
    assert codes["kind"].tolist() == pytest.approx([1, 0, 0.5])
    assert codes["depth"].tolist() == pytest.approx([-1, 0.25, -1])


def test_bounds_are_those_of_the_space():
    spread = {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "depth": IntDistribution(1, 5),
        "width": IntDistribution(4, 4),
        "decay": FloatDistribution(0, 1),
        "kind": CategoricalDistribution(("a", "b")),
    }
    params = {"lr": 9.9e-3, "depth": 1, "width": 4, "decay": 0.5, "kind": "a"}
    trial = create_trial(state=TrialState.COMPLETE, value=1.0, params=params, distributions=spread)
    assert at_bounds(trial, spread) == [("lr", 9.9e-3, "upper"), ("depth", 1, "lower")]
    assert at_bounds(trial, {"lr"}) == [("lr", 9.9e-3, "upper")]


def test_no_scored_trial_gives_an_empty_table():
    frame = frame_of([], "tpe")
    assert len(frame) == 0
    assert np.array_equal(frame.columns, ["number", "score", "origin"])
