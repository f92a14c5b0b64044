"""A run folder: what is in it, who may write it, and its best trial."""

import csv
import fcntl
import math
import os
import shutil
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from search.run_folder.files import read_json, read_torch, replace, write_json, write_torch
from search.study.bootstrap import estimated
from search.study.trials import Attr, best_epoch, rank_trials, started_trials, state_name, trial_score
from search.tasks import Task
from search.trial.training import STATE, WEIGHTS, unpack

KEPT_WEIGHTS = 3  # trials whose weights stay on the disk


def lock(folder: Path) -> int:
    """Lock the run for this process, until it ends. Raises `ValueError` where another one drives it."""
    handle = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ValueError(f"{folder} is being driven by another process: wait for it or stop it first") from None
    return handle


def trial_folder(run: Path, number: int) -> Path:
    """Where a trial's state and weights lie while they are of use."""
    return run / "checkpoints" / f"{number:04d}"


def trial_log(run: Path, number: int) -> Path:
    return run / "logs" / f"{number:04d}.log"


class RunFolder:
    """Keeps what a person looks at in step with the study: trials.csv, best.json, best.pt, val_predictions.npz."""

    def __init__(self, folder: Path, task: Task, study: optuna.Study):
        self.folder, self.task, self.study = folder, task, study
        self.published = (None, None)  # trial and epoch that best.* hold
        self.held = self._held()  # their score

    def _held(self) -> float:
        """The score of what an earlier process published: its weights may be gone from `checkpoints` since."""
        with suppress(ValueError, LookupError, TypeError):
            best, saved = read_json(self.folder / "best.json"), read_torch(self.folder / "best.pt")
            if (best["trial"], best["epoch"]) == (saved["trial"], saved["epoch"]):
                trial = self.study.get_trials(deepcopy=False)[best["trial"]]
                return trial.intermediate_values[best["epoch"]]
        return -math.inf

    def finished(self) -> list[FrozenTrial]:
        """The trials that have ended and scored, best first."""
        return [t for t in rank_trials(started_trials(self.study)) if t.state.is_finished()]

    def bar(self) -> float:
        """The score that a trial must beat for its weights to be of any use."""
        finished = self.finished()
        return trial_score(finished[KEPT_WEIGHTS - 1]) if len(finished) >= KEPT_WEIGHTS else self.task.worst - 1

    def noise(self) -> float:
        """Half of the 95 % interval of the best score over the validation images; infinite if there is none."""
        best, predictions = read_json(self.folder / "best.json"), self.folder / "val_predictions.npz"
        if best is None or not predictions.exists():
            return math.inf
        with np.load(predictions) as arrays:
            score = self.task.rescore(dict(arrays), best["config"])
            best_score = estimated(score, len(arrays["ids"]), resamples=200)
        return (best_score.high - best_score.low) / 2 if best_score.holds else math.inf

    def update(self) -> None:
        """After a trial ended: publish the best, drop weights that nobody needs, rewrite trials.csv."""
        self.publish()
        kept = {t.number for t in self.finished()[:KEPT_WEIGHTS]}
        for trial in started_trials(self.study):
            files = trial_folder(self.folder, trial.number)
            if trial.state.is_finished() and trial.number not in kept:
                shutil.rmtree(files, ignore_errors=True)
            elif trial.state.is_finished():
                (files / STATE).unlink(missing_ok=True)
        self.write_trials()

    def publish(self) -> None:
        """Make best.* the best epoch of the best trial, as far as weights are there: a running trial's may be older."""
        best = None
        for trial in rank_trials(started_trials(self.study)):
            if best is not None and trial_score(trial) <= best[0]:
                break
            if (trial.number, best_epoch(trial)) == self.published:
                return
            file = trial_folder(self.folder, trial.number) / WEIGHTS
            saved = read_torch(file) if file.exists() else None
            value = saved and trial.intermediate_values.get(saved["epoch"])
            if value is not None and value >= self.held and (best is None or value > best[0]):
                best = value, trial.number, saved
        if best is not None and self.published != (best[1], best[2]["epoch"]):
            self._write_best(best[1], best[2])
            self.published, self.held = (best[1], best[2]["epoch"]), best[0]

    def _write_best(self, number: int, saved: dict[str, Any]) -> None:
        predictions = unpack(saved.pop("predictions"))
        calibration = self.task.calibrate(predictions)
        best = {
            "task": saved["task"],
            "trial": number,
            "metric": self.task.metric,
            "score": saved["score"],
            "epoch": saved["epoch"],
            "config": saved["config"],
            "checkpoint": "best.pt",
            "metrics": saved["metrics"],
            **calibration,
            **self.task.report(predictions, saved | calibration),
        }
        write_torch(self.folder / "best.pt", saved | calibration | {"trial": number})
        write_npz(self.folder / "val_predictions.npz", predictions)
        write_json(self.folder / "best.json", best)

    def write_trials(self) -> None:
        """trials.csv, a row a trial, by number."""
        trials = started_trials(self.study)
        names = sorted({name for t in trials for name in t.params})
        head = ["number", "state", "score", "best_epoch", "epochs", Attr.SECONDS, Attr.MEMORY]
        tail = ["origin", "error", "node", "pid", "log"]
        text = StringIO()
        rows = csv.writer(text)
        rows.writerow([*head, *names, *tail])
        for t in trials:
            node, pid = t.user_attrs.get(Attr.WORKER, ("", ""))
            facts = [
                t.number,
                state_name(t),
                trial_score(t),
                best_epoch(t),
                len(t.intermediate_values),
            ]
            log = trial_log(Path(), t.number)
            error = t.user_attrs.get(Attr.ERROR)
            origin = t.user_attrs.get(Attr.ORIGIN, "sampler")
            params = [t.params.get(n) for n in names]
            costs = (t.user_attrs.get(cost) for cost in (Attr.SECONDS, Attr.MEMORY))
            rows.writerow([*facts, *costs, *params, origin, error, node, pid, log])
        replace(self.folder / "trials.csv", lambda file: file.write_text(text.getvalue()))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz file of these arrays, whole or not there; `allow_pickle` is not needed to read it."""

    def write(file: Path) -> None:
        with open(file, "wb") as handle:
            np.savez(handle, **arrays)

    replace(path, write)
