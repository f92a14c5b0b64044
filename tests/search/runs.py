"""Reading a run folder in tests."""

import csv
import json
from pathlib import Path

from search.run_folder.paths import RunPaths
from search.study.journal import read_study
from search.study.trials import started_trials
from voctrain.data import load


def trials_of(folder: Path):
    return started_trials(read_study(RunPaths(folder).journal))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def data_of(folder: Path):
    record = read(folder, "run")
    split = record["split"]
    return load(record["options"]["data"], image_size=32).with_split(split["train"], split["val"])
