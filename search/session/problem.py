"""What a run will do, found out and checked before anything starts."""

import ast
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from search.study.sampler import SeededSampler
from search.study.trials import PORTFOLIO
from search.tasks import Task
from voctrain.config import TrainConfig
from voctrain.data import Data
from voctrain.models.weights import PUBLISHED

NAMED_WEIGHTS = ("none", *PUBLISHED)  # all others are files
PROBES = 200  # random configurations with which a space is checked before it is searched


@dataclass(frozen=True)
class Problem:
    """The configurations of a run: what is fixed, what is searched, and what the user pinned."""

    task: Task
    space: ModuleType
    fixed: dict[str, Any]  # configuration fields
    pins: dict[str, Any]  # values of searched parameters
    facts: dict[str, Any]  # what the space is told
    idle: dict[str, Any] = field(default_factory=dict)  # parameters that only feed fixed fields, with a value of each
    architectures: tuple[str, ...] = ()  # that it may suggest

    def config(self, trial: Any) -> TrainConfig:
        """The configuration that the space suggests to an Optuna trial. Raises `ValueError` for an impossible one."""
        suggested = self.space.suggest(_Answering(trial, self.idle) if self.idle else trial, dict(self.facts))
        if not isinstance(suggested, Mapping):
            raise ValueError(f"suggest of the space must return a dict, but it returned {suggested!r}")
        applicable = {k: v for k, v in suggested.items() if self.task.config.applies(k, self.fixed)}
        return self.task.config.from_dict({**applicable, **self.fixed})

    def portfolio(self) -> list[tuple[str, dict[str, Any]]]:
        """The space's configurations to try first that this problem holds, once each, with their names."""
        entries: dict[str, dict[str, Any]] = {}
        for number, params in enumerate(getattr(self.space, "PORTFOLIO", ()), 1):
            entry = self.fitting(params)
            if entry is not None and entry not in entries.values():  # pins and the problem make some alike
                entries[f"{PORTFOLIO} {number}"] = entry
        return list(entries.items())

    def fitting(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """These parameters, the user's pins in their place; None where the space does not hold them."""
        entry = {**params, **self.pins}
        study = optuna.create_study(sampler=SeededSampler("random", 0, self.pins))
        study.enqueue_trial(entry)
        trial = study.ask()
        try:
            with warnings.catch_warnings(action="ignore"):  # of a number: out of its bounds
                self.config(trial)
        except ValueError:  # of a categorical parameter: not among its choices
            return None
        if not all(_holds(d, trial.params[n]) for n, d in trial.distributions.items()):
            return None
        return {name: value for name, value in entry.items() if name in trial.params}


class _Answering:
    """An Optuna trial that answers some parameters itself, so that they are neither searched nor recorded."""

    def __init__(self, trial: Any, answers: Mapping[str, Any]):
        self._trial, self._answers = trial, answers

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return found
        return lambda name, *args, **options: (
            self._answers[name] if name in self._answers else found(name, *args, **options)
        )


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`key=value` strings as a dict; values are Python literals where they read as such, else text."""
    parsed = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ValueError(f"--set takes key=value, but got {setting!r}")
        try:
            parsed[key] = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def load_space(path: str | None, task: Task) -> ModuleType:
    """The task's own space, or that of a file. Raises `ValueError` for a file that is not one."""
    if path is None:
        return task.space
    if not Path(path).is_file():
        raise ValueError(f"--space takes a Python file with suggest(trial, problem), but {path} is not a file")
    spec = importlib.util.spec_from_file_location("user_space", path)
    if spec is None:
        raise ValueError(f"--space takes a Python file with suggest(trial, problem), but {path} does not end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"the space file {path} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(getattr(module, "suggest", None)):
        raise ValueError(f"the space file {path} has no suggest(trial, problem): define it, as spaces/classify.py does")
    return module


def make_problem(
    task: Task, data: Data, *, space: str | None, settings: dict[str, Any], device: str, **fixed: Any
) -> Problem:
    """The problem of a run, its space probed: every configuration drawn is one that can be built.

    fixed: configuration fields that the command line decides. Resolves the weights. Raises `ValueError` with what is
    wrong and how to mend it.
    """
    module = load_space(space, task)
    of_data = {"classes": len(data.classes), "masks": data.masks is not None, "channels": data.images.shape[-1]}
    facts = {**fixed, **of_data, "device": device}
    weights = fixed.get("weights", "none")
    for name in fixed:
        if name in settings:
            raise ValueError(f"--set {name} must be given as --{name.replace('_', '-')}")
    of_file = weights not in NAMED_WEIGHTS
    if of_file and (architecture := task.module.file_architecture(weights)):
        settings = {"architecture": architecture, **settings}
    searched = _searched(module, facts)
    for name, value in settings.items():  # "none" is a choice of some parameters, and None of some fields
        if value is None and any(_holds(d, "none") for d in searched.get(name, ())):
            settings = {**settings, name: "none"}
    pins = {k: v for k, v in settings.items() if any(_holds(d, v) for d in searched.get(k, ()))}
    # A value that the space does not hold is as fixed as a field that it does not search.
    fixed |= {k: v for k, v in settings.items() if k not in pins}
    problem = Problem(task, module, fixed, pins, facts)
    study = optuna.create_study(sampler=SeededSampler("random", 0, pins))
    trials = [study.ask() for _ in range(PROBES)]
    configs = [problem.config(trial) for trial in trials]
    # Two parameters may set one field, each for a choice of its own: then the field is fixed for both.
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
            f"{weights} does not say its architecture, and {len(one_each)} are searched: --set architecture=NAME"
        )
    for config in one_each.values() if weights != "none" else ():  # downloads them; finds out what does not fit
        task.module.new_model(config, data)
    return replace(problem, architectures=tuple(sorted(one_each)))


def _idle(problem: Problem, trials: Sequence[optuna.Trial], configs: Sequence[TrainConfig]) -> dict[str, Any]:
    """The searched parameters that change none of these trials' configurations when drawn again; a value of each."""
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


def _searched(space: ModuleType, facts: dict[str, Any]) -> dict[str, list[BaseDistribution]]:
    """The names that a space asks for, each with its distributions."""
    names: dict[str, list[BaseDistribution]] = {}
    study = optuna.create_study(sampler=SeededSampler("random", 0, {}))
    for _ in range(PROBES):
        trial = study.ask()
        try:
            space.suggest(trial, dict(facts))
        except Exception as error:
            raise ValueError(f"suggest of the space fails: {type(error).__name__}: {error}") from None
        for name, distribution in trial.distributions.items():
            known = names.setdefault(name, [])
            if distribution not in known:
                known.append(distribution)
    return names


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
