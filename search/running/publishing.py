"""What a run folder shows of its study while it grows: the best trial, and a table of all trials."""

import csv
import math
from collections.abc import Iterable
from contextlib import suppress
from io import StringIO
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.run_folder.files import read_arrays, read_torch, replace, write_arrays, write_json, write_torch
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, Checkpoint, read_best
from search.run_folder.store import StoreError
from search.study.bootstrap import estimated
from search.study.trials import Attr, best_epoch, rank_trials, started_trials, state_name, trial_score
from search.tasks import RunTask
from search.trial.training import STATE, WEIGHTS, unpack

KEPT_WEIGHTS = 3  # trials whose weights stay on the disk


class Publisher:
    """Keeps trials.csv, best.json, best.pt and val_predictions.npz in step with the study."""

    def __init__(self, paths: RunPaths, task: RunTask, study: optuna.Study):
        self.paths, self.task, self.study = paths, task, study
        self.kept: list[FrozenTrial] = []  # the best that have ended with a score: their weights stay
        self.published: tuple[int, int] | None = None  # trial and epoch of best.*
        self.published_score = self._earlier_score()
        self.judged: dict[int, int | None] = {}  # when the weights that `publish` has seen were written, by trial

    def _earlier_score(self) -> float:
        """The score that an earlier process published, whose weights may be gone from the checkpoints since."""
        with suppress(ValueError, LookupError, TypeError):
            best, saved = read_best(self.paths), read_torch(self.paths.best_weights)
            if best is not None and saved is not None and (best.trial, best.epoch) == (saved["trial"], saved["epoch"]):
                return self.study.get_trials(deepcopy=False)[best.trial].intermediate_values[best.epoch]
        return -math.inf

    def score_worth_keeping(self) -> float:
        """The score above which the weights of a new trial may be used."""
        last = trial_score(self.kept[-1]) if len(self.kept) == KEPT_WEIGHTS else None
        return self.task.worst - 1 if last is None else last

    def noise(self) -> float:
        """Half of the 95 % interval of the best score over the validation images; infinite if there is none."""
        best, predictions = read_best(self.paths), read_arrays(self.paths.predictions)
        if best is None or predictions is None:
            return math.inf
        score = self.task.rescore(predictions, best.config)
        best_score = estimated(score, len(predictions["ids"]), resamples=200)
        return (best_score.high - best_score.low) / 2 if best_score.is_valid else math.inf

    def update(self, *, waits: bool = False) -> None:
        """Bring everything in step with the study, when a process begins and ends: it looks at all trials.

        waits: as in `publish`.
        """
        trials = started_trials(self.study)
        self.publish(trials, waits=waits)
        self._keep_best(t for t in trials if t.state.is_finished())
        self.write_trials()

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Publish the best and delete weights that are no longer needed; the cost does not grow with the study."""
        ended = [*self.kept, trial]
        self.publish(ended + self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        self._keep_best(ended)

    def _keep_best(self, ended: Iterable[FrozenTrial]) -> None:
        """Keep the weights of the best of these trials, and no state."""
        ended = list(ended)
        self.kept = rank_trials(ended)[:KEPT_WEIGHTS]
        kept = {trial.number for trial in self.kept}
        for trial in ended:
            files = self.paths.checkpoint(trial.number)
            if trial.number in kept:
                self.paths.drop(files / STATE)
            else:
                self.paths.drop(files)
                self.judged.pop(trial.number, None)

    def publish(self, trials: Iterable[FrozenTrial], *, waits: bool = False) -> None:
        """Make best.* the best epoch of the best trial whose weights exist; those of a running trial may be older.

        waits: whether a store that is away is waited for; otherwise a later call publishes what is there.
        """
        best: tuple[float, int, Checkpoint] | None = None
        for trial in rank_trials(trials):
            score, epoch = trial_score(trial), best_epoch(trial)
            assert score is not None
            if score < self.published_score or (best is not None and score <= best[0]):
                break
            if (trial.number, epoch) == self.published:
                return
            saved = self._new_weights(trial, waits=waits)
            if saved is None:
                continue
            value = trial.intermediate_values[saved["epoch"]]
            if value >= self.published_score and (best is None or value > best[0]):
                best = value, trial.number, saved
        if best is not None and self.published != (best[1], best[2]["epoch"]):
            self._write_best(best[1], best[2])
            self.published, self.published_score = (best[1], best[2]["epoch"]), best[0]

    def _new_weights(self, trial: FrozenTrial, *, waits: bool) -> Checkpoint | None:
        """What a trial has saved of an epoch that it has reported, unless it is known already."""
        try:
            file = self.paths.fetched(self.paths.checkpoint(trial.number) / WEIGHTS, waits=waits)
        except StoreError:
            if waits:
                raise
            return None
        written = file.stat().st_mtime_ns if file.exists() else None
        if written == self.judged.get(trial.number):
            return None
        saved = read_torch(file)
        if saved is None or saved["epoch"] not in trial.intermediate_values:
            return None
        self.judged[trial.number] = written
        return saved

    def _write_best(self, number: int, saved: Checkpoint) -> None:
        predictions = unpack(saved.pop("predictions"))
        calibration = self.task.calibrate(predictions)
        best = BestRecord(
            task=saved["task"],
            trial=number,
            metric=self.task.metric,
            score=saved["score"],
            epoch=saved["epoch"],
            config=saved["config"],
            checkpoint=self.paths.best_weights.name,
            metrics=saved["metrics"],
            resize=saved.get("resize", "squash"),
            details=calibration | self.task.describe(predictions, saved | calibration),
        )
        write_torch(self.paths.best_weights, saved | calibration | {"trial": number})
        write_arrays(self.paths.predictions, predictions)
        write_json(self.paths.best, best.to_json())

    def write_trials(self) -> None:
        """Write trials.csv, one row per trial."""
        trials = started_trials(self.study)
        names = sorted({name for t in trials for name in t.params})
        text = StringIO()
        rows = csv.writer(text)
        head = ["number", "state", "score", "best_epoch", "epochs", Attr.SECONDS, Attr.MEMORY]
        rows.writerow([*head, *names, "origin", "error", "lost", "node", "pid", "log"])
        for t in trials:
            summary = (t.number, state_name(t), trial_score(t), best_epoch(t), len(t.intermediate_values))
            costs = (t.user_attrs.get(cost) for cost in (Attr.SECONDS, Attr.MEMORY))
            told = t.user_attrs
            notes = (told.get(Attr.ORIGIN, "sampler"), told.get(Attr.ERROR), told.get(Attr.LOST, 0))
            node, pid = told.get(Attr.WORKER, ("", ""))
            log = RunPaths(Path()).log(t.number)
            rows.writerow([*summary, *costs, *map(t.params.get, names), *notes, node, pid, log])
        replace(self.paths.trials, lambda file: file.write_text(text.getvalue()))
