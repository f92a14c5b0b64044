"""What a user or a program gives for options, checked."""

import argparse
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from search.command_line import flag, options_of, seconds
from search.options import TASK_NAMES, task_options

Options = TypeVar("Options")


def make_options(cls: type[Options], given: Mapping[str, Any]) -> Options:
    """Options from what was typed, or from JSON. Raises `TypeError` for unknown names."""
    return cls(**as_tuples(given))


def as_tuples(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was given, with tuples instead of lists, which options must not be."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def check_task(task: str, given: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an unknown task, or an option that does not apply to it."""
    if task not in TASK_NAMES:
        raise ValueError(f"the task must be one of {', '.join(TASK_NAMES)}, but got {task!r}")
    known = options_of(task_options(task))
    for name in given.keys() - known.keys():
        others = [other for other in TASK_NAMES if name in options_of(task_options(other))]
        if others:
            raise ValueError(f"{flag(name)} applies to {' and '.join(others)} only: leave it out")


def checked(cls: type, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options that a program gives, with the values that the command line would make of them.

    Numbers and texts are checked alike; paths, lists and, for --set, dictionaries are accepted. Raises `ValueError` for
    an unknown name or a wrong value.
    """
    known, values = options_of(cls), dict(given)
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"there is no option {name!r}: use one of {', '.join(known)}")
        how = known[name]
        if how.choices and value not in how.choices:
            raise ValueError(f"{flag(name)} must be one of {', '.join(how.choices)}, but got {value!r}")
        if isinstance(value, os.PathLike):
            values[name] = os.fspath(value)
        if how.many and isinstance(value, Mapping):
            values[name] = tuple(f"{key}={setting}" for key, setting in value.items())
        if how.many or how.parse is str or value is None or isinstance(value, bool):
            continue
        text = f"{value}s" if how.parse is seconds and not isinstance(value, str) else str(value)
        try:
            values[name] = how.parse(text)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{flag(name)} {error}") from None
    return as_tuples(values)
