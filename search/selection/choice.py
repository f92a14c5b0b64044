"""The work of `search.final`: retrain the best configurations, choose one, train the final model on all images.

The best of many noisy scores is too optimistic. The best configurations are trained again with other seeds. For each
one, the scores are averaged epoch by epoch, and that mean chooses the winner and its number of epochs. The final model
trains for that many epochs on all labeled images, with the winner's learning rates, and keeps its last weights.

With self-training, the winner's models label the unlabeled images, and its configuration is trained again with these as
well. That is one more candidate: it is chosen if its validation scores are better.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.cluster.interrupt import Interrupt
from search.cluster.sharing import for_workers
from search.run_folder.files import StorageError, write_torch
from search.run_folder.records import Candidate, Checkpoint, FinalRecord, Scores
from search.selection.card import write_card
from search.selection.retraining import Result, Retraining, Retrainings, SelectionFailed, training_name
from search.selection.selection import Selection
from search.tasks import Task
from search.text import with_error
from search.trial.device import MachineError
from voctrain.config import TrainConfig
from voctrain.data import Data
from voctrain.self_training import Unlabeled


def select(selection: Selection, interrupt: Interrupt) -> tuple[FinalRecord, float]:
    """Retrain, choose and train the final model, on the connected cluster; returns the seconds that it took, too.

    Continues what an earlier call left. Raises `Stopped` after a signal and `SelectionFailed`.
    """
    started = time.monotonic()
    try:
        record = _select(selection, interrupt)
    except MachineError as error:
        raise SelectionFailed(str(error)) from None
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
    found = [
        _candidate(selection, name, config, [results[job.training] for job in selection.retrainings(name, config)])
        for name, config in selection.candidates
    ]
    candidates = [candidate for candidate in found if candidate is not None]
    if not candidates:
        raise SelectionFailed("every configuration failed with another seed: continue the search with --resume")
    data = selection.data
    if selection.unlabeled is not None:
        teacher = _best(candidates)
        data = _pseudo_labeled(selection, selection.unlabeled, trainings, teacher)
        student = _self_trained(selection, data, teacher, interrupt)
        candidates += [] if student is None else [student]
    record = _choose(selection, trainings, candidates)
    record.write(selection.paths)
    winner = _best(candidates)
    saved = _train_final(selection, data if winner.unlabeled else selection.data, record, winner, interrupt)
    held_out = [trainings.predictions(training) for training in winner.trainings]
    write_card(selection.paths, selection.task, selection.source, selection.data, record, saved, held_out)
    return record


def _best(candidates: list[Candidate]) -> Candidate:
    return max(candidates, key=lambda candidate: candidate.at_epochs.score)


def _pseudo_labeled(selection: Selection, unlabeled: Unlabeled, trainings: Retrainings, teacher: Candidate) -> Data:
    """The data with the unlabeled images, as the models of a candidate label them."""
    count = len(unlabeled.ids)
    selection.reporter.status(f"the {len(teacher.trainings)} models of {teacher.name} label {count} unlabeled images")
    models = [trainings.weights(training) for training in teacher.trainings]
    return for_workers(selection.task.pseudo_labeled(selection.data, unlabeled, models), selection.address)


def _self_trained(selection: Selection, data: Data, teacher: Candidate, interrupt: Interrupt) -> Candidate | None:
    """A candidate's configuration, trained again on its own labels as well; None if that fails."""
    name, config = f"{teacher.name}, self-trained", selection.task.config.from_dict(teacher.config)
    more = data.ids[len(selection.data.ids) :]
    jobs = selection.retrainings(name, config, teachers=teacher.trainings, unlabeled=more)
    trainings = Retrainings(selection.paths.final, selection.task, data, selection.resources, selection.reporter)
    results = trainings.run(jobs, interrupt)
    student = _candidate(selection, name, config, [results[job.training] for job in jobs])
    if student is None:
        return None
    student = dataclasses.replace(student, unlabeled=len(more))
    metric, before, now = selection.task.metric, teacher.at_epochs, student.at_epochs
    selection.reporter.result(
        f"self-training on {student.unlabeled} unlabeled images: {metric} {with_error(now.score, now.standard_error)},"
        f" without {with_error(before.score, before.standard_error)}:"
        f" {'kept' if now.score > before.score else 'not kept'}"
    )
    return student


def _choose(selection: Selection, trainings: Retrainings, candidates: list[Candidate]) -> FinalRecord:
    """The winner by its mean score, with its calibration."""
    winner = _best(candidates)
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


def _candidate(selection: Selection, name: str, config: TrainConfig, results: Sequence[Result]) -> Candidate | None:
    """The scores of a configuration; None, said in a line, if one of its trainings failed."""
    if lost := [result.error for result in results if result.error]:
        selection.reporter.result(f"{name} is left out: {len(lost)} of its {selection.seeds} trainings {lost[0]}")
        return None
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
        original_size=_mean_metrics([result.original_size or {} for result in results]),
        trainings=[result.training for result in results],
    )


def _train_final(
    selection: Selection, data: Data, record: FinalRecord, winner: Candidate, interrupt: Interrupt
) -> Checkpoint:
    """Train the winner on all images of `data`, write final.pt and return its content."""
    config, data = _final_config(selection.task, winner), data.all_train()
    work: dict[str, Any] = {"epochs": record.epochs} | ({"after": winner.trainings} if winner.unlabeled else {})
    job = Retraining(f"{winner.name}, all images", config, training_name(data, config, **work), record.epochs)
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
