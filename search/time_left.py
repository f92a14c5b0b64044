"""How long a search will still take, by what its trials have cost so far."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search import study as studies

# The part of trials that go on at each of ASHA's rungs. Those that run whole always do, random ones as ASHA has it; a
# sampler that learns proposes trials like the best so far, which last longer among random ones, then among their like.
GOING_ON = {"whole": (1, 1), "random": (1 / 3, 1 / 3), "learned": (2 / 3, 1 / 2)}
BEST = 2  # trials so far whose price learned ones are expected to have: dear, if dear ones are good


@dataclass(frozen=True)
class Plan:
    """What a search will do. whole: numbers of trials that are never pruned; startup: of random ones at first."""

    trials: int
    epochs: int
    concurrent: int
    whole: Collection[int]
    startup: int
    prunes: bool = True

    def kind(self, number: int) -> str:
        """whole, random or learned: trials that cost alike."""
        if number in self.whole or not self.prunes:
            return "whole"
        return "random" if number < self.startup else "learned"

    def to_go(self, number: int, done: int = 0) -> float:
        """Epochs that a trial has still to go, as a rule, after `done` of them."""
        expected, chance = 0.0, 1.0
        for rung, part in zip(studies.rungs(self.epochs), GOING_ON[self.kind(number)], strict=False):
            if rung > done:
                expected, chance, done = expected + chance * (rung - done), chance * part, rung
        return expected + chance * (self.epochs - done)


def seconds_left(plan: Plan, trials: Sequence[FrozenTrial], spent: Mapping[int, float]) -> float:
    """Seconds until all trials have ended; infinite before an epoch has.

    trials: those begun; spent: by number, the seconds that running ones have trained.
    """
    seconds = {t.number: t.user_attrs.get(studies.SECONDS, spent.get(t.number, 0.0)) for t in trials}
    known = [t for t in trials if t.intermediate_values and seconds[t.number]]
    if not known:
        return math.inf
    best = sorted(known, key=lambda t: -max(t.intermediate_values.values()))[:BEST]

    def price(kind: str) -> float:
        """Seconds an epoch: what is expected counts as much as two whole trials do."""
        own = [t for t in known if plan.kind(t.number) == kind]
        expected = _price(best if kind == "learned" else known, seconds)
        weight = 2 * plan.epochs
        return (weight * expected + sum(seconds[t.number] for t in own)) / (weight + _epochs(own))

    prices = {kind: price(kind) for kind in GOING_ON}
    running = [
        plan.to_go(t.number, len(t.intermediate_values))
        * (seconds[t.number] / len(t.intermediate_values) if t in known else prices[plan.kind(t.number)])
        for t in trials
        if not t.state.is_finished()
    ]
    begun = {t.number for t in trials}
    waiting = sum(plan.to_go(n) * prices[plan.kind(n)] for n in range(plan.trials) if n not in begun)
    return max((sum(running) + waiting) / plan.concurrent, *running, 0.0)


def expected_epochs(plan: Plan) -> float:
    """Epochs that all trials will run, as a rule."""
    return sum(plan.to_go(number) for number in range(plan.trials))


def _price(trials: Sequence[FrozenTrial], seconds: Mapping[int, float]) -> float:
    return sum(seconds[t.number] for t in trials) / _epochs(trials)


def _epochs(trials: Sequence[FrozenTrial]) -> int:
    return sum(len(t.intermediate_values) for t in trials)
