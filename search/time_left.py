"""How long a search will still take, by what its trials have cost so far."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search import study as studies

TRUST = 8  # trials of a kind after which what they cost counts as much as what was expected of them
BEST = 2  # trials so far whose price trials to come are expected to have


@dataclass(frozen=True)
class Kind:
    """Trials that cost alike. share: of their epochs that they run, as a rule; promoted: of those past the first rung
    that go past the second."""

    share: float
    promoted: float


# Random trials leave as ASHA has it: 1/9 of the epochs for all, 2/9 more for a third, 6/9 more for a ninth. A sampler
# that learns proposes trials that stay longer, and like the best so far: dear ones, if dear ones are good.
WHOLE, RANDOM, LEARNED = Kind(1.0, 1.0), Kind(0.26, 1 / 3), Kind(0.5, 0.5)


@dataclass(frozen=True)
class Plan:
    """What a search will do. whole: numbers of trials that are never pruned; startup: of random ones at first."""

    trials: int
    epochs: int
    concurrent: int
    whole: Collection[int]
    startup: int
    prunes: bool = True

    def kind(self, number: int) -> Kind:
        if number in self.whole or not self.prunes:
            return WHOLE
        return RANDOM if number < self.startup else LEARNED


def seconds_left(plan: Plan, trials: Sequence[FrozenTrial], spent: Mapping[int, float]) -> float:
    """Seconds until all trials have ended; infinite before an epoch has.

    trials: those begun; spent: by number, the seconds that running ones have trained.
    """
    seconds = {t.number: t.user_attrs.get(studies.SECONDS, spent.get(t.number, 0.0)) for t in trials}
    known = [t for t in trials if t.intermediate_values and seconds[t.number]]
    if not known:
        return math.inf
    best = sorted(known, key=lambda t: -max(t.intermediate_values.values()))[:BEST]
    price, share = {}, {}  # of an epoch; of the epochs
    for kind in (WHOLE, RANDOM, LEARNED):
        own = [t for t in known if plan.kind(t.number) is kind]
        expected = _price(best if kind is LEARNED else known, seconds)
        weight = TRUST * kind.share * plan.epochs  # epochs
        price[kind] = (weight * expected + sum(seconds[t.number] for t in own)) / (weight + _epochs(own))
        ended = [t for t in own if t.state.is_finished()]
        share[kind] = (TRUST * kind.share + _epochs(ended) / plan.epochs) / (TRUST + len(ended))

    running = [
        _more_epochs(plan, plan.kind(t.number), len(t.intermediate_values), share)
        * (seconds[t.number] / len(t.intermediate_values) if t in known else price[plan.kind(t.number)])
        for t in trials
        if not t.state.is_finished()
    ]
    begun = {t.number for t in trials}
    to_come = [plan.kind(number) for number in range(plan.trials) if number not in begun]
    waiting = sum(share[kind] * plan.epochs * price[kind] for kind in to_come)
    return max((sum(running) + waiting) / plan.concurrent, *running, 0.0)


def expected_epochs(plan: Plan) -> float:
    """Epochs that all trials will run, as a rule."""
    return plan.epochs * sum(plan.kind(number).share for number in range(plan.trials))


def _more_epochs(plan: Plan, kind: Kind, done: int, share: Mapping[Kind, float]) -> float:
    """Epochs that a running trial has still to go, as a rule, after `done` of them."""
    first, second = (math.ceil(max(1, plan.epochs / part)) for part in (9, 3))
    if kind is WHOLE or done >= second:
        return plan.epochs - done
    if done >= first:
        return second - done + kind.promoted * (plan.epochs - second)
    return max(share[kind] * plan.epochs - done, 0.0)


def _price(trials: Sequence[FrozenTrial], seconds: Mapping[int, float]) -> float:
    return sum(seconds[t.number] for t in trials) / _epochs(trials)


def _epochs(trials: Sequence[FrozenTrial]) -> int:
    return sum(len(t.intermediate_values) for t in trials)
