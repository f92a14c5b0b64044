"""Where the lines of a command go. Nothing else in `search` prints."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from search.text import duration

SECONDS = 5.0  # between two lines about the images read so far


class Progress:
    """A bar on a terminal, elsewhere a line every few seconds. Call it with the number of things done."""

    def __init__(self, total: int, what: str, quiet: bool):
        self.total, self.what, self.quiet, self.on_terminal = total, what, quiet, sys.stdout.isatty()
        self.started = self.shown = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self.quiet or now - self.shown < (0.2 if self.on_terminal else SECONDS):
            return
        self.shown, rate = now, done / (now - self.started)
        text = f"{done} of {self.total} {self.what}, {rate:.1f}/s"
        if done >= self.total / 20:  # earlier it would mislead: the first batch takes longest
            text += f", {duration((self.total - done) / rate)} left"
        if self.on_terminal:
            self.clear()
            print(f"[{'█' * (30 * done // self.total):30}] {text}", end="", flush=True)
        else:
            print(text, flush=True)

    def clear(self) -> None:
        """Remove the bar, for a line of something else."""
        if self.on_terminal and not self.quiet:
            print("\r\x1b[K", end="", flush=True)

    close = clear


@dataclass(frozen=True)
class Reporter:
    """Prints to stdout and stderr, each line at once.

    quiet: print only results, warnings and errors.
    """

    quiet: bool = False

    def status(self, text: str) -> None:
        """What begins now; not printed if quiet."""
        if not self.quiet:
            print(text, flush=True)

    def result(self, text: str) -> None:
        """What the user asked for."""
        print(text, flush=True)

    def warning(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        print(f"error: {text}", file=sys.stderr, flush=True)

    def fatal(self, text: str) -> None:
        """An error after which the process ends, whatever is drawn on the terminal."""
        if sys.stdout.isatty():
            print("\n\x1b[?25h", end="", flush=True)  # a new line, and the cursor that a live display hides
        self.error(text)

    def progress(self, total: int, what: str) -> "Progress":
        """The progress of work on `total` things, shown if not quiet."""
        return Progress(total, what, self.quiet)

    def reading(self) -> Callable[[int, int], None]:
        """A `progress` for `voctrain.data.load`: the number of images, then every few seconds how many are read."""
        printed = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal printed
            if done == 0:
                self.status(f"reading {total} images")
            elif time.monotonic() - printed < SECONDS:
                return
            else:
                self.status(f"{done} of {total} images read")
            printed = time.monotonic()

        return progress
