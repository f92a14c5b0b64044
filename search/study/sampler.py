"""The samplers, which propose configurations reproducibly."""

import heapq
import zlib
from collections.abc import Container, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

PRUNING_SAMPLERS = ("tpe", "random", "qmc")  # gp learns from complete trials only
LEARNING_SAMPLERS = ("tpe", "gp")
STARTUP_TRIALS = 20  # random trials before a sampler learns
TPE_GOOD = 25  # the most trials that TPE counts as good and compares with all others
TPE_OTHERS = 500  # latest trials that it looks at beside them: an ask then costs the same however long the search is


class SeededSampler(BaseSampler):
    """A sampler without memory: it is rebuilt from (seed, trial number, parameter) before each draw.

    A resumed search therefore proposes what an uninterrupted one would, even for a trial that was interrupted between
    two of its parameters. Pinned parameters always get their value.
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
            case "qmc":  # one sequence for the whole study, which knows its position
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
        self._relative, self._seen = self._rebuild(trial.number), self._see(study)
        return self._relative.infer_relative_search_space(self._seen, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict) -> dict:
        return self._relative.sample_relative(self._seen, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._rebuild(trial.number, param_name)
        return sampler.sample_independent(self._see(study), trial, param_name, param_distribution)

    def _see(self, study: optuna.Study) -> Any:
        return _LatestTrials(study) if self.kind == "tpe" else study


class _LatestTrials:
    """A study as TPE sees it: the running trials, and of those that have ended the good ones and the latest.

    TPE takes the same trials for good in the whole study. Of the others it gives the oldest the least weight anyway.
    """

    def __init__(self, study: optuna.Study):
        self._study = study
        trials = study.get_trials(deepcopy=False)
        ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        seen = {t.number for t in (*ended[-TPE_OTHERS:], *heapq.nlargest(TPE_GOOD, ended, key=_goodness))}
        self._trials = [t for t in trials if t.state == TrialState.RUNNING or t.number in seen]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        assert not deepcopy
        return [t for t in self._trials if states is None or t.state in states]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def _goodness(trial: FrozenTrial) -> tuple[bool, float, float]:
    """TPE's order: complete trials by value, then pruned ones by their last epoch and its score."""
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return True, trial.value, 0.0
    epoch, score = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return False, epoch, score


def is_learned(sampler: str, number: int) -> bool:
    """Whether this sampler proposes this trial from the scores of earlier ones."""
    return sampler in LEARNING_SAMPLERS and number >= STARTUP_TRIALS
