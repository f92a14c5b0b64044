"""The Optuna study of a run, in its journal."""

import json
import os
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def open_study(path: Path, sampler: BaseSampler) -> optuna.Study:
    """The study in the journal at `path`, created if there is none. The caller must have locked the run.

    Repairs what a killed driver may have left: Optuna's lock file, and an incomplete last line.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.exists():
        _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(
        study_name="search", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )


def read_study(path: Path) -> optuna.Study:
    """The study of a run that may be running. Raises `ValueError` if there is none."""
    if not path.exists():
        raise ValueError(f"{path.parent} has no {path.name}: start the run again")
    return optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(path))))


def _cut_torn_line(path: Path) -> None:
    with open(path, "r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
        try:
            json.loads(content[start:end] or b"null")
        except ValueError:
            end = start
        if end < len(content):
            file.truncate(end)
            file.flush()
            os.fsync(file.fileno())
