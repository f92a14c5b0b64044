"""What is written every few seconds while a search goes on."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from search.session.session import Session

UPKEEP_SECONDS = 5.0  # that trials.csv and the run's seconds lag behind


class Stopwatch:
    """The seconds that a run has taken, including its earlier parts, and those that its time budget leaves."""

    def __init__(self, session: Session):
        self.session, self.before, self.started = session, session.record.seconds, time.monotonic()
        self.deadline = self.started + (session.options.time_budget or math.inf) - self.before  # monotonic

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def seconds(self) -> float:
        """Those so far."""
        return round(self.before + time.monotonic() - self.started, 1)

    def save(self) -> None:
        """Write run.json with the seconds so far."""
        replace(self.session.record, seconds=self.seconds).write(self.session.paths)


class Upkeep:
    """Writes what follows from the study a few seconds after it has changed, in at most a twentieth of the time."""

    def __init__(self, *writes: Callable[[], object]):
        self.writes, self.stale, self.due = writes, False, -math.inf  # of time.monotonic

    def tick(self) -> None:
        """Write if it is time to. Call it often."""
        started = time.monotonic()
        if self.stale and started >= self.due:
            self.stale = False
            for write in self.writes:
                write()
            ended = time.monotonic()
            self.due = ended + max(UPKEEP_SECONDS, 20 * (ended - started))
