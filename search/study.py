"""The Optuna study of a run: opened, asked reproducibly, and read."""

import json
import math
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

PRUNING_SAMPLERS = ("tpe", "random", "qmc")  # gp learns from complete trials only
LEARNING_SAMPLERS = ("tpe", "gp")
STARTUP_TRIALS = 20  # random ones before these believe in themselves
# User attributes of a trial.
CONFIG, ERROR, WORKER, SECONDS, MEMORY, ORIGIN = "config", "error", "worker", "seconds", "memory_gb", "origin"
METRICS = "metrics"  # of its best epoch
DUPLICATE = "duplicate"  # the number of the trial that has the same configuration: this one was not run
PORTFOLIO = "portfolio"  # begins the origin of its trials

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(path: Path, sampler: BaseSampler) -> optuna.Study:
    """The study in the journal at `path`, made where there is none. The caller holds the run's lock.

    What a killed driver left is repaired: its lock file, and a last line that it did not finish writing.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.exists():
        _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(
        study_name="search", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )


def read_study(path: Path) -> optuna.Study:
    """The study of another run, which may be running. Raises `ValueError` where there is none."""
    if not path.exists():
        raise ValueError(f"{path.parent} has no {path.name}: start the run again")
    return optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(path))))


def _cut_torn_line(path: Path) -> None:
    with open(path, "r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
        try:
            json.loads(content[start:end] or b"null")
        except ValueError:
            end = start
        if end < len(content):
            file.truncate(end)
            file.flush()
            os.fsync(file.fileno())


class SeededSampler(BaseSampler):
    """A sampler without memory: rebuilt before each draw from (seed, trial number, parameter).

    So a resumed search proposes what an uninterrupted one would, even for a trial that was cut off between two of its
    parameters. Pinned parameters always get their value.
    """

    def __init__(self, kind: str, seed: int, pins: Mapping[str, Any]):
        self.kind, self.seed, self.pins = kind, seed, dict(pins)
        self._relative = self._rebuild(-1)

    def _rebuild(self, *key: int | str) -> BaseSampler:
        seed = zlib.crc32(repr((self.seed, *key)).encode())
        match self.kind:
            case "tpe":
                sampler = optuna.samplers.TPESampler(
                    multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS, seed=seed
                )
            case "random":
                sampler = optuna.samplers.RandomSampler(seed=seed)
            case "qmc":  # one sequence for the whole study: its place in it is kept in the study
                sampler = optuna.samplers.QMCSampler(
                    scramble=True,
                    seed=self.seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
            case "gp":
                sampler = optuna.samplers.GPSampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
            case _:
                raise ValueError(f"unknown sampler {self.kind!r}")
        return optuna.samplers.PartialFixedSampler(self.pins, sampler) if self.pins else sampler

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._relative = self._rebuild(trial.number)
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict) -> dict[str, Any]:
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution) -> Any:
        return self._rebuild(trial.number, name).sample_independent(study, trial, name, distribution)


def rungs(epochs: int) -> list[int]:
    """The epochs after which a trial of so many may be pruned: a ninth and a third of them."""
    first = max(1, epochs / 9)
    return [math.ceil(epoch) for epoch in (first, 3 * first) if epoch < epochs]


def learned(sampler: str, number: int) -> bool:
    """Whether this sampler proposes the trial of this number by the scores of others."""
    return sampler in LEARNING_SAMPLERS and number >= STARTUP_TRIALS


def ask(study: optuna.Study, fits: Callable[[FrozenTrial], bool]) -> optuna.Trial:
    """As `study.ask`, except that enqueued trials that do not fit go on waiting."""
    study._thread_local.cached_all_trials = None
    storage = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if fits(trial) and storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
            return optuna.trial.Trial(study, trial._trial_id)
    return optuna.trial.Trial(study, storage.create_new_trial(study._study_id))


def started(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of the run so far, by number, without those that are only enqueued or repeat another one."""
    return [
        t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING and DUPLICATE not in t.user_attrs
    ]


def portfolio_numbers(study: optuna.Study) -> set[int]:
    """The numbers of the trials that try the space's PORTFOLIO, waiting ones included."""
    return {
        t.number
        for t in study.get_trials(deepcopy=False)
        if re.fullmatch(rf"{PORTFOLIO} \d+", t.user_attrs.get(ORIGIN, ""))
    }


def score(trial: FrozenTrial) -> float | None:
    """The best of a trial's epochs, pruned or not; None without any, or where it broke down."""
    if ERROR in trial.user_attrs or not trial.intermediate_values:
        return None
    return max(trial.intermediate_values.values())


def best_epoch(trial: FrozenTrial) -> int | None:
    """The first epoch with the trial's score."""
    value = score(trial)
    return None if value is None else min(e for e, v in trial.intermediate_values.items() if v == value)


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those of these trials that scored, best first; of equal ones the earlier."""
    return sorted((t for t in trials if score(t) is not None), key=lambda t: (-score(t), t.number))


def state_name(trial: FrozenTrial) -> str:
    """running, complete, pruned or failed (which includes diverged and out of memory)."""
    return "failed" if ERROR in trial.user_attrs or trial.state == TrialState.FAIL else trial.state.name.lower()
