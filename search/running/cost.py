"""Whether a recipe still finishes within the time budget, before it has run."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial
from torch.utils.flop_counter import FlopCounterMode

from search.session.problem import Problem
from search.study.sampler import SeededSampler
from search.study.trials import Attr
from voctrain.config import TrainConfig
from voctrain.data import Data

IMAGES = 4  # that the operations are counted on


def portfolio_operations(problem: Problem, data: Data) -> dict[str, float]:
    """The floating-point operations of training each recipe of the portfolio on a few images, by its name.

    Only their ratios mean something. They are the same on every machine, and counting takes less than a second per
    recipe.
    """
    study = optuna.create_study(sampler=SeededSampler("random", 0, problem.pins))
    operations = {}
    for name, entry in problem.portfolio():
        study.enqueue_trial(entry)
        with suppress(ValueError, FloatingPointError):  # these few images are too few for it
            operations[name] = training_operations(problem, problem.config(study.ask()), data)
    return operations


def training_operations(problem: Problem, config: TrainConfig, data: Data) -> float:
    """The floating-point operations of an epoch on `IMAGES` images."""
    few = dataclasses.replace(
        data,
        train=data.train[:IMAGES],
        val=data.val[:1],
        test_ids=data.test_ids[:IMAGES],
        test_images=data.test_images[:IMAGES],
        test_sizes=data.test_sizes[:IMAGES],
    )
    # Weights change no operation, and getting them, or features for a probe, is not training.
    plain = {"weights": "none", "head_init": "random"}
    config = dataclasses.replace(
        config, **{name: value for name, value in plain.items() if getattr(config, name, None)}
    )
    with FlopCounterMode(display=False) as counter:
        next(problem.task.module.train(config, few))
    return float(counter.get_total_flops())


def fits_in(
    seconds_left: Callable[[], float],
    operations: Mapping[str, float],
    epochs: int,
    trials: Callable[[], list[FrozenTrial]],
    spent: Mapping[int, float],
) -> Callable[[FrozenTrial], bool]:
    """Whether a waiting recipe can run all of its epochs in the time left, judged by the cost of other recipes.

    It can if nothing is known: before the first epoch of any recipe, and for trials outside of the portfolio.

    operations: see `portfolio_operations`. trials: those that have started. spent: seconds that running trials have
    trained, by number.
    """

    def fits(trial: FrozenTrial) -> bool:
        own = operations.get(trial.user_attrs.get(Attr.ORIGIN, ""))
        seconds = done = 0.0
        for other in trials():
            counted = operations.get(other.user_attrs.get(Attr.ORIGIN, ""), 0.0) * len(other.intermediate_values)
            took = other.user_attrs.get(Attr.SECONDS, spent.get(other.number, 0.0))
            if counted and took:
                seconds, done = seconds + took, done + counted
        return own is None or not done or own * epochs * seconds / done <= seconds_left()

    return fits
