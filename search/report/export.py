"""The best configuration of a run, for use elsewhere."""

import json
from pathlib import Path

import yaml

from search.report.script import training_script
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_best, read_run

FORMATS = {
    "yaml": lambda config: yaml.safe_dump(config, sort_keys=False).rstrip(),
    "json": lambda config: json.dumps(config, indent=2),
}


def best_configuration(run: Path, form: str) -> str:
    """The configuration in best.json as text; with form "py", a script that trains it.

    Raises `ValueError` if there is none.
    """
    record = read_run(run)
    best = read_best(RunPaths(run))
    if best is None:
        raise ValueError(f"{run} has no best.json: no trial has scored yet")
    if form == "py":
        return training_script(run, record, best)
    return FORMATS[form](best.config)
