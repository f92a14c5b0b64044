import functools
import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from spaces.classify import SCRATCH, architectures, portfolio, suggest
from voctrain.config import ClassifyConfig
from voctrain.models.classifiers import check_name
from voctrain.models.published import published

DRAWS = 300
PROBLEMS = [
    {
        **{"image_size": 96, "classes": 20, "weights": weights, "device": device, "epochs": epochs},
        "masks": epochs != 5,
    }
    for weights, device, epochs in [
        *[("none", "cpu", 1), ("none", "cpu", 5), ("none", "cuda", 27)],
        *[("imagenet", "cpu", 27), ("imagenet", "cuda", 5), ("weights.pt", "cuda", 27)],
    ]
]
every_problem = pytest.mark.parametrize(
    "problem", PROBLEMS, ids=lambda p: f"{p['weights']}-{p['device']}-{p['epochs']}"
)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def drawn(problem):
    """The parameters, their distributions and the configuration of each random draw."""
    return _drawn(tuple(problem.items()))


@functools.cache
def _drawn(problem):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = []
    for _ in range(DRAWS):
        trial = study.ask()
        config = suggest(trial, dict(problem))
        draws.append((trial.params, trial.distributions, config))
    return draws


class StrictTrial(FixedTrial):
    """Fails for a value outside the space, where `FixedTrial` only warns."""

    def _suggest(self, name, distribution):
        assert distribution._contains(distribution.to_internal_repr(self._params[name])), (name, self._params[name])
        return super()._suggest(name, distribution)


def configured(config, problem):
    fixed = {name: problem[name] for name in ("epochs", "image_size", "weights")}
    return ClassifyConfig.from_dict(fixed | config)


@every_problem
def test_every_draw_is_a_valid_configuration(problem):
    for _, _, config in drawn(problem):
        configured(config, problem)
        assert config.keys().isdisjoint({"seed", "epochs", "image_size", "weights", "precision"})  # not searched


@every_problem
def test_a_parameter_has_the_name_of_the_field_it_sets(problem):
    fields = ClassifyConfig.__dataclass_fields__
    for params, _, config in drawn(problem):
        own = params.keys() & fields.keys()
        assert {name: params[name] for name in own} == {name: config[name] for name in own}
        assert params.keys() - fields.keys() <= {
            *("step_part", "clip", "augmentation", "color", "color_strength", "mixing", "mixing_alpha"),
            *("ema", "ema_memory", "lr_sgd", "weight_decay_l2", "mask_supervision", "augmentation_strength"),
        }


@every_problem
def test_draws_cover_every_choice_and_differ(problem):
    draws = drawn(problem)
    values = {}
    for params, distributions, _ in draws:
        for name, distribution in distributions.items():
            values.setdefault(name, (distribution, set()))[1].add(params[name])
    for name, (distribution, seen) in values.items():
        if isinstance(distribution, optuna.distributions.CategoricalDistribution):
            assert seen == set(distribution.choices), name
        elif isinstance(distribution, optuna.distributions.IntDistribution):
            assert seen == set(range(distribution.low, distribution.high + 1)), name
        else:
            assert len(seen) > 1, name
    assert len({repr(sorted(config.items())) for _, _, config in draws}) == DRAWS


@every_problem
def test_both_ends_of_every_range_are_valid(problem):
    ranges = {}
    for params, distributions, _ in drawn(problem):
        for name, distribution in distributions.items():
            if not isinstance(distribution, optuna.distributions.CategoricalDistribution):
                ranges[name] = (params, distribution)
    expected = {"lr", "lr_sgd", "weight_decay", "weight_decay_l2"}
    if problem["weights"] == "none":
        expected |= {"momentum", "div_factor", "end_factor", "step_part", "gamma", "plateau_patience", "aug_repeats"}
        expected |= {"crop_scale", "rotation", "shear", "perspective", "color_strength", "gamma_neg", "pos_weight_cap"}
        expected |= {"focal_gamma", "label_smoothing", "mixing_alpha", "ema_memory"}
        expected |= {"warmup_epochs"} if problem["epochs"] > 4 else set()
    else:
        expected |= {"layer_decay", "augmentation_strength"}
    expected |= {"mask_loss"} if problem["masks"] else set()
    assert ranges.keys() == expected
    for name, (params, distribution) in ranges.items():
        for end in (distribution.low, distribution.high):
            trial = StrictTrial(params | {name: end})
            configured(suggest(trial, problem), problem)
            assert trial.params[name] == end


@every_problem
def test_a_step_schedule_drops_during_training(problem):
    for _, _, config in drawn(problem):
        if config["schedule"] == "step":
            assert 1 <= config["step_epochs"] < max(problem["epochs"], 2)


@every_problem
def test_the_architectures_exist_and_have_the_weights(problem):
    names = architectures(problem)
    assert len(set(names)) == len(names)
    for name in names:
        check_name(name)
    if problem["weights"] != "none":
        assert all(published(name) for name in names)


@every_problem
def test_the_portfolio_is_complete_and_within_the_space(problem):
    entries = [entry for entry in portfolio(problem) if entry["architecture"] in architectures(problem)]
    assert len(entries) >= 3
    assert entries[0] == portfolio(problem)[0] or problem["device"] != "cpu"  # the best known is tried everywhere
    for entry in entries:
        trial = StrictTrial(entry)  # a missing name raises
        config = configured(suggest(trial, problem), problem)
        assert config.architecture == entry["architecture"]
        idle = {"warmup_epochs"} if problem["epochs"] <= 4 else set()
        scratch = problem["weights"] == "none"
        idle |= set() if problem["masks"] else {"mask_supervision", "mask_loss"} if scratch else {"mask_pooling"}
        idle |= {"aug_repeats"} if entry.get("aug_repeats") == 1 else set()
        assert entry.keys() <= trial.distributions.keys() | idle  # every entry has an effect


def test_the_portfolio_ends_with_the_recipes_of_the_notebook():
    problem = PROBLEMS[2]
    small, resnet34, resnet50 = (configured(suggest(FixedTrial(entry), problem), problem) for entry in SCRATCH[-3:])
    assert (small.architecture, small.optimizer, small.momentum, small.schedule) == ("complex", "sgd", 0.9, "one_cycle")
    assert (small.lr, small.lr / small.div_factor, small.batch_size) == pytest.approx((0.01, 1.5e-4, 32))
    assert (resnet50.architecture, resnet50.optimizer, resnet50.momentum, resnet50.lr) == ("resnet50", "sgd", 0.9, 1e-3)
    assert (resnet34.architecture, resnet34.optimizer, resnet34.schedule, resnet34.batch_size) == (
        "resnet34",
        "adam",
        "linear",
        16,
    )
    assert (resnet34.lr, resnet34.lr * resnet34.end_factor, resnet34.clip_value) == pytest.approx((1.5e-4, 1.7e-4, 0.1))
    for recipe in (small, resnet34, resnet50):
        assert recipe.loss == "bce"
        assert recipe.pos_weight_cap > 1
        assert (recipe.weight_decay, recipe.epochs) == (1e-4, 27)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(PROBLEMS))
def test_the_same_parameters_give_the_same_configuration(seed, problem):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    config = suggest(trial, problem)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(suggest(StrictTrial(trial.params), problem) == config for _ in range(2))
