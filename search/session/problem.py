"""The search problem of a run: what is fixed, what is searched, and what the user pinned."""

import warnings
from collections.abc import Collection, Mapping, Sequence
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
from search.tasks.pretrained import NONE, is_named
from voctrain.config import TrainConfig
from voctrain.data import Data

ARCHITECTURE = "architecture"  # the parameter that chooses one
FROM_SCRATCH = "has no published weights: it is trained from scratch"
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
    left_out: tuple[str, ...] = ()  # architectures that the space may suggest, but whose weights are unavailable
    architectures: tuple[str, ...] = ()  # that the space may suggest
    notes: tuple[str, ...] = ()  # what the user should know about the weights

    def config(self, trial: Any) -> TrainConfig:
        """The configuration that the space suggests to an Optuna trial. Raises `ValueError` for an impossible one."""
        suggested = self.space.suggest(_Asked(trial, self.idle, self.left_out), dict(self.info))
        if not isinstance(suggested, Mapping):
            raise ValueError(f"suggest of the space must return a dict, but it returned {suggested!r}")
        applicable = {k: v for k, v in suggested.items() if self.task.config.applies(k, self.fixed)}
        values = {**applicable, **self.fixed}
        if not self.task.has_weights(values.get(ARCHITECTURE), values.get("weights", NONE)):
            values["weights"] = NONE
        return self.task.config.from_dict(values)

    def portfolio(self) -> list[tuple[str, Configuration]]:
        """The configurations of the space's portfolio that are possible here, without duplicates, with their names.

        It is what `portfolio(problem)` of the space returns, or else its PORTFOLIO.
        """
        of_problem = getattr(self.space, "portfolio", None)
        recipes = getattr(self.space, "PORTFOLIO", ()) if of_problem is None else of_problem(dict(self.info))
        entries: dict[str, Configuration] = {}
        for number, params in enumerate(recipes, 1):
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


class _Asked:
    """An Optuna trial that answers for some parameters itself, so that they are neither searched nor recorded.

    left_out: architectures that it does not offer.
    """

    def __init__(self, trial: Any, answers: Mapping[str, Any], left_out: Collection[str]):
        self._trial, self._answers, self._left_out = trial, answers, left_out

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._trial, attribute)
        if not attribute.startswith("suggest_"):
            return found
        return lambda name, *args, **options: (
            self._answers[name] if name in self._answers else found(name, *args, **options)
        )

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name in self._answers:
            return self._answers[name]
        if name == ARCHITECTURE:
            choices = [choice for choice in choices if choice not in self._left_out]
        return self._trial.suggest_categorical(name, choices)


def make_problem(
    task: Task,
    data: Data,
    *,
    space: str | None,
    settings: Configuration,
    device: str,
    left_out: tuple[str, ...] | None = None,
    **fixed: Any,
) -> Problem:
    """The problem of a run. Its space is checked: every configuration that it draws can be built.

    left_out: those of a run that has begun. fixed: configuration fields that the command line decides.
    Downloads the weights. Raises `ValueError` for a space, a setting or a file that cannot be used.
    """
    module = load_space(space, task)
    for name in fixed:
        if name in settings:
            raise ValueError(f"--set {name} must be given as {flag(name)}")
    weights, notes = fixed.get("weights", NONE), ()
    of_file = not is_named(weights)
    if of_file and (architecture := task.architecture_of(weights)):
        settings = {ARCHITECTURE: architecture, **settings}
    if not task.has_weights(settings.get(ARCHITECTURE), weights):
        notes = (f"{settings[ARCHITECTURE]} {FROM_SCRATCH}",)
        fixed["weights"] = weights = NONE
    of_data = {"classes": len(data.classes), "masks": data.masks is not None, "channels": data.images.shape[-1]}
    info = {**fixed, **of_data, "device": device}
    searched = _searched(module, info)
    if left_out is None:
        left_out, missing = ((), ()) if of_file or ARCHITECTURE in settings else _unavailable(task, searched, weights)
        notes += missing
    for name, value in settings.items():  # "none" is a choice of some parameters, and None of some fields
        if value is None and any(_contains(d, "none") for d in searched.get(name, ())):
            settings = {**settings, name: "none"}
    pins = {k: v for k, v in settings.items() if any(_contains(d, v) for d in searched.get(k, ()))}
    # A value outside of the space is as fixed as a field that is not searched.
    fixed |= {k: v for k, v in settings.items() if k not in pins}
    problem = Problem(task, module, fixed, pins, info, left_out=left_out)
    study = optuna.create_study(sampler=SeededSampler("random", 0, pins))
    trials = [study.ask() for _ in range(PROBES)]
    configs: list[Any] = [problem.config(trial) for trial in trials]
    # Several parameters may set one field, each for another choice: then the field itself is fixed.
    if split := {k for k in pins if any(getattr(c, k, None) not in (None, pins[k]) for c in configs)}:
        problem = replace(problem, fixed=fixed | {k: pins[k] for k in split})
        configs = [problem.config(trial) for trial in trials]
    for config in configs:
        task.module.check(config, data)
    if unused := pins.keys() - split - {name for trial in trials for name in trial.params}:
        raise ValueError(f"--set {min(unused)} has no effect beside the other settings: leave it out or change those")
    idle = _idle(problem, trials, configs) if split or settings.keys() - pins.keys() else {}
    one_each = {c.architecture: c for c in configs}
    if of_file and ARCHITECTURE not in settings and len(one_each) > 1:
        raise ValueError(
            f"{weights} does not name its architecture, and {len(one_each)} are searched: give --set architecture=NAME"
        )
    for name, config in one_each.items() if weights != NONE else ():  # raises for what does not fit
        loaded = task.module.new_model(config, data).loaded
        notes += (str(loaded),) if of_file else (f"{name} {FROM_SCRATCH}",) if loaded is None else ()
    return replace(problem, idle=idle, architectures=tuple(sorted(one_each)), notes=notes)


def _unavailable(
    task: Task, searched: Mapping[str, Sequence[BaseDistribution]], weights: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Download the weights of the architectures that are searched; returns those without, and a line about them.

    Raises `ValueError` if there are weights for none.
    """
    names = list(dict.fromkeys(n for d in searched.get(ARCHITECTURE, ()) for n in getattr(d, "choices", ())))
    reasons: dict[str, str] = {}
    for name in names if weights != NONE else ():
        try:
            if task.has_weights(name, weights):
                task.download(name, weights)
        except ValueError as error:
            reasons[name] = str(error)
    if not reasons:
        return (), ()
    first = next(iter(reasons.values()))
    if len(reasons) == len(names):
        raise ValueError(first)
    line = f"searching without {', '.join(reasons)}: {first.partition(': ')[0]}"
    return tuple(reasons), (line,)


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
