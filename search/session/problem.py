"""The search problem of a run: what is fixed, what is searched, and what the user pinned."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from search.command_line import flag
from search.run_folder.records import Configuration
from search.session.settings import load_space
from search.study.sampler import SeededSampler
from search.study.trials import PORTFOLIO
from search.tasks import Task
from search.tasks.pretrained import is_named
from voctrain.config import TrainConfig
from voctrain.data import Data

PROBES = 200  # random configurations that a space is checked with before it is searched


@dataclass(frozen=True)
class Problem:
    """What makes the configurations of a run."""

    task: Task
    space: ModuleType
    fixed: Configuration  # configuration fields
    pins: Configuration  # values of searched parameters
    info: Configuration  # what `suggest` of the space gets as its problem
    idle: Configuration = field(default_factory=dict)  # parameters that only feed fixed fields, each with a value
    architectures: tuple[str, ...] = ()  # that the space may suggest
    loaded: str | None = None  # what a network takes from the weights file

    def config(self, trial: Any) -> TrainConfig:
        """The configuration that the space suggests to an Optuna trial. Raises `ValueError` for an impossible one."""
        suggested = self.space.suggest(_Answering(trial, self.idle) if self.idle else trial, dict(self.info))
        if not isinstance(suggested, Mapping):
            raise ValueError(f"suggest of the space must return a dict, but it returned {suggested!r}")
        applicable = {k: v for k, v in suggested.items() if self.task.config.applies(k, self.fixed)}
        return self.task.config.from_dict({**applicable, **self.fixed})

    def portfolio(self) -> list[tuple[str, Configuration]]:
        """The configurations of the space's PORTFOLIO that are possible here, without duplicates, with their names."""
        entries: dict[str, Configuration] = {}
        for number, params in enumerate(getattr(self.space, "PORTFOLIO", ()), 1):
            entry = self.fitting(params)
            if entry is not None and entry not in entries.values():  # pins may make two equal
                entries[f"{PORTFOLIO} {number}"] = entry
        return list(entries.items())

    def fitting(self, params: Mapping[str, Any]) -> Configuration | None:
        """These parameters with the user's pins; None if the space does not contain them."""
        entry = {**params, **self.pins}
        study = optuna.create_study(sampler=SeededSampler("random", 0, self.pins))
        study.enqueue_trial(entry)
        trial = study.ask()
        try:
            with warnings.catch_warnings(action="ignore"):  # a number out of its bounds
                self.config(trial)
        except ValueError:  # a categorical value that is not among the choices
            return None
        if not all(_contains(d, trial.params[n]) for n, d in trial.distributions.items()):
            return None
        return {name: value for name, value in entry.items() if name in trial.params}


class _Answering:
    """An Optuna trial that answers for some parameters itself, so that they are neither searched nor recorded."""

    def __init__(self, trial: Any, answers: Mapping[str, Any]):
        self._trial, self._answers = trial, answers

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return found
        return lambda name, *args, **options: (
            self._answers[name] if name in self._answers else found(name, *args, **options)
        )


def make_problem(
    task: Task, data: Data, *, space: str | None, settings: Configuration, device: str, **fixed: Any
) -> Problem:
    """The problem of a run. Its space is checked: every configuration that it draws can be built.

    fixed: configuration fields that the command line decides. Downloads the weights. Raises `ValueError` for a space, a
    setting or a file that cannot be used.
    """
    module = load_space(space, task)
    of_data = {"classes": len(data.classes), "masks": data.masks is not None, "channels": data.images.shape[-1]}
    info = {**fixed, **of_data, "device": device}
    weights = fixed.get("weights", "none")
    for name in fixed:
        if name in settings:
            raise ValueError(f"--set {name} must be given as {flag(name)}")
    of_file = not is_named(weights)
    if of_file and (architecture := task.architecture_of(weights)):
        settings = {"architecture": architecture, **settings}
    searched = _searched(module, info)
    for name, value in settings.items():  # "none" is a choice of some parameters, and None of some fields
        if value is None and any(_contains(d, "none") for d in searched.get(name, ())):
            settings = {**settings, name: "none"}
    pins = {k: v for k, v in settings.items() if any(_contains(d, v) for d in searched.get(k, ()))}
    # A value outside of the space is as fixed as a field that is not searched.
    fixed |= {k: v for k, v in settings.items() if k not in pins}
    problem = Problem(task, module, fixed, pins, info)
    study = optuna.create_study(sampler=SeededSampler("random", 0, pins))
    trials = [study.ask() for _ in range(PROBES)]
    configs: list[Any] = [problem.config(trial) for trial in trials]
    # Several parameters may set one field, each for another choice: then the field itself is fixed.
    if split := {k for k in pins if any(getattr(c, k, None) not in (None, pins[k]) for c in configs)}:
        problem = replace(problem, fixed=fixed | {k: pins[k] for k in split})
    for config in configs:
        task.module.check(config, data)
    if unused := pins.keys() - {name for trial in trials for name in trial.params}:
        raise ValueError(f"--set {min(unused)} has no effect beside the other settings: leave it out or change those")
    if settings.keys() - pins.keys():
        problem = replace(problem, idle=_idle(problem, trials, configs))
    one_each = {c.architecture: c for c in configs}
    if of_file and "architecture" not in settings and len(one_each) > 1:
        raise ValueError(
            f"{weights} does not name its architecture, and {len(one_each)} are searched: give --set architecture=NAME"
        )
    loaded = None
    for config in one_each.values() if weights != "none" else ():  # downloads them, and raises for what does not fit
        loaded = str(task.module.new_model(config, data).loaded)
    return replace(problem, architectures=tuple(sorted(one_each)), loaded=loaded if of_file else None)


def _idle(problem: Problem, trials: Sequence[optuna.Trial], configs: Sequence[TrainConfig]) -> Configuration:
    """The searched parameters that change none of these configurations when they are drawn again, each with a value."""
    study = optuna.create_study(sampler=SeededSampler("random", 1, problem.pins))

    def redrawn(trial: optuna.Trial, name: str) -> TrainConfig:
        study.enqueue_trial({known: value for known, value in trial.params.items() if known != name})
        return problem.config(study.ask())

    seen = {name: value for trial in reversed(trials) for name, value in trial.params.items()}
    return {
        name: value
        for name, value in seen.items()
        if name not in problem.pins
        and all(redrawn(t, name) == c for t, c in zip(trials, configs, strict=True) if name in t.params)
    }


def _searched(space: ModuleType, info: Configuration) -> dict[str, list[BaseDistribution]]:
    """The parameters that a space suggests, each with its distributions."""
    names: dict[str, list[BaseDistribution]] = {}
    study = optuna.create_study(sampler=SeededSampler("random", 0, {}))
    for _ in range(PROBES):
        trial = study.ask()
        try:
            space.suggest(trial, dict(info))
        except Exception as error:
            raise ValueError(f"suggest of the space fails: {type(error).__name__}: {error}") from None
        for name, distribution in trial.distributions.items():
            known = names.setdefault(name, [])
            if distribution not in known:
                known.append(distribution)
    return names


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
