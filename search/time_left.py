"""How long a search will still take, by what its trials have cost so far."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search import study as studies

TRUST = 16  # trials of a kind after which what they cost counts as much as what was expected of them
BEST = 2  # trials so far whose price trials to come are expected to have
# Random trials leave as ASHA has it: 1/9 of the epochs for all, 2/9 more for a third, 6/9 more for a ninth.
RANDOM_SHARE = 0.26
# A sampler that learns proposes trials like the best so far: dear ones, if dear ones are good. At first most of them
# stay to the end, better than the random ones that they are ranked with; later they are ranked with their like.
LEARNED_SHARE, FADING = 0.6, 17  # more than random ones, and trials after which a third of that is left
PROMOTED = {"random": 1 / 3, "learned": 1 / 2}  # of those past the first rung, that pass the second


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

    def share(self, number: int) -> float:
        """Of its epochs that a trial runs, as a rule."""
        match self.kind(number):
            case "whole":
                return 1.0
            case "random":
                return RANDOM_SHARE
        return RANDOM_SHARE + LEARNED_SHARE * math.exp((self.startup - number) / FADING)


def seconds_left(plan: Plan, trials: Sequence[FrozenTrial], spent: Mapping[int, float]) -> float:
    """Seconds until all trials have ended; infinite before an epoch has.

    trials: those begun; spent: by number, the seconds that running ones have trained.
    """
    seconds = {t.number: t.user_attrs.get(studies.SECONDS, spent.get(t.number, 0.0)) for t in trials}
    known = [t for t in trials if t.intermediate_values and seconds[t.number]]
    if not known:
        return math.inf
    best = sorted(known, key=lambda t: -max(t.intermediate_values.values()))[:BEST]
    price, longer = {}, {}  # seconds an epoch; by how much trials run longer than expected, as a factor
    for kind in ("whole", *PROMOTED):
        own = [t for t in known if plan.kind(t.number) == kind]
        expected = _price(best if kind == "learned" else known, seconds)
        weight = TRUST * RANDOM_SHARE * plan.epochs  # epochs
        price[kind] = (weight * expected + sum(seconds[t.number] for t in own)) / (weight + _epochs(own))
        ended = [t for t in own if t.state.is_finished()]
        asked = plan.epochs * sum(plan.share(t.number) for t in ended)
        longer[kind] = (weight + _epochs(ended)) / (weight + asked)

    def to_go(number: int, done: int = 0) -> float:
        """Epochs that a trial has still to go, as a rule, after `done` of them."""
        kind, rungs = plan.kind(number), studies.rungs(plan.epochs)
        if kind == "whole" or done >= max(rungs, default=0):
            return plan.epochs - done
        if done >= rungs[0]:
            return rungs[1] - done + PROMOTED[kind] * (plan.epochs - rungs[1])
        return max(min(longer[kind] * plan.share(number), 1) * plan.epochs - done, 0.0)

    running = [
        to_go(t.number, len(t.intermediate_values))
        * (seconds[t.number] / len(t.intermediate_values) if t in known else price[plan.kind(t.number)])
        for t in trials
        if not t.state.is_finished()
    ]
    begun = {t.number for t in trials}
    waiting = sum(to_go(n) * price[plan.kind(n)] for n in range(plan.trials) if n not in begun)
    return max((sum(running) + waiting) / plan.concurrent, *running, 0.0)


def expected_epochs(plan: Plan) -> float:
    """Epochs that all trials will run, as a rule."""
    return plan.epochs * sum(plan.share(number) for number in range(plan.trials))


def _price(trials: Sequence[FrozenTrial], seconds: Mapping[int, float]) -> float:
    return sum(seconds[t.number] for t in trials) / _epochs(trials)


def _epochs(trials: Sequence[FrozenTrial]) -> int:
    return sum(len(t.intermediate_values) for t in trials)
