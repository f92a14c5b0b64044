"""How numbers, durations, times and paths are written for people."""

import shlex
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def clock(seconds: float, now: datetime | None = None) -> str:
    """The local time `seconds` from now, with the date if that is not today: 17:05 or Sat 28 Nov 03:10."""
    now = now or datetime.now()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%a %d %b %H:%M}"


def size(bytes: int) -> str:
    """A size on a disk: 3 MB or 1.2 GB."""
    return f"{bytes / 1e9:.1f} GB" if bytes >= 1e9 else f"{bytes / 1e6:.0f} MB"


def readable(value: Any) -> str:
    """A number with a few digits, None as a dash, anything else as it is."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def assignments(values: Mapping[str, Any]) -> str:
    """Parameters as name=value, separated by spaces."""
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())


def with_error(mean: float, standard_error: float | None) -> str:
    """A mean over seeds with its standard error, if there is one: 0.3584 ± 0.0041."""
    return f"{mean:.4f}" + ("" if standard_error is None else f" ± {standard_error:.4f}")


def shell_path(path: Path) -> str:
    """A path relative to the working directory where possible, quoted for a shell."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def one_line(error: BaseException) -> str:
    """An error message on one line."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of an error message, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
