"""What a person sees while a search runs: one live block on a terminal, plain lines elsewhere."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.live import Live
from rich.text import Text

from search.study.time_left import Plan, seconds_left
from search.study.trials import best_epoch, rank_trials, started_trials, state_name, trial_score

PLAIN_SECONDS = 30.0  # between two plain lines
FIRST_SECONDS = 5.0  # the same before the first epoch has ended, when people wonder whether anything happens
RATE_SECONDS = 60.0  # over which epochs/s are counted


class Progress:
    """Shows a study as it grows. Use as a context, and call `tick` often."""

    def __init__(
        self,
        study: optuna.Study,
        *,
        head: str,
        plan: Plan,
        spent: Mapping[int, float],
        metric: str,
        deadline: float,
        quiet: bool = False,
    ):
        self.study, self.head, self.metric = study, head, metric
        self.plan, self.spent = plan, spent
        self.deadline = deadline  # of time.monotonic
        self.console = Console(quiet=quiet, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=False)
        self.drawn: list[str] = []
        self.shown = 0.0
        self.trained_since: float | None = None  # of time.monotonic
        self.epochs: deque[tuple[float, int]] = deque()  # when how many were there

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        else:
            self.console.print(self.head, soft_wrap=True)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.tick(force=True)
        if self.console.is_terminal:
            self.live.stop()

    def tick(self, force: bool = False) -> None:
        """Show the study again if it is time to, or at once."""
        now = time.monotonic()
        pause = PLAIN_SECONDS if self.epochs and self.epochs[-1][1] else FIRST_SECONDS
        if not force and now - self.shown < (0.5 if self.console.is_terminal else pause):
            return
        self.shown = now
        if self.console.is_terminal:
            self._redraw([self.head, *self._lines()])
        else:
            self.console.print(" | ".join(self._lines()), soft_wrap=True)

    def training_starts(self) -> None:
        """A worker is ready and begins an epoch."""
        if self.trained_since is None:
            self.trained_since = time.monotonic()
            self.tick(force=True)

    def _redraw(self, lines: list[str]) -> None:
        """The block again, in its own place, also where the terminal has become narrower and has wrapped it."""
        width = self.console.width
        if self.drawn:
            rows = sum(math.ceil(max(len(line), 1) / width) for line in self.drawn)
            self.live._live_render._shape = (width, rows)  # rich would go up by as many rows as it had drawn
        self.drawn = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
        self.live.update(Text("\n".join(self.drawn), no_wrap=True), refresh=True)

    def _lines(self) -> list[str]:
        trials = started_trials(self.study)
        count = Counter(map(state_name, trials))
        done = count["complete"] + count["pruned"] + count["failed"]
        state = (
            f"trials {done}/{self.plan.trials} done ({count['complete']} complete, {count['pruned']} pruned,"
            f" {count['failed']} failed), {count['running']} running"
        )
        best = next(iter(rank_trials(trials)), None)
        return [
            f"{state} | {self._speed(trials)}",
            f"best {self.metric} " + ("-" if best is None else describe(best)),
        ]

    def _speed(self, trials: Sequence[FrozenTrial]) -> str:
        """Epochs per second and the time left; before the first epoch has ended, what everything waits for."""
        rate = self._rate(trials)
        if self.epochs[-1][1]:
            return f"{rate:.2f} epochs/s | {self._left(trials)}"
        if self.trained_since is None:
            return "starting workers"
        return f"first epoch running for {duration(time.monotonic() - self.trained_since)}"

    def _rate(self, trials: Sequence[FrozenTrial]) -> float:
        """Epochs a second, over the last minute."""
        self.epochs.append((time.monotonic(), sum(len(t.intermediate_values) for t in trials)))
        while self.epochs[-1][0] - self.epochs[0][0] > RATE_SECONDS:
            self.epochs.popleft()
        (before, old), (now, new) = self.epochs[0], self.epochs[-1]
        return (new - old) / max(now - before, 1e-9)

    def _left(self, trials: Sequence[FrozenTrial]) -> str:
        """The time left, by what trials like those to come have cost, or until the time budget ends."""
        seconds, budget = seconds_left(self.plan, trials, self.spent), max(0.0, self.deadline - time.monotonic())
        if budget < seconds:
            return f"time budget ends in {duration(budget)}, at {clock(budget)}"
        return f"about {duration(seconds)} left, until {clock(seconds)}" if seconds < math.inf else "time left unknown"


def say(text: str) -> None:
    """Print a line at once, even through a pipe."""
    print(text, flush=True)


def reading(announce: Callable[[str], None]) -> Callable[[int, int], None]:
    """A `progress` for `voctrain.data.load`: announces the number of images, and now and then how many are read."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if done == 0:
            announce(f"reading {total} images")
        elif time.monotonic() - said < FIRST_SECONDS:
            return
        else:
            announce(f"{done} of {total} images read")
        said = time.monotonic()

    return progress


def describe(trial: FrozenTrial) -> str:
    """Score, trial and parameters in one line."""
    params = " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items())
    return f"{trial_score(trial):.4f} (trial {trial.number}, epoch {best_epoch(trial)}): {params}"


def clock(seconds: float, now: datetime | None = None) -> str:
    """The time of day in so many seconds from now, with the day where it is not today: 17:05 or Sat 28 Nov 03:10."""
    now = now or datetime.now()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%a %d %b %H:%M}"


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
