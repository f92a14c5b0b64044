"""Synthetic searches in which the importance of each parameter is known, see importances.py."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from search.study.sampler import SeededSampler
from search.study.trials import asha_rungs

EPOCHS = 9
NOISE = 0.5  # standard deviation of a score's noise, where that of the objective over the space is 1
DRAWS = 3000  # configurations from which the true importances are estimated
MATTERS = 0.01  # least total effect of a parameter that matters
ARCHITECTURES = {"simple": 0, "complex": 1, "resnet9": 4, "resnet18": 5, "resnet34": 4, "mobilenet": 2}
OPTIMIZERS = {"adamw": 0.4, "adam": 0.3, "sgd": 0.0}
Objective = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Parameter:
    """A parameter, which may exist only where its parent has one of these choices."""

    distribution: BaseDistribution
    parent: str | None = None
    choices: tuple = ()

    def exists(self, known: Mapping[str, Any]) -> bool:
        return self.parent is None or known.get(self.parent) in self.choices

    def suggest(self, trial: Trial, name: str) -> Any:
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return trial.suggest_categorical(name, d.choices)
        suggest = trial.suggest_int if isinstance(d, IntDistribution) else trial.suggest_float
        return suggest(name, d.low, d.high, log=d.log)

    def draw(self, rng: np.random.Generator) -> Any:
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[rng.integers(len(d.choices))]
        if isinstance(d, IntDistribution):
            return int(rng.integers(d.low, d.high + 1))
        return math.exp(rng.uniform(math.log(d.low), math.log(d.high))) if d.log else rng.uniform(d.low, d.high)


def real(low: float, high: float, *under: Any, log: bool = False) -> Parameter:
    return Parameter(FloatDistribution(low, high, log=log), *under)


def integer(low: int, high: int) -> Parameter:
    return Parameter(IntDistribution(low, high))


def choice(*choices: Any) -> Parameter:
    return Parameter(CategoricalDistribution(choices))


IRRELEVANT = {
    "weight_decay": real(1e-5, 0.3, log=True),
    "label_smoothing": real(0, 0.1),
    "warmup": integer(0, 3),
    "aug_repeats": integer(1, 8),
    "sampling": choice("shuffle", "weighted", "oversample"),
    "clip": choice("none", "norm", "value"),
    "color": choice("none", "jitter", "gray"),
    "color_strength": real(0.05, 0.5, "color", ("jitter",)),
    "ema": choice(False, True),
    "ema_memory": real(0.03, 0.3, "ema", (True,), log=True),
}


def place(value: float, low: float, high: float) -> float:
    """Where a value lies between two others on a log scale, in [0, 1]."""
    return math.log(value / low) / math.log(high / low)


def additive(p: Mapping[str, Any]) -> float:
    rate = -4 * (place(p["lr"], 1e-4, 1e-2) - 0.6) ** 2
    return rate + 0.2 * p["depth"] + OPTIMIZERS[p["optimizer"]] + 0.5 * p["crop"]


def cliff(p: Mapping[str, Any]) -> float:
    """Too large a learning rate breaks a training down."""
    rate = place(p["lr"], 1e-4, 1.0)
    return (-1.5 if rate > 0.75 else rate) + 0.1 * ARCHITECTURES[p["architecture"]] - 0.4 * p["dropout"]


def valley(p: Mapping[str, Any]) -> float:
    """The best learning rate depends on the batch size."""
    batch = {8: 0.0, 16: 0.5, 32: 1.0}[p["batch_size"]]
    return -6 * (place(p["lr"], 1e-4, 1e-2) - 0.2 - 0.6 * batch) ** 2 + 1.5 * p["momentum"]


def conditional(p: Mapping[str, Any]) -> float:
    if p["optimizer"] == "sgd":
        value = -0.3 - 6 * (place(p["lr_sgd"], 1e-3, 0.2) - 0.7) ** 2 + 3 * (p["momentum"] - 0.9)
    else:
        value = -4 * (place(p["lr"], 1e-4, 1e-2) - 0.4) ** 2
    return value - (1.2 * place(p["gamma"], 0.05, 0.5) if p["schedule"] == "step" else 0)


def choices(p: Mapping[str, Any]) -> float:
    augmentation = {"flip": 0.0, "crop": 0.6, "warp": 0.9, "random_ops": 0.4}[p["augmentation"]]
    loss = {"bce": 0.3, "focal": 0.2, "asymmetric": -0.6 * (p.get("gamma_neg", 1) - 2)}[p["loss"]]
    return 0.3 * ARCHITECTURES[p["architecture"]] + augmentation + loss


def weak(p: Mapping[str, Any]) -> float:
    """Many parameters that matter equally little."""
    numbers = place(p["lr"], 1e-4, 1e-2) + 0.25 * p["depth"] + p["crop"] - 2 * p["dropout"]
    return numbers + 2 * OPTIMIZERS[p["optimizer"]] + 0.8 * (p["batch_size"] == 8)


ARCHITECTURE, OPTIMIZER, BATCH = choice(*ARCHITECTURES), choice(*OPTIMIZERS), choice(8, 16, 32)
RATE, DEPTH, CROP, DROPOUT = real(1e-4, 1e-2, log=True), integer(1, 5), real(0.25, 0.9), real(0, 0.5)
FAMILIES: dict[Objective, dict[str, Parameter]] = {
    additive: {"lr": RATE, "depth": DEPTH, "optimizer": OPTIMIZER, "crop": CROP},
    cliff: {"lr": real(1e-4, 1.0, log=True), "architecture": ARCHITECTURE, "dropout": DROPOUT},
    valley: {"lr": RATE, "batch_size": BATCH, "momentum": real(0.8, 0.98)},
    conditional: {
        "optimizer": choice("adamw", "sgd"),
        "lr": real(1e-4, 1e-2, "optimizer", ("adamw",), log=True),
        "lr_sgd": real(1e-3, 0.2, "optimizer", ("sgd",), log=True),
        "momentum": real(0.8, 0.98, "optimizer", ("sgd",)),
        "schedule": choice("one_cycle", "cosine", "step"),
        "gamma": real(0.05, 0.5, "schedule", ("step",), log=True),
        "div_factor": real(5, 100, "schedule", ("one_cycle",), log=True),
    },
    choices: {
        "architecture": ARCHITECTURE,
        "augmentation": choice("flip", "crop", "warp", "random_ops"),
        "rotation": real(0, 30, "augmentation", ("warp",)),
        "loss": choice("bce", "focal", "asymmetric"),
        "gamma_neg": real(1, 4, "loss", ("asymmetric",)),
        "lr": RATE,
    },
    weak: {"lr": RATE, "depth": DEPTH, "crop": CROP, "optimizer": OPTIMIZER, "dropout": DROPOUT, "batch_size": BATCH},
}


@cache
def truth(family: Objective) -> tuple[dict[str, float], float, float]:
    """The total-effect index of each parameter (Jansen, 1999), and the objective's mean and standard deviation."""
    space, rng = FAMILIES[family] | IRRELEVANT, np.random.default_rng(0)

    def value(drawn: Mapping[str, Any]) -> float:
        return family({name: drawn[name] for name, parameter in space.items() if parameter.exists(drawn)})

    drawn = [{name: parameter.draw(rng) for name, parameter in space.items()} for _ in range(DRAWS)]
    values = np.array([value(each) for each in drawn])
    effects = {}
    for name, parameter in space.items():
        others = np.array([value({**each, name: parameter.draw(rng)}) for each in drawn])
        effects[name] = float(np.square(values - others).mean() / 2 / values.var())
    return effects, values.mean(), values.std()


def searched(family: Objective, sampler: str, seed: int, count: int) -> list[FrozenTrial]:
    """The trials of a search; those of TPE report every epoch and may be pruned."""
    space, (_, mean, spread) = FAMILIES[family] | IRRELEVANT, truth(family)
    study = optuna.create_study(direction="maximize", sampler=SeededSampler(sampler, seed, {}))
    rng, pruned = np.random.default_rng(seed), sampler == "tpe"
    reported: dict[int, list[float]] = {rung: [] for rung in asha_rungs(EPOCHS)}
    for _ in range(count):
        trial, params, values = study.ask(), {}, []
        for name, parameter in space.items():
            if parameter.exists(params):
                params[name] = parameter.suggest(trial, name)
        end, speed = (family(params) - mean) / spread + NOISE * rng.normal(), rng.uniform(1, 4)
        for epoch in range(1, EPOCHS + 1) if pruned else (EPOCHS,):
            learned = 1 - math.exp(-epoch / speed) if pruned else 1
            values.append(0.3 + 0.1 * (end + 1) * learned + 0.01 * rng.normal())
            trial.report(values[-1], epoch)
            if pruned and epoch in reported:
                reported[epoch].append(values[-1])
                if values[-1] < np.quantile(reported[epoch], 2 / 3):
                    study.tell(trial, state=TrialState.PRUNED)
                    break
        else:
            study.tell(trial, max(values))
    return study.trials
