"""The display of a running search: one live block on a terminal, plain lines elsewhere."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from search.study.time_left import Workload, seconds_left
from search.study.trials import Attr, describe_trial, rank_trials, started_trials, state_name
from search.text import clock, duration

PLAIN_SECONDS = 30.0  # between two plain lines
FIRST_SECONDS = 5.0  # the same before the first epoch has ended, when people wonder whether anything happens
RATE_SECONDS = 60.0  # over which epochs per second are averaged


class Progress:
    """Shows a study as it grows. Use it as a context manager, and call `tick` often."""

    def __init__(
        self,
        study: optuna.Study,
        *,
        head: str,
        workload: Workload,
        spent: Mapping[int, float],
        metric: str,
        deadline: float,
        quiet: bool = False,
        trouble: Callable[[], str | None] = lambda: None,
    ):
        self.study, self.head, self.metric, self.trouble = study, head, metric, trouble
        self.workload, self.spent = workload, spent
        self.deadline = deadline  # of time.monotonic
        self.console = Console(quiet=quiet, highlight=False)
        self.drawn: list[str] = []
        self.shown = 0.0
        self.stops = False
        self.took = 0.0  # seconds of showing it, which grow with the study
        self.trained_since: float | None = None  # of time.monotonic
        self.epochs: deque[tuple[float, int]] = deque()  # time, and number of epochs then
        self.epoch_ended = time.monotonic()  # when the last one was seen to end

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.console.show_cursor(False)
        else:
            self.console.print(self.head, soft_wrap=True)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.tick(force=True)
        if self.console.is_terminal:
            self.console.line()
            self.console.show_cursor(True)

    def tick(self, force: bool = False) -> None:
        """Show the study again if it is time to, or at once."""
        now = time.monotonic()
        pause = PLAIN_SECONDS if self.epochs and self.epochs[-1][1] else FIRST_SECONDS
        if self.console.is_terminal:
            pause = max(0.5, 20 * self.took)
        if not force and now - self.shown < pause:
            return
        self.shown = now
        if self.console.is_terminal:
            self._redraw([self.head, *self._lines()])
        else:
            self.console.print(" | ".join(self._lines()), soft_wrap=True)
        self.took = time.monotonic() - now

    def training_starts(self) -> None:
        """Note that a worker is ready and begins an epoch."""
        if self.trained_since is None:
            self.trained_since = time.monotonic()
            self.tick(force=True)

    def stopping(self, command: str) -> None:
        """Tell once, and at once, what continues the search: who stops it may kill it before it has ended."""
        if self.stops:
            return
        self.stops = True
        if self.console.is_terminal and self.drawn:
            self.console.line()  # leave the block and draw a new one below
            self.drawn = []
        self.console.print(f"stopping; continue with: {command}", soft_wrap=True)

    def _redraw(self, lines: list[str]) -> None:
        """Draw the block over the last one, which a narrower terminal has wrapped: `rich.live.Live` does not know."""
        width = self.console.width
        if self.drawn:
            rows = sum(math.ceil(max(len(line), 1) / width) for line in self.drawn)
            erase = (ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)
            self.console.control(
                Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *(erase * (rows - 1)))
            )
        self.drawn = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
        self.console.print(Text("\n".join(self.drawn), no_wrap=True), end="")

    def _lines(self) -> list[str]:
        trials = started_trials(self.study)
        count = Counter(map(state_name, trials))
        done = count["complete"] + count["pruned"] + count["failed"]
        state = (
            f"trials {done}/{self.workload.trials} done ({count['complete']} complete, {count['pruned']} pruned,"
            f" {count['failed']} failed), {count['running']} running"
        )
        if lost := sum(t.user_attrs.get(Attr.LOST, 0) for t in trials):
            state += f", {lost} workers lost"
        best = next(iter(rank_trials(trials)), None)
        return [
            f"{state} | {self._speed(trials)}",
            f"best {self.metric} " + ("-" if best is None else describe_trial(best)),
            *([] if (trouble := self.trouble()) is None else [f"trying again: {trouble}"]),
        ]

    def _speed(self, trials: Sequence[FrozenTrial]) -> str:
        """Epochs per second and the time left; before the first epoch has ended, what the search waits for."""
        rate = self._rate(trials)
        if self.epochs[-1][1]:
            waited = time.monotonic() - self.epoch_ended
            speed = f"{rate:.2f} epochs/s" if waited < RATE_SECONDS else f"no epoch for {duration(waited)}"
            return f"{speed} | {self._left(trials)}"
        if self.trained_since is None:
            return "starting workers"
        return f"first epoch running for {duration(time.monotonic() - self.trained_since)}"

    def _rate(self, trials: Sequence[FrozenTrial]) -> float:
        """Epochs per second over the last minute."""
        epochs = sum(len(t.intermediate_values) for t in trials)
        if not self.epochs or epochs > self.epochs[-1][1]:
            self.epoch_ended = time.monotonic()
        self.epochs.append((time.monotonic(), epochs))
        while self.epochs[-1][0] - self.epochs[0][0] > RATE_SECONDS:
            self.epochs.popleft()
        (before, old), (now, new) = self.epochs[0], self.epochs[-1]
        return (new - old) / max(now - before, 1e-9)

    def _left(self, trials: Sequence[FrozenTrial]) -> str:
        """The time left, by the cost of similar trials, or until the time budget ends."""
        seconds, budget = seconds_left(self.workload, trials, self.spent), max(0.0, self.deadline - time.monotonic())
        if budget < seconds:
            return f"time budget ends in {duration(budget)}, at {clock(budget)}"
        return f"about {duration(seconds)} left, until {clock(seconds)}" if seconds < math.inf else "time left unknown"
