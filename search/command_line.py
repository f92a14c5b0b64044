"""Standard output and error that never fail: `| head -1` or a closed terminal must not end a search."""

import io
import sys


class _Output(io.FileIO):
    """A file descriptor that drops what it cannot write: nobody reads it any more, or its disk is full."""

    def write(self, content) -> int | None:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def outlive_readers() -> None:
    """Replace sys.stdout and sys.stderr by streams whose writes always succeed, and show each line at once."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        raw = _Output(stream.fileno(), "w", closefd=False)
        options = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": True}
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), **options))
