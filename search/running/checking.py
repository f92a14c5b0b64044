"""Whether the files of a run are whole, and how those that are not are made again."""

import itertools
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from search.run_folder.files import read_arrays, read_json, read_torch, replace
from search.run_folder.lock import lock
from search.run_folder.paths import RunPaths, training_name
from search.run_folder.records import RunRecord, read_best, read_run
from search.running.publishing import Publisher
from search.session.images import load_images
from search.study.journal import RECORD, damaged_line, read_study
from search.study.trials import Attr, rank_trials, started_trials
from search.tasks import find_task
from search.trial.device import pick_device
from search.trial.training import WEIGHTS, checkpointed_training


@dataclass(frozen=True)
class Damage:
    """A file that is missing or damaged."""

    fault: str
    cure: str | None  # what the repair does; None if there is none
    cured: bool

    def __str__(self) -> str:
        return f"{self.fault}: {'repaired, ' if self.cured else ''}{self.cure or 'it cannot be repaired'}"


def check_run(folder: Path, *, repair: bool) -> Iterator[Damage]:
    """Yield what is damaged in a run's folder, after its repair if that is asked for.

    Raises `ValueError` if there is no such folder or, for a repair, if another process uses it.
    """
    paths = RunPaths(folder)
    if not folder.is_dir():
        raise ValueError(f"no run folder {folder}: give the path that the search printed, such as runs/classify-…")
    held = lock(paths) if repair else None
    try:
        yield from _check(paths, repair)
    finally:
        if held is not None:
            held.release()


def _check(paths: RunPaths, repair: bool) -> Iterator[Damage]:
    """The journal first, then the record, then what follows from both; each needs those before it to be whole."""
    if damage := _check_journal(paths, repair):
        yield damage
        if not damage.cured:
            return
    try:
        study = read_study(paths.journal)
        if damage := _check_record(paths, study, repair):
            yield damage
            if not damage.cured:
                return
        record = read_run(paths.folder)
        read_study(paths.journal, record.id)
    except ValueError as error:
        yield Damage(str(error), None, False)
        return
    yield from _check_checkpoints(paths, study, repair)
    yield from _check_best(paths, record, study, repair)
    yield from _check_final(paths, repair)


def _check_journal(paths: RunPaths, repair: bool) -> Damage | None:
    line = damaged_line(paths.journal) if paths.journal.exists() else None
    if line is None:
        return None
    lines = paths.journal.read_bytes().splitlines(keepends=True)
    copy = next(
        name for n in itertools.count(1) if not (name := paths.journal.with_name(f"{paths.journal.name}.{n}")).exists()
    )
    if repair:
        shutil.copy(paths.journal, copy)
        replace(paths.journal, lambda file: file.write_bytes(b"".join(lines[: line - 1])))
        _forget_other_trials(paths)
    lost = len(lines) - line + 1
    cure = f"it ends there, the last {lost} of its lines are lost, and {copy.name} is a copy of it"
    return Damage(f"{paths.journal} is damaged in line {line}", cure, repair)


def _forget_other_trials(paths: RunPaths) -> None:
    """Delete what is left of trials that the journal no longer has, or has no end of: their numbers are used again."""
    ended = {training_name(t.number) for t in read_study(paths.journal).trials if t.state.is_finished()}
    for folder in (paths.folder / "checkpoints").glob("*"):
        if folder.name not in ended:
            shutil.rmtree(folder)
    for file in (*(paths.folder / "history").glob("*"), *(paths.folder / "logs").glob("*")):
        if file.stem not in ended:
            file.unlink()


def _check_record(paths: RunPaths, study: optuna.Study, repair: bool) -> Damage | None:
    with suppress(ValueError, OSError):
        if "task" in json.loads(paths.record.read_text()):  # whole, though perhaps of another version
            return None
    stored = study.user_attrs.get(RECORD)
    if stored is not None and repair:
        RunRecord.from_json(stored).write(paths)
    cure = None if stored is None else "it is written again from the journal"
    return Damage(f"{paths.record} is damaged or missing", cure, repair and stored is not None)


def _check_checkpoints(paths: RunPaths, study: optuna.Study, repair: bool) -> Iterator[Damage]:
    ended = {training_name(t.number) for t in started_trials(study) if t.state.is_finished()}
    for folder in sorted((paths.folder / "checkpoints").glob("*")):
        damaged = [file for file in sorted(folder.glob("*.pt")) if read_torch(file) is None]
        if damaged and repair:
            shutil.rmtree(folder)  # weights without their state, or a state without its weights, would mislead
        for file in damaged:
            cure = "it is deleted" if folder.name in ended else "it is deleted, and its trial starts again"
            yield Damage(f"{file} is damaged", cure, repair)


def _check_best(paths: RunPaths, record: RunRecord, study: optuna.Study, repair: bool) -> Iterator[Damage]:
    finished = [t for t in rank_trials(started_trials(study)) if t.state.is_finished()]
    if not finished or _best_is_whole(paths):
        return
    fault = f"best.json, best.pt and val_predictions.npz in {paths.folder} are damaged or do not belong together"
    there = [t for t in finished if read_torch(paths.checkpoint(t.number) / WEIGHTS) is not None]
    cure = f"they become those of trial {there[0].number}, whose weights are in checkpoints/" if there else None
    cure = cure or f"they become those of trial {finished[0].number}, which is trained again"
    if repair:
        if not there:
            _train_again(paths, record, finished[0])
        publisher = Publisher(paths, find_task(record.task), study)
        publisher.published_score = -math.inf
        publisher.publish(finished)
    yield Damage(fault, cure, repair)


def _train_again(paths: RunPaths, record: RunRecord, trial: FrozenTrial) -> None:
    """Train a trial until the epoch that it ended after, so that its weights are there."""
    task, epochs = find_task(record.task), len(trial.intermediate_values)
    data = load_images(record.options).with_split(record.split.train, record.split.val)
    config = task.config.from_dict(trial.user_attrs[Attr.CONFIG])
    folder, device = paths.checkpoint(trial.number), pick_device()
    trained = checkpointed_training(task.module, config, data, folder, device=device, rungs=(epochs,))
    assert [report["epoch"] for report in itertools.islice(trained, epochs)] == [*range(1, epochs + 1)]


def _best_is_whole(paths: RunPaths) -> bool:
    try:
        best, weights, predictions = read_best(paths), read_torch(paths.best_weights), read_arrays(paths.predictions)
    except ValueError:
        return False
    if best is None or weights is None or predictions is None:
        return False
    return (best.trial, best.epoch) == (weights.get("trial"), weights.get("epoch"))


def _check_final(paths: RunPaths, repair: bool) -> Iterator[Damage]:
    if not paths.final_record.exists():
        return
    try:
        whole = read_json(paths.final_record) is not None and read_torch(paths.final_weights) is not None
        whole &= not paths.ensemble_record.exists() or read_torch(paths.ensemble) is not None
    except ValueError:
        whole = False
    if not whole:
        if repair:
            for file in (paths.final_record, paths.final_weights, paths.ensemble, paths.ensemble_record):
                file.unlink(missing_ok=True)
        yield Damage(f"the model in {paths.final.folder} is damaged", "it is deleted: run search.final again", repair)
