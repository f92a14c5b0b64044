"""What run.json records of a run. Light, so that a command can check its arguments before torch and Optuna load."""

import json
from pathlib import Path
from typing import Any


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. Raises `ValueError` for anything that is not one."""
    if not folder.is_dir():
        raise ValueError(f"no run folder {folder}: give the path that the search printed, such as runs/classify-…")
    try:
        facts = json.loads((folder / "run.json").read_text())
        if not isinstance(facts, dict) or "task" not in facts or "arguments" not in facts:
            raise ValueError
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no run.json: it is not a run, or one that never started; start a new one"
        ) from None
    except (ValueError, OSError):
        raise ValueError(f"{folder}/run.json is not the description of a run: start a new one") from None
    return facts
