"""The work of `search.final`: retrain the best configurations, choose, and train the final model on all images.

The best of many noisy scores is too optimistic. The best configurations are trained again with other seeds, and, where
images are few, in folds: then models that never saw an image predict each of them. A training's last epoch counts, so
nothing is chosen by looking at the images it is judged on. The mean score over seeds chooses the winner, which is
trained on all labeled images as well. An ensemble of the retrained models takes its place if it is better.

With self-training, the winner's models label the unlabeled images, and its configuration is trained again with these as
well. That is one more candidate: it is chosen if its scores are better.
"""

import dataclasses
import time
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from search.cluster.interrupt import Interrupt
from search.cluster.sharing import for_workers
from search.run_folder.files import StorageError, write_torch
from search.run_folder.records import Candidate, Checkpoint, EnsembleRecord, FinalRecord, Scores, repeats
from search.selection.card import write_card
from search.selection.handover import hand_over
from search.selection.out_of_fold import mean_score, pooled
from search.selection.racing import losers
from search.selection.retraining import Result, Retraining, Retrainings, SelectionFailed, training_name
from search.selection.selection import Finalist, Selection
from search.study.bootstrap import Score
from search.tasks import Task
from search.text import duration, with_error
from search.trial.device import MachineError
from voctrain.config import TrainConfig
from voctrain.data import Data
from voctrain.self_training import Unlabeled


def select(selection: Selection, interrupt: Interrupt) -> tuple[FinalRecord, EnsembleRecord | None, float]:
    """Retrain, choose and train the final model, on the connected cluster; returns the seconds that it took, too.

    Continues what an earlier call left. Raises `Stopped` after a signal and `SelectionFailed`.
    """
    started = time.monotonic()
    try:
        record, ensemble = _select(selection, interrupt)
    except MachineError as error:
        raise SelectionFailed(str(error)) from None
    except OSError as error:
        raise SelectionFailed(str(StorageError.of(selection.paths.final.folder, error))) from None
    return record, ensemble, time.monotonic() - started


def _select(selection: Selection, interrupt: Interrupt) -> tuple[FinalRecord, EnsembleRecord | None]:
    trainings = _trainings(selection, selection.data)
    jobs = {finalist.name: selection.retrainings(finalist) for finalist in selection.finalists}
    selection.reporter.status(_plan(selection))
    results, dropped = _raced(selection, trainings, jobs, interrupt)
    kept = [finalist for finalist in selection.finalists if finalist.name not in dropped]
    found = [_candidate(selection, trainings, finalist, jobs[finalist.name], results) for finalist in kept]
    candidates = [candidate for candidate in found if candidate is not None]
    if not candidates:
        raise SelectionFailed("every configuration failed with another seed: continue the search with --resume")
    data, taught = selection.data, list[Retraining]()
    if selection.unlabeled is not None:
        teacher = _best(candidates)
        name = f"{teacher.name}, self-trained"
        parts, jobs[name] = _taught(selection, trainings, selection.unlabeled, teacher, jobs[teacher.name])
        student = _student(selection, teacher, name, parts, jobs[name], interrupt)
        candidates, data = [*candidates, *([] if student is None else [student])], parts[0]
        taught = [*jobs[teacher.name], *jobs[name]]
    winner = _best(candidates)
    names = [candidate.name for candidate in candidates]
    handed = hand_over(selection, trainings, winner, {name: jobs[name] for name in names}, interrupt, taught)
    record = FinalRecord(
        task=selection.task.name,
        metric=selection.task.metric,
        score=winner.scores.score,
        standard_error=winner.scores.standard_error,
        epochs=winner.epochs,
        winner=winner.name,
        folds=len(selection.folds),
        seeds=selection.seeds,
        dropped=dropped,
        baseline=selection.baseline.metrics,
        baseline_name=selection.baseline.name,
        original_size=handed.original_size,
        expected=handed.expected,
        handed_over=handed.name,
        details=handed.details,
        candidates=candidates,
    )
    record.write(selection.paths)
    saved = _train_final(selection, data if winner.unlabeled else selection.data, record, winner, interrupt)
    held_out = pooled(trainings, jobs[winner.name], selection.seeds)
    write_card(selection.paths, selection.task, selection.source, selection.data, record, saved, held_out)
    return record, handed.ensemble


def _trainings(selection: Selection, data: Data) -> Retrainings:
    return Retrainings(selection.paths.final, selection.task, data, selection.resources, selection.reporter)


def _plan(selection: Selection) -> str:
    """What will be trained, and how long that may take."""
    folds, seeds, concurrent = len(selection.folds), selection.seeds, selection.resources.concurrent
    known = [finalist.seconds for finalist in selection.finalists if finalist.seconds is not None]
    last = f", and the final model about {duration(known[0])} more" if known else ""
    cost = f", about {duration(sum(known) * folds * seeds / concurrent)}{last}" if known else ""
    return f"{len(selection.finalists)} configurations × {repeats(folds, seeds)}, {concurrent} at a time{cost}"


def _raced(
    selection: Selection, trainings: Retrainings, jobs: Mapping[str, Sequence[Retraining]], interrupt: Interrupt
) -> tuple[dict[str, Result], dict[str, int]]:
    """The results by training, and the configurations that have lost, see `racing`."""
    task, seeds, folds = selection.task, selection.seeds, len(selection.folds)
    configs = {finalist.name: finalist.config.to_dict() for finalist in selection.finalists}
    dropped: dict[str, int] = {}

    def pointless(results: Mapping[str, Result]) -> Container[str]:
        def score(name: str, first: int) -> tuple[Score, int] | None:
            own = jobs[name][: first * seeds]
            if not all(job.training in results for job in own):
                return None
            predictions = pooled(trainings, own, seeds)
            return mean_score([task.rescore(each, configs[name]) for each in predictions]), len(predictions[0]["ids"])

        failed = {name for name, own in jobs.items() if any(_failed(results.get(job.training)) for job in own)}
        dropped.clear()
        dropped.update(losers([name for name in jobs if name not in failed], folds, score))
        over = failed | dropped.keys()
        return {job.training for name in over for job in jobs[name]}

    # Fold by fold, so that what cannot win is known early.
    order = [own[i] for i in range(folds * seeds) for own in jobs.values()]
    results = trainings.run(order, interrupt, pointless)
    for name, fold in dropped.items():
        selection.reporter.result(f"{name} is dropped: after {fold} of {folds} folds it cannot win")
    return results, dict(dropped)


def _failed(result: Result | None) -> bool:
    return result is not None and result.error is not None


def _best(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda candidate: candidate.scores.score)


def _candidate(
    selection: Selection,
    trainings: Retrainings,
    finalist: Finalist,
    jobs: Sequence[Retraining],
    results: Mapping[str, Result],
    unlabeled: int = 0,
) -> Candidate | None:
    """The scores of a configuration; None, said in a line, if one of its trainings failed."""
    if lost := [results[job.training].error for job in jobs if _failed(results.get(job.training))]:
        selection.reporter.result(f"{finalist.name} is left out: {len(lost)} of its {len(jobs)} trainings {lost[0]}")
        return None
    config, histories = finalist.config.to_dict(), [results[job.training].history for job in jobs]
    scores = [selection.task.rescore(each, config)(slice(None)) for each in pooled(trainings, jobs, selection.seeds)]
    last = [history[-1] for history in histories]
    return Candidate(
        name=finalist.name,
        config=config,
        epochs=finalist.epochs,
        scores=_scores(scores),
        metrics={key: float(np.mean([m[key] for m in last])) for key in last[0] if key.startswith("val_")},
        lr_by_epoch=np.mean([[epoch["lr"] for epoch in history] for history in histories], axis=0).tolist(),
        trainings=[job.training for job in jobs],
        unlabeled=unlabeled,
    )


def _scores(scores: list[float]) -> Scores:
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None
    return Scores(float(np.mean(scores)), error, scores)


def _taught(
    selection: Selection, trainings: Retrainings, unlabeled: Unlabeled, teacher: Candidate, jobs: Sequence[Retraining]
) -> tuple[list[Data], list[Retraining]]:
    """The data of each fold with the unlabeled images, as the teacher's models of this fold label them, and trainings.

    Models of other folds have seen the images that are held out in this one.
    """
    count, seeds = len(unlabeled.ids), selection.seeds
    selection.reporter.status(f"the {len(jobs)} models of {teacher.name} label {count} unlabeled images")
    parts = [
        selection.task.pseudo_labeled(part, unlabeled, [trainings.weights(job) for job in jobs[i * seeds :][:seeds]])
        for i, part in enumerate(selection.parts())
    ]
    more = parts[0].ids[len(selection.data.ids) :]
    config = selection.task.config.from_dict(teacher.config)
    student = Finalist(f"{teacher.name}, self-trained", config, teacher.epochs)
    return parts, selection.retrainings(student, teachers=teacher.trainings, unlabeled=more)


def _student(
    selection: Selection,
    teacher: Candidate,
    name: str,
    parts: Sequence[Data],
    jobs: Sequence[Retraining],
    interrupt: Interrupt,
) -> Candidate | None:
    """A candidate's configuration, trained again on its own labels as well; None if that fails."""
    results: dict[str, Result] = {}
    for i, part in enumerate(parts):
        own = [dataclasses.replace(job, fold=None) for job in jobs[i * selection.seeds :][: selection.seeds]]
        trainings = _trainings(selection, for_workers(part, selection.address))
        results |= trainings.run(own, interrupt)
        for job in own:
            if not _failed(results[job.training]):
                trainings.held_out(job)
    config = selection.task.config.from_dict(teacher.config)
    count = len(parts[0].ids) - len(selection.data.ids)
    finalist = Finalist(name, config, teacher.epochs)
    student = _candidate(selection, _trainings(selection, selection.data), finalist, jobs, results, unlabeled=count)
    if student is not None:
        metric, before, now = selection.task.metric, teacher.scores, student.scores
        selection.reporter.result(
            f"self-training on {count} unlabeled images: {metric} {with_error(now.score, now.standard_error)},"
            f" without {with_error(before.score, before.standard_error)}:"
            f" {'kept' if now.score > before.score else 'not kept'}"
        )
    return student


def _train_final(
    selection: Selection, data: Data, record: FinalRecord, winner: Candidate, interrupt: Interrupt
) -> Checkpoint:
    """Train the winner on all images of `data`, write final.pt and return its content."""
    config, data = _final_config(selection.task, winner), data.all_train()
    work: dict[str, Any] = {"epochs": record.epochs} | ({"after": winner.trainings} if winner.unlabeled else {})
    job = Retraining(f"{winner.name}, all images", config, training_name(data, config, **work), record.epochs)
    selection.reporter.status(f"training {winner.name} on all {len(data.ids)} images, {record.epochs} epochs")
    trainings = _trainings(selection, for_workers(data, selection.address))
    result = trainings.run([job], interrupt)[job.training]
    if result.error:
        raise SelectionFailed(f"the training on all images {result.error}: choose from more configurations with --top")
    saved = trainings.weights(job)
    del saved["predictions"]
    score = {"score": record.score, "standard_error": record.standard_error, "metrics": winner.metrics}
    saved |= record.details | score
    write_torch(selection.paths.final_weights, saved)
    return saved


def _final_config(task: Task, winner: Candidate) -> TrainConfig:
    """The winner's configuration for a training without validation."""
    config = task.config.from_dict(winner.config)
    if config.schedule != "plateau":
        return config
    # A plateau shows in validation only: the learning rates of the retrainings are replayed.
    rates = winner.lr_by_epoch
    dropped = ("gamma", "plateau_patience", "warmup_epochs")
    values = {name: value for name, value in config.to_dict().items() if name not in dropped}
    replay = {"schedule": "replay", "lr_by_epoch": rates, "lr": max(rates), "epochs": len(rates)}
    return task.config.from_dict(values | replay)
