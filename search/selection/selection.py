"""The work of `search.final`: retrain the best configurations, choose one, train the final model on all images.

The best of many noisy scores is too optimistic. The best configurations are trained again with other seeds. For each
one, the scores are averaged epoch by epoch, and that mean chooses the winner and its number of epochs. The final model
trains for that many epochs on all labeled images, with the winner's learning rates, and keeps its last weights.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.cluster import connection
from search.cluster.address import resolve_address
from search.cluster.interrupt import Interrupt
from search.cluster.resources import Resources, share_resources
from search.cluster.sharing import for_workers
from search.reporter import Reporter
from search.result_options import FinalOptions
from search.run_folder.files import StorageError, read_json, write_torch
from search.run_folder.lock import RunLock, lock
from search.run_folder.paths import RunPaths
from search.run_folder.records import Candidate, Checkpoint, FinalRecord, Scores, read_run
from search.selection.card import write_card
from search.selection.retraining import Result, Retraining, Retrainings, SelectionFailed, training_name
from search.session.images import load_images
from search.study.journal import read_study
from search.study.trials import Attr, rank_trials, started_trials
from search.tasks import Baseline, Task, find_task
from voctrain.config import TrainConfig
from voctrain.data import Data, load


@dataclass(frozen=True)
class Selection:
    """A checked call of `search.final`."""

    paths: RunPaths  # of the run
    task: Task
    source: str  # of the data, as --data takes it
    data: Data
    candidates: list[tuple[str, TrainConfig]]  # each with its name
    seeds: int
    baseline: Baseline
    address: str | None
    resources: Resources
    reporter: Reporter
    lock: RunLock

    def retrainings(self, name: str, config: TrainConfig) -> list[Retraining]:
        """The trainings of a candidate, one per seed; the seeds differ from the search's."""
        configs = [dataclasses.replace(config, seed=config.seed + number) for number in range(1, self.seeds + 1)]
        return [Retraining(f"{name}, seed {c.seed}", c, training_name(self.data, c)) for c in configs]


def open_selection(options: FinalOptions, reporter: Reporter) -> Selection:
    """Check a call and load the data. Raises `ValueError` or `OSError` for a mistake of the user."""
    if options.run is not None:
        run = Path(options.run).resolve()
        task, source, data, candidates = _best_of_run(run, options, reporter)
    else:
        assert options.config is not None
        assert options.data is not None
        task, config, resize = _read_config(Path(options.config))
        source, candidates = options.data, [(options.config, config)]
        data = load(source, image_size=config.image_size, resize=resize, progress=reporter.reading())
        run = Path(options.out or f"runs/{task.name}-final").resolve()
    for _, config in candidates:
        task.module.check(config, data)
        if getattr(config, "weights", "none") != "none":  # downloads them
            task.module.new_model(config, data)
    baseline = task.baseline(data, candidates[0][1].to_dict())
    paths = RunPaths(run)
    writable = next(p for p in (paths.final.folder, *paths.final.folder.parents) if p.exists())
    address = resolve_address(options.address)
    machines = connection.available(address, writable)
    data = for_workers(data, address)
    resources = share_resources(machines, options, trials=len(candidates) * options.seeds)
    for name in ("logs", "history"):
        (paths.final.folder / name).mkdir(parents=True, exist_ok=True)
    held = lock(paths.final)
    return Selection(paths, task, source, data, candidates, options.seeds, baseline, address, resources, reporter, held)


def _best_of_run(
    run: Path, options: FinalOptions, reporter: Reporter
) -> tuple[Task, str, Data, list[tuple[str, TrainConfig]]]:
    """Task, source of the data, data and best configurations of a run."""
    record = read_run(run)
    task = find_task(record.task)
    best = rank_trials(started_trials(read_study(RunPaths(run).journal)))[: options.top]
    if not best:
        raise ValueError(f"{options.run} has no trial that scored: continue it with --resume")
    files = {name: getattr(record.options, name) for name in task.files}  # they may have moved since
    candidates = []
    for trial in best:
        values = trial.user_attrs[Attr.CONFIG]
        moved = {name: file for name, file in files.items() if name in values and file is not None}
        candidates.append((f"trial {trial.number}", task.config.from_dict(values | moved)))
    source = options.data or record.options.data
    data = load_images(record.options, source, reporter.reading())
    if data.fingerprint != record.data.fingerprint:
        raise ValueError(f"the data at {source} are not those of {options.run}: give the same set with --data")
    return task, source, data.with_split(record.split.train, record.split.val), candidates


def _read_config(path: Path) -> tuple[Task, TrainConfig, str]:
    """Task and configuration of a best.json, and how its images became squares."""
    try:
        best = read_json(path) or {}
        task, config = find_task(best["task"]), dict(best["config"])
    except (ValueError, LookupError, TypeError, ImportError):
        raise ValueError(f"--config takes a best.json with task and config, but {path} is not one") from None
    return task, task.config.from_dict(config), best.get("resize", "squash")


def select(selection: Selection, interrupt: Interrupt) -> tuple[FinalRecord, float]:
    """Retrain, choose and train the final model, on the connected cluster; returns the seconds that it took, too.

    Continues what an earlier call left. Raises `Stopped` after a signal and `SelectionFailed`.
    """
    started = time.monotonic()
    try:
        record = _select(selection, interrupt)
    except OSError as error:
        raise SelectionFailed(str(StorageError.of(selection.paths.final.folder, error))) from None
    return record, time.monotonic() - started


def _select(selection: Selection, interrupt: Interrupt) -> FinalRecord:
    reporter = selection.reporter
    trainings = Retrainings(selection.paths.final, selection.task, selection.data, selection.resources, reporter)
    reporter.status(
        f"{len(selection.candidates)} configurations × {selection.seeds} seeds,"
        f" {selection.resources.concurrent} at a time"
    )
    jobs = [job for name, config in selection.candidates for job in selection.retrainings(name, config)]
    results = trainings.run(jobs, interrupt)
    record = _choose(selection, trainings, results)
    record.write(selection.paths)
    saved = _train_final(selection, record, interrupt)
    winner = next(candidate for candidate in record.candidates if candidate.name == record.winner)
    held_out = [trainings.predictions(training) for training in winner.trainings]
    write_card(selection.paths, selection.task, selection.source, selection.data, record, saved, held_out)
    return record


def _choose(selection: Selection, trainings: Retrainings, results: dict[str, Result]) -> FinalRecord:
    """The scores of every candidate, and the winner by their mean with its calibration."""
    candidates = []
    for name, config in selection.candidates:
        of_candidate = [results[job.training] for job in selection.retrainings(name, config)]
        if lost := [result.error for result in of_candidate if result.error]:
            selection.reporter.result(f"{name} is left out: {len(lost)} of its {selection.seeds} trainings {lost[0]}")
        else:
            candidates.append(_candidate(selection, name, config, of_candidate))
    if not candidates:
        raise SelectionFailed("every configuration failed with another seed: continue the search with --resume")
    winner = max(candidates, key=lambda candidate: candidate.at_epochs.score)
    held_out = [trainings.predictions(training) for training in winner.trainings]
    together = {key: np.concatenate([part[key] for part in held_out]) for key in held_out[0]}
    return FinalRecord(
        task=selection.task.name,
        metric=selection.task.metric,
        score=winner.at_epochs.score,
        standard_error=winner.at_epochs.standard_error,
        epochs=winner.epochs,
        winner=winner.name,
        seeds=selection.seeds,
        baseline=selection.baseline.metrics,
        baseline_name=selection.baseline.name,
        original_size=winner.original_size,
        details=selection.task.calibrate(together),
        candidates=candidates,
    )


def _candidate(selection: Selection, name: str, config: TrainConfig, results: list[Result]) -> Candidate:
    metric = selection.task.metric
    curves = [[epoch[metric] for epoch in result.history] for result in results]
    shortest = min(map(len, curves))
    epochs = int(np.mean([curve[:shortest] for curve in curves], axis=0).argmax()) + 1
    rates = [[epoch["lr"] for epoch in result.history[:shortest]] for result in results]
    return Candidate(
        name=name,
        config=config.to_dict(),
        epochs=epochs,
        at_epochs=_scores([curve[epochs - 1] for curve in curves]),
        best=_scores([max(curve) for curve in curves]),
        last=_scores([curve[-1] for curve in curves]),
        metrics=_mean_metrics([result.history[epochs - 1] for result in results]),
        lr_by_epoch=np.mean(rates, axis=0).tolist(),
        original_size=_mean_metrics([result.original_size for result in results]),
        trainings=[result.training for result in results],
    )


def _train_final(selection: Selection, record: FinalRecord, interrupt: Interrupt) -> Checkpoint:
    """Train the winner on all labeled images, write final.pt and return its content."""
    winner = next(candidate for candidate in record.candidates if candidate.name == record.winner)
    config = _final_config(selection.task, winner)
    data = selection.data.all_train()
    job = Retraining(
        f"{winner.name}, all images", config, training_name(data, config, epochs=record.epochs), record.epochs
    )
    selection.reporter.status(f"training {winner.name} on all {len(data.ids)} images, {record.epochs} epochs")
    trainings = Retrainings(selection.paths.final, selection.task, data, selection.resources, selection.reporter)
    result = trainings.run([job], interrupt)[job.training]
    if result.error:
        raise SelectionFailed(f"the training on all images {result.error}: choose from more configurations with --top")
    saved = trainings.weights(job.training)
    del saved["predictions"]
    score = {"score": record.score, "standard_error": record.standard_error, "metrics": winner.metrics}
    saved |= record.details | score
    write_torch(selection.paths.final_weights, saved)
    return saved


def _final_config(task: Task, winner: Candidate) -> TrainConfig:
    """The winner's configuration for a training without validation."""
    config = task.config.from_dict(winner.config | {"patience": None})
    if config.schedule != "plateau":
        return config
    # A plateau shows in validation only: the learning rates of the retrainings are replayed.
    rates = winner.lr_by_epoch
    dropped = ("gamma", "plateau_patience", "warmup_epochs")
    values = {name: value for name, value in config.to_dict().items() if name not in dropped}
    replay = {"schedule": "replay", "lr_by_epoch": rates, "lr": max(rates), "epochs": len(rates)}
    return task.config.from_dict(values | replay)


def _mean_metrics(metrics: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each validation metric."""
    return {key: float(np.mean([m[key] for m in metrics])) for key in metrics[0] if key.startswith("val_")}


def _scores(scores: list[float]) -> Scores:
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None
    return Scores(float(np.mean(scores)), error, scores)
