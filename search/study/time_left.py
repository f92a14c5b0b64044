"""How long a search will still take, by what its trials have cost so far."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from search.study.sampler import PRUNING_SAMPLERS, is_learned
from search.study.trials import Attr, asha_rungs

# The part of trials that go on at each of ASHA's rungs. Those that run whole always do, random ones as ASHA has it; a
# sampler that learns proposes trials like the best so far, which last longer: about so in searches with four seeds.
GOING_ON = {"whole": (1, 1), "random": (1 / 3, 1 / 3), "learned": (2 / 3, 1 / 2)}
BEST = 2  # trials so far whose price learned ones are expected to have: dear, if dear ones are good
TRUST = 2  # whole trials of a kind after which what they cost counts as much as what was expected of them


@dataclass(frozen=True)
class Plan:
    """What a search will do. whole: the numbers of trials that are never pruned."""

    trials: int
    epochs: int
    concurrent: int
    whole: Collection[int]
    sampler: str

    @classmethod
    def of(cls, arguments: Mapping[str, Any], *, concurrent: int, whole: Collection[int]) -> "Plan":
        """Of a search with these arguments, as run.json has them."""
        return cls(arguments["trials"], arguments["epochs"], concurrent, whole, arguments["sampler"])

    @property
    def prunes(self) -> bool:
        return self.sampler in PRUNING_SAMPLERS

    def kind(self, number: int) -> str:
        """whole, random or learned: trials that cost alike."""
        if number in self.whole or not self.prunes:
            return "whole"
        return "learned" if is_learned(self.sampler, number) else "random"

    def to_go(self, kind: str, done: int = 0) -> float:
        """Epochs that a trial still runs after `done`, as a rule; that it stops early or fails is not foreseen."""
        expected, chance = 0.0, 1.0
        for rung, part in zip(asha_rungs(self.epochs), GOING_ON[kind], strict=False):
            if rung > done:
                expected, chance, done = expected + chance * (rung - done), chance * part, rung
        return expected + chance * (self.epochs - done)


def seconds_left(plan: Plan, trials: Sequence[FrozenTrial], spent: Mapping[int, float]) -> float:
    """Seconds until all trials have ended; infinite before an epoch has.

    trials: those begun; spent: by number, the seconds that running ones have trained.
    """
    seconds = {t.number: t.user_attrs.get(Attr.SECONDS, spent.get(t.number, 0.0)) for t in trials}
    known = [t for t in trials if t.intermediate_values and seconds[t.number]]
    if not known:
        return math.inf
    best = sorted(known, key=lambda t: -max(t.intermediate_values.values()))[:BEST]

    def cost(some: Sequence[FrozenTrial]) -> tuple[float, int]:
        """Seconds and epochs."""
        return sum(seconds[t.number] for t in some), sum(len(t.intermediate_values) for t in some)

    def price(kind: str) -> float:
        """Seconds an epoch."""
        expected, own = cost(best if kind == "learned" else known), cost([t for t in known if kind_of(t) == kind])
        weight = TRUST * plan.epochs
        return (weight * expected[0] / expected[1] + own[0]) / (weight + own[1])

    def kind_of(trial: FrozenTrial) -> str:
        return plan.kind(trial.number)

    running = [
        plan.to_go(kind_of(t), len(t.intermediate_values))
        * (seconds[t.number] / len(t.intermediate_values) if t in known else price(kind_of(t)))
        for t in trials
        if not t.state.is_finished()
    ]
    begun = {t.number for t in trials}
    numbers = (number for number in itertools.count() if number not in begun)
    waiting = Counter(map(plan.kind, itertools.islice(numbers, max(0, plan.trials - len(begun)))))
    seconds_waiting = sum(count * plan.to_go(kind) * price(kind) for kind, count in waiting.items())
    return max((sum(running) + seconds_waiting) / plan.concurrent, *running, 0.0)


def expected_epochs(plan: Plan) -> float:
    """Epochs that all trials will run, as a rule."""
    return sum(plan.to_go(plan.kind(number)) for number in range(plan.trials))
