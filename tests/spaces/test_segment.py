import functools
import warnings

import optuna
import pytest
from optuna.trial import FixedTrial

from spaces.segment import SCRATCH, architectures, portfolio, suggest
from voctrain.config import SegmentConfig
from voctrain.models.decoders import split_name
from voctrain.models.published import published
from voctrain.models.segmenters import TORCHVISION, check_name

DRAWS = 300
PROBLEMS = [
    {"image_size": 96, "classes": 20, "masks": True, "weights": weights, "device": device, "epochs": epochs}
    for weights, device, epochs in [
        *[("none", "cpu", 1), ("none", "cpu", 27), ("none", "cuda", 27)],
        *[("imagenet", "cpu", 27), ("published", "cuda", 5), ("weights.pt", "cpu", 27)],
    ]
]
every_problem = pytest.mark.parametrize(
    "problem", PROBLEMS, ids=lambda p: f"{p['weights']}-{p['device']}-{p['epochs']}"
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
    return SegmentConfig.from_dict({name: problem[name] for name in ("epochs", "image_size", "weights")} | config)


@every_problem
def test_every_draw_is_a_valid_configuration(problem):
    for config, _ in drawn(problem):
        configured(config, problem)
        assert config.keys().isdisjoint({"seed", "epochs", "image_size", "weights", "precision"})  # not searched


@every_problem
def test_the_architectures_exist_and_have_the_weights(problem):
    names = architectures(problem)
    assert {config["architecture"] for config, _ in drawn(problem)} == set(names)
    for name in names:
        check_name(name)
    if problem["weights"] == "imagenet":
        assert all(published(f"timm/{split_name(name)[1]}") for name in names)
    if problem["weights"] == "published":
        assert set(names) <= set(TORCHVISION)
        assert all(published(name) for name in names)


def test_every_choice_is_drawn():
    configs = [config for config, _ in drawn(PROBLEMS[2])]
    for name in ("loss", "schedule", "sampling", "optimizer", "batch_size", "aug_repeats", "width"):
        assert len({config.get(name) for config in configs}) > 1, name
    assert {"cross_entropy", "object_cross_entropy"} < {config["loss"] for config in configs}


@pytest.mark.parametrize("problem", PROBLEMS[1:4], ids=["cpu", "cuda", "pretrained"])
def test_the_portfolio_is_within_the_space(problem):
    fitting = [entry for entry in portfolio(problem) if entry["architecture"] in architectures(problem)]
    assert len(fitting) >= 3
    for entry in fitting:
        if problem["device"] == "cpu" and entry.get("unet_width") == 64:
            continue
        with warnings.catch_warnings(action="error"):  # Optuna warns about values out of bounds
            config = suggest(FixedTrial(entry), dict(problem))
        configured(config, problem)


def test_the_portfolio_has_the_recipe_of_the_notebook():
    recipe = next(entry for entry in SCRATCH if entry["architecture"] == "unet")
    config = configured(suggest(FixedTrial(recipe), dict(PROBLEMS[1])), PROBLEMS[1])
    assert (config.optimizer, config.lr, config.batch_size, config.schedule) == ("adam", 1e-4, 8, "constant")
    assert (config.width, config.depth) == (32, 4)
