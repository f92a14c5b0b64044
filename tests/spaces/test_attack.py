import functools
import warnings

import optuna
import pytest
import torch
from optuna.trial import FixedTrial
from torch.utils.flop_counter import FlopCounterMode

from spaces.attack import BUDGET, PORTFOLIO, architectures, suggest, widths
from voctrain.config import AttackConfig
from voctrain.models import GENERATORS, build_generator

DRAWS = 200
PROBLEMS = [
    {"image_size": size, "channels": channels, "device": device, "epochs": 9, "goal": goal}
    for size, channels, device, goal in [
        *[(64, 3, "cpu", "fake"), (96, 3, "cpu", "fake"), (300, 3, "cpu", "hide:dog"), (300, 3, "cuda", "fake")],
        *[(96, 3, "cpu", "privacy"), (28, 1, "cpu", "fake")],
    ]
]
every_problem = pytest.mark.parametrize(
    "problem", PROBLEMS, ids=lambda p: f"{p['image_size']}-{p['device']}-{p['goal']}"
)
optuna.logging.set_verbosity(optuna.logging.WARNING)


@functools.cache
def _drawn(problem):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(DRAWS)]
    return [(suggest(trial, dict(problem)), trial.params) for trial in trials]


def drawn(problem):
    """The configuration and the parameters of each random draw."""
    return _drawn(tuple(problem.items()))


def configured(config, problem):
    run = {name: problem[name] for name in ("epochs", "image_size", "goal")}
    return AttackConfig.from_dict({**run, "victim": "best.pt", **config})


@every_problem
def test_every_draw_is_a_valid_configuration(problem):
    for config, _ in drawn(problem):
        configured(config, problem)
        assert config.keys().isdisjoint({"seed", "epochs", "image_size", "victim", "goal", "min_ssim", "max_ssim"})
    scales = [config["scale"] for config, _ in drawn(problem)]
    assert 2 / 255 <= min(scales) < 3 / 255
    assert max(scales) <= (1 if problem["goal"] == "privacy" else 64 / 255)


@every_problem
def test_the_generators_accept_the_images(problem):
    names = architectures(problem)
    assert {config["architecture"] for config, _ in drawn(problem)} == set(names)
    assert set(names) <= set(GENERATORS)
    assert ("guided" in names) == (problem["goal"] != "privacy")
    for name in names:
        with torch.device("meta"):
            build_generator(
                name, image_size=problem["image_size"], in_channels=problem["channels"], descent=lambda x: x
            )


@pytest.mark.parametrize("size", [64, 96, 200, 300])
def test_generators_on_a_cpu_stay_within_the_budget(size):
    problem = {"image_size": size, "device": "cpu", "goal": "fake"}
    for name in architectures(problem):
        for width in widths(name, problem) if name in ("residual", "guided") else (None,):
            with torch.device("meta"), FlopCounterMode(display=False) as counter:
                generator = build_generator(name, image_size=size, width=width, descent=lambda x: x)
                generator(torch.empty(1, 3, size, size))
            assert counter.get_total_flops() < 1.15 * BUDGET, (name, width)


@pytest.mark.parametrize("problem", [PROBLEMS[1], PROBLEMS[5]], ids=["images", "digits"])
def test_the_portfolio_is_within_the_space(problem):
    entries = [entry for entry in PORTFOLIO if entry["architecture"] in architectures(problem)]
    assert len(entries) >= 3
    for entry in entries:
        with warnings.catch_warnings(action="error"):  # Optuna warns about values out of bounds
            configured(suggest(FixedTrial(entry), dict(problem)), problem)


def test_the_recipes_of_the_notebook_follow_the_best_known():
    assert PORTFOLIO[0]["architecture"] == "guided"
    recipes = [entry for entry in PORTFOLIO if entry["architecture"] == "voc_adversarial3"]
    configs = [configured(suggest(FixedTrial(entry), dict(PROBLEMS[1])), PROBLEMS[1]) for entry in recipes]
    assert {(config.optimizer, config.lr, config.batch_size) for config in configs} == {("adagrad", 0.01, 1)}
    assert [config.fake_label for config in configs] == [0, 0.5, 1, 0]
    digits = next(entry for entry in PORTFOLIO if entry["architecture"] == "mnist_adversarial")
    config = configured(suggest(FixedTrial(digits), dict(PROBLEMS[5])), PROBLEMS[5])
    assert (config.optimizer, config.fake_label, config.hflip) == ("sgd", 0.1, 0)
