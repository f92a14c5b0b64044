"""The time that a search will still take, predicted from the cost of its trials so far."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search.run_folder.records import RunRecord
from search.study.rungs import runs_whole
from search.study.sampler import PRUNING_SAMPLERS, is_learned
from search.study.trials import Attr, asha_rungs

# The share of trials that continue after each of ASHA's rungs. Full trials always do, random trials as ASHA decides. A
# sampler that learns proposes trials like the best so far, which last longer: measured in searches with four seeds.
CONTINUING = {"full": (1, 1), "random": (1 / 3, 1 / 3), "learned": (2 / 3, 1 / 2)}
BEST = 2  # trials so far whose cost per epoch learned trials are expected to have
TRUST = 2  # full trials of a kind after which their own cost counts as much as the expected one


@dataclass(frozen=True)
class Workload:
    """What a search will run. protected: the numbers of trials that are not pruned as others are."""

    trials: int
    epochs: int
    concurrent: int
    protected: Collection[int]
    sampler: str

    @classmethod
    def of(cls, record: RunRecord, *, concurrent: int, protected: Collection[int]) -> "Workload":
        """The workload of a run."""
        return cls(record.options.trials, record.epochs, concurrent, protected, record.options.sampler)

    @property
    def prunes(self) -> bool:
        return self.sampler in PRUNING_SAMPLERS

    def kind(self, number: int) -> str:
        """full, random or learned: trials of one kind cost about the same."""
        if not self.prunes or runs_whole(number, self.protected):
            return "full"
        return "learned" if is_learned(self.sampler, number) else "random"

    def to_go(self, kind: str, done: int = 0) -> float:
        """Epochs that a trial is expected to run after `done`. Early stopping and failures are ignored."""
        expected, chance = 0.0, 1.0
        for rung, part in zip(asha_rungs(self.epochs), CONTINUING[kind], strict=False):
            if rung > done:
                expected, chance, done = expected + chance * (rung - done), chance * part, rung
        return expected + chance * (self.epochs - done)


def seconds_left(workload: Workload, trials: Sequence[FrozenTrial], spent: Mapping[int, float]) -> float:
    """Seconds until all trials have ended; infinite before the first epoch has ended.

    trials: those that have started. spent: seconds that running trials have trained, by number.
    """
    seconds = {t.number: t.user_attrs.get(Attr.SECONDS, spent.get(t.number, 0.0)) for t in trials}
    known = {t.number: t for t in trials if t.intermediate_values and seconds[t.number]}
    if not known:
        return math.inf
    best = sorted(known.values(), key=lambda t: -max(t.intermediate_values.values()))[:BEST]

    def cost(some: Collection[FrozenTrial]) -> tuple[float, int]:
        """Seconds and epochs."""
        return sum(seconds[t.number] for t in some), sum(len(t.intermediate_values) for t in some)

    @functools.cache
    def price(kind: str) -> float:
        """Seconds per epoch."""
        expected = cost(best if kind == "learned" else known.values())
        own = cost([t for t in known.values() if kind_of(t) == kind])
        weight = TRUST * workload.epochs
        return (weight * expected[0] / expected[1] + own[0]) / (weight + own[1])

    def kind_of(trial: FrozenTrial) -> str:
        return workload.kind(trial.number)

    running = [
        workload.to_go(kind_of(t), len(t.intermediate_values))
        * (seconds[t.number] / len(t.intermediate_values) if t.number in known else price(kind_of(t)))
        for t in trials
        if not t.state.is_finished()
    ]
    begun = {t.number for t in trials}
    numbers = (number for number in itertools.count() if number not in begun)
    waiting = Counter(map(workload.kind, itertools.islice(numbers, max(0, workload.trials - len(begun)))))
    seconds_waiting = sum(count * workload.to_go(kind) * price(kind) for kind, count in waiting.items())
    return max((sum(running) + seconds_waiting) / workload.concurrent, *running, 0.0)


def expected_epochs(workload: Workload) -> float:
    """Epochs that all trials are expected to run."""
    return sum(workload.to_go(workload.kind(number)) for number in range(workload.trials))
