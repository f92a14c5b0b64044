"""What proposes configurations, reproducibly."""

import zlib
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

PRUNING_SAMPLERS = ("tpe", "random", "qmc")  # gp learns from complete trials only
LEARNING_SAMPLERS = ("tpe", "gp")
STARTUP_TRIALS = 20  # random trials before a sampler learns


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

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict) -> dict:
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._rebuild(trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def is_learned(sampler: str, number: int) -> bool:
    """Whether this sampler proposes the trial of this number by the scores of others."""
    return sampler in LEARNING_SAMPLERS and number >= STARTUP_TRIALS
