"""The best configuration of a run, for use elsewhere."""

import json
import pprint
from pathlib import Path

import yaml

from search.run_folder.paths import RunPaths
from search.run_folder.records import read_best, read_run

FORMATS = {
    "yaml": lambda config: yaml.safe_dump(config, sort_keys=False).rstrip(),
    "json": lambda config: json.dumps(config, indent=2),
    "py": lambda config: pprint.pformat(config, sort_dicts=False),
}


def best_configuration(run: Path, form: str) -> str:
    """The configuration in best.json as text. Raises `ValueError` if there is none."""
    read_run(run)
    best = read_best(RunPaths(run))
    if best is None:
        raise ValueError(f"{run} has no best.json: no trial has scored yet")
    return FORMATS[form](best.config)
