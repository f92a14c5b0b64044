"""Where the lines of a command go. Nothing else in `search` prints."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 5.0  # between two lines about the images read so far


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
