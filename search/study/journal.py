"""The Optuna study of a run, in its journal."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.text import first_line, shell_path

NAME = "search"  # of the study
RUN = "run"  # the study's attribute that names its run
RECORD = "record"  # the study's attribute with run.json, as it was when the run was last started


def open_study(path: Path, sampler: BaseSampler, run: str = "") -> optuna.Study:
    """The study in the journal at `path`, created if there is none. The caller must have locked the run.

    run: the id of the run that it must belong to, unless that is empty. Repairs what a killed driver may have left:
    Optuna's lock file, and an incomplete last line. Raises `ValueError` for a damaged or foreign journal.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.exists():
        _cut_torn_line(path)
    study = _loaded(
        path,
        lambda storage: optuna.create_study(
            study_name=NAME, storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
        ),
    )
    if not study.trials and RUN not in study.user_attrs:
        study.set_user_attr(RUN, run)
    return _of_run(study, path, run)


def read_study(path: Path, run: str = "") -> optuna.Study:
    """The study of a run that may be running, see `open_study`. Raises `ValueError` if there is none."""
    if not path.exists():
        raise ValueError(f"{path.parent} has no {path.name}: start the run again")
    return _of_run(_loaded(path, lambda storage: optuna.load_study(study_name=NAME, storage=storage)), path, run)


def sync(path: Path) -> None:
    """Wait until the disk has all that the journal contains."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


class _Backend(JournalFileBackend):
    """Appends without Optuna's lock and fsync for each line: a run's lock admits one writer, which calls `sync`."""

    def append_logs(self, logs: list[Any]) -> None:
        lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
        with open(self._file_path, "ab") as file:
            file.write(lines.encode())


def _loaded(path: Path, load: Callable[[JournalStorage], optuna.Study]) -> optuna.Study:
    try:
        return load(JournalStorage(_Backend(str(path))))
    except OSError:
        raise
    except KeyError as error:
        if "does not exist" not in str(error):
            raise ValueError(f"{path} is not what Optuna has written ({first_line(error)}): put it back") from None
        raise ValueError(f"{path} has no study of a search: put this run's own back") from None
    except Exception as error:  # of many types, from a line that is not what Optuna wrote
        if (line := damaged_line(path)) is None:
            raise ValueError(f"{path} is not what Optuna has written ({first_line(error)}): put it back") from None
        command = f"python -m search.check {shell_path(path.parent)} --repair"
        raise ValueError(f"{path} is damaged in line {line}: keep what is whole with: {command}") from None


def _of_run(study: optuna.Study, path: Path, run: str) -> optuna.Study:
    found = study.user_attrs.get(RUN, "")
    if run and found != run:
        raise ValueError(f"{path} belongs to another run: put this run's own back")
    return study


def damaged_line(path: Path) -> int | None:
    """The number of the first line that is not JSON, from 1, except for an incomplete last one."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)
            except ValueError:
                return number if line.endswith(b"\n") else None
    return None


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
