"""The model card beside a final model: what it learned from, how good it is, and how to use it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment

from search.pictures.blocks import Table
from search.run_folder.files import replace
from search.run_folder.paths import RunPaths
from search.run_folder.records import Candidate, Checkpoint, FinalRecord, repeats
from search.session.origin import file_digest, git_revision, versions
from search.study.bootstrap import TOO_FEW, estimated
from search.tasks import Predictions, Task
from search.text import readable, with_error
from voctrain.data import Data
from voctrain.deploy import deploy

RESAMPLES = 300  # each of them scores the images of all seeds


def write_card(
    paths: RunPaths,
    task: Task,
    source: str,
    data: Data,
    record: FinalRecord,
    saved: Checkpoint,
    held_out: Sequence[Predictions],
) -> None:
    """Write card.md.

    paths: of the run. source: of the data, as --data takes it. saved: the final model's checkpoint. held_out: the
    predictions of the validation images, by each training of the winner. Raises `StorageError`.
    """
    winner = next(candidate for candidate in record.candidates if candidate.name == record.winner)
    model = deploy(saved)
    given = {name: saved["config"].get(name) for name in task.files}
    files = [
        (name, Path(file).name, file_digest(file)) for name, file in given.items() if file and Path(file).is_file()
    ]
    tables = [table for table in (task.class_table(held_out, saved), _metrics(winner, record)) if table is not None]
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = lambda value: readable(value).replace("|", r"\|")
    template = environment.from_string(Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8"))
    card = template.render(
        title=paths.folder.name,
        record=record,
        saved=saved,
        score=with_error(record.score, record.standard_error),
        interval=_interval(task, winner, record, held_out),
        over=repeats(record.folds, record.seeds),
        baseline=record.baseline_name,
        tables=tables,
        source=source,
        labeled=len(data.ids),
        train=len(data.train),
        unlabeled=winner.unlabeled,
        val=len(data.val),
        split="the split in run.json" if paths.record.exists() else "the stratified split of the data",
        fingerprint=data.fingerprint,
        config=json.dumps({name: value for name, value in saved["config"].items() if value is not None}, indent=1),
        provenance=task.provenance(saved["config"]),
        files=files,
        versions=versions(),
        git=git_revision(),
        date=time.strftime("%Y-%m-%d"),
        answer=model.output,
        mode="RGB" if model.channels == 3 else "L",
        run=paths.place,
    )
    replace(paths.card, lambda file: file.write_text(card, encoding="utf-8"))


def _interval(task: Task, winner: Candidate, record: FinalRecord, held_out: Sequence[Predictions]) -> str:
    """The 95 % interval of the score over the validation images."""
    scores = [task.rescore(predictions, winner.config) for predictions in held_out]
    found = estimated(
        lambda rows: float(np.mean([score(rows) for score in scores])), len(held_out[0]["ids"]), resamples=RESAMPLES
    )
    if not found.is_valid:
        return TOO_FEW
    moved = record.score - found.value
    return f"{found.low + moved:.4f} to {found.high + moved:.4f}"


def _metrics(winner: Candidate, record: FinalRecord) -> Table:
    rows = [(name, value, record.baseline.get(name)) for name, value in winner.metrics.items()]
    return Table(
        ("metric", "mean", "baseline"), rows, f"All metrics in epoch {record.epochs}, means over the trainings"
    )
