"""What the user gives beside the options: --set key=value and --space FILE.py."""

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from search.run_folder.records import Configuration
from search.tasks import Task


def parse_settings(settings: Iterable[str]) -> Configuration:
    """`key=value` strings as a dict; values are Python literals if they read as such, otherwise text."""
    parsed: Configuration = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ValueError(f"--set takes key=value, but got {setting!r}")
        try:
            parsed[key] = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def load_space(path: str | None, task: Task) -> ModuleType:
    """The task's own space, or that of a file. Raises `ValueError` for a file that is not one."""
    if path is None:
        return task.space
    if not Path(path).is_file():
        raise ValueError(f"--space takes a Python file that defines suggest(trial, problem), but {path} is not a file")
    spec = importlib.util.spec_from_file_location("user_space", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--space takes a Python file, but {path} does not end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"the space file {path} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(getattr(module, "suggest", None)):
        example = f"spaces/{task.name}.py"
        raise ValueError(f"the space file {path} has no suggest(trial, problem): define it as in {example}")
    return module
