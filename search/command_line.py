"""How command lines are parsed, and how commands end. Light, so that --help answers at once.

The options of a command are the fields of a frozen dataclass, each declared with `option`. The parser, the defaults and
the "(default: …)" of the help text are derived from it.
"""

import argparse
import dataclasses
import io
import math
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

GROUPS = ("data", "search", "model")  # first in the help text


@dataclass(frozen=True)
class Option:
    """How an option is typed on the command line."""

    help: str
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    choices: Sequence[str] | None = None
    group: str = "options"
    shown: str | None = None  # the default as the help text shows it, if not as it is
    many: bool = False  # takes one or more values
    positional: bool = False
    required: bool = False  # of a positional option
    resumable: bool = False  # may change when a run is continued
    per_call: bool = False  # belongs to one call, not to the search


def option(default: Any, help: str, **how: Any) -> Any:
    """A dataclass field that is an option, see `Option`."""
    return field(default=default, metadata={"option": Option(help, **how)})


def integer(minimum: int) -> Callable[[str], int]:
    """An option type: an integer of at least `minimum`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {minimum}, but got {text!r}")
        return int(text)

    return parse


def gpu_share(text: str) -> float:
    """An option type: from 0 to 1."""
    share = _number(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, because a trial uses one GPU, but got {text!r}")
    return share


def fraction(text: str) -> float:
    """An option type: a number between 0 and 1, both excluded."""
    if not 0 < _number(text) < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1, but got {text!r}")
    return float(text)


def scale(text: str) -> float:
    """An option type: a factor of the image size."""
    if not 0.1 <= _number(text) <= 4:
        raise argparse.ArgumentTypeError(f"must lie between 0.1 and 4, but got {text!r}")
    return float(text)


def seconds(text: str) -> float:
    """An option type: a duration such as 90s, 45m, 2h or 1h30m, in seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    parts = match.groups() if match else ()
    total = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not total:
        raise argparse.ArgumentTypeError(f"must be a duration such as 90s, 45m, 2h or 1h30m, but got {text!r}")
    return total


def tracker(text: str) -> str:
    """An option type: where trials are logged, wandb:PROJECT or mlflow:URI."""
    if not re.fullmatch(r"(wandb|mlflow):.+", text):
        raise argparse.ArgumentTypeError(f"must be wandb:PROJECT or mlflow:URI, but got {text!r}")
    if re.search(r"://[^/]*@", text):
        raise argparse.ArgumentTypeError(
            "must not contain a password, which would be stored: set MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD"
        )
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def options_of(cls: type) -> dict[str, Option]:
    """The options of a dataclass, by field name, in the order of the help text."""
    found = {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}
    return dict(sorted(found.items(), key=lambda item: _rank(item[1].group)))


def _rank(group: str) -> int:
    return GROUPS.index(group) if group in GROUPS else len(GROUPS)


def flag(name: str) -> str:
    """The command-line flag of an option."""
    return f"--{name.replace('_', '-')}"


class Parser(argparse.ArgumentParser):
    """Prints a mistake on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def make_parser(
    prog: str, description: str, examples: str, *classes: type, titles: Mapping[str, str] = MappingProxyType({})
) -> Parser:
    """A parser for the options of these dataclasses, by group. It leaves out what was not typed.

    titles: of groups whose title is not their name.
    """
    parser = Parser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [how.group for cls in classes for how in options_of(cls).values()]
    order = sorted(dict.fromkeys(names), key=_rank)
    groups: dict[str, Any] = {
        name: parser.add_argument_group(titles.get(name, name)) for name in order if name != "options"
    }
    groups["options"] = parser
    added: set[str] = set()
    for cls in classes:
        defaults = {f.name: f.default for f in dataclasses.fields(cls)}
        for name, how in options_of(cls).items():
            if name in added:
                continue
            added.add(name)
            _add(groups[how.group], name, how, defaults[name])
    return parser


def _add(group: Any, name: str, how: Option, default: Any) -> None:
    if default is False:
        group.add_argument(flag(name), action="store_true", help=how.help)
        return
    text = how.help if how.positional else f"{how.help} (default: {how.shown or default})"
    kind: dict[str, Any] = {"help": text, "type": how.parse, "metavar": how.metavar}
    if how.choices:
        kind |= {"choices": how.choices}
    if how.many:
        kind |= {"nargs": "+"} if how.positional else {"nargs": "+", "action": "extend"}
    elif how.positional and not how.required:
        kind |= {"nargs": "?"}
    group.add_argument(name if how.positional else flag(name), **kind)


def run_command(main: Callable[[], int]) -> int:
    """The exit status of a command. Ctrl-C ends it without a traceback; a reader of its output that leaves does not."""
    outlive_readers()
    try:
        return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


class _Output(io.FileIO):
    """A file descriptor that drops what it cannot write: its reader has left, or its disk is full."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def outlive_readers() -> None:
    """Replace sys.stdout and sys.stderr by line-buffered streams whose writes always succeed.

    A search must not end because of `| head -1` or a closed terminal.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        raw = _Output(stream.fileno(), "w", closefd=False)
        options = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": True}
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), **options))
