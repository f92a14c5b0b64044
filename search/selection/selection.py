"""The work of `search.final`: retrainings on the split, an honest choice, and the model trained on everything.

The best of many noisy scores flatters itself. The best configurations are trained again with other seeds; of each
configuration the scores are averaged epoch by epoch, and that mean chooses the winner and the number of its epochs.
The final model trains for so many epochs on all labeled images, with the winner's learning rates, and keeps its last
weights.
"""

import argparse
import dataclasses
import hashlib
import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.cluster import connection
from search.cluster.interrupt import Interrupt
from search.cluster.resources import Resources, share_resources
from search.options import resolve_address
from search.run_folder.files import read_torch, typed, write_json, write_torch
from search.run_folder.records import read_run
from search.running.live import duration, reading, say
from search.running.publishing import lock
from search.selection.retraining import PREDICTIONS, Job, read_result, train_all
from search.study.bootstrap import with_error
from search.study.journal import read_study
from search.study.trials import Attr, rank_trials, started_trials
from search.tasks import TASKS, Task
from search.trial.training import WEIGHTS
from voctrain.config import TrainConfig
from voctrain.data import Data, load

ORIGINAL = "original_size.json"


@dataclass(frozen=True)
class Plan:
    """What `search.final` will do."""

    folder: Path  # of final.json and final.pt
    task: Task
    source: str  # of the data, as --data takes it
    data: Data
    candidates: list[tuple[str, TrainConfig]]  # each with its name
    seeds: int
    arguments: argparse.Namespace
    baseline: dict[str, float]
    resources: Resources


def prepare(arguments: argparse.Namespace) -> Plan:
    """Check the arguments, load the data and connect. Raises `ValueError` or `OSError` for a mistake of the user."""
    if arguments.run is not None:
        run = Path(arguments.run).resolve()
        facts = read_run(run)
        task = TASKS[facts["task"]]
        best = rank_trials(started_trials(read_study(run / "study.journal")))[: arguments.top]
        if not best:
            raise ValueError(f"{arguments.run} has no trial that scored: continue it with --resume")
        files = {name: facts["arguments"][name] for name in ("victim", "weights")}  # they may have moved meanwhile
        configs = []
        for values in (trial.user_attrs[Attr.CONFIG] for trial in best):
            moved = {name: file for name, file in files.items() if name in values and file is not None}
            configs.append(task.config.from_dict(values | moved))
        candidates = [(f"trial {t.number}", config) for t, config in zip(best, configs, strict=True)]
        source, use_val = arguments.data or facts["arguments"]["data"], facts["arguments"]["use_val"]
        data = load(source, image_size=configs[0].image_size, use_val=use_val, progress=reading(say))
        if data.fingerprint != facts["data"]["fingerprint"]:
            raise ValueError(f"the data at {source} are not those of {arguments.run}: give the same set with --data")
        data = data.with_split(facts["split"]["train"], facts["split"]["val"])
    else:
        task, config = _read_config(Path(arguments.config))
        candidates = [(str(arguments.config), config)]
        source = arguments.data
        data = load(source, image_size=config.image_size, progress=reading(say))
        run = Path(arguments.out or f"runs/{task.name}-final").resolve()
    for _, config in candidates:
        task.module.check(config, data)
        if getattr(config, "weights", "none") != "none":  # downloads them
            task.module.new_model(config, data)
    baseline = task.baseline(data, candidates[0][1].to_dict())
    folder = run / "final"
    wanted = {"trials": len(candidates) * arguments.seeds, **vars(arguments)}
    writable = next(p for p in (folder, *folder.parents) if p.exists())
    address = resolve_address(arguments.address)
    resources = share_resources(connection.available(address, writable), wanted)
    folder.mkdir(parents=True, exist_ok=True)
    lock(folder)
    if address is None:
        say("starting Ray")
    connection.connect(address, resources.total_cpus)

    return Plan(folder, task, source, data, candidates, arguments.seeds, arguments, baseline, resources)


def finish(plan: Plan) -> int:
    """Do the plan, continuing what an interrupted call left. Returns the exit status."""
    started = time.monotonic()
    say(f"{len(plan.candidates)} configurations × {plan.seeds} seeds, {plan.resources.concurrent} at a time")
    with Interrupt() as interrupt:
        try:
            jobs = [job for name, config in plan.candidates for job in _retrainings(plan, name, config)]
            train_all(jobs, plan.task, plan.data, resources=plan.resources, interrupt=interrupt)
            winner, calibration = _choose(plan)
            _train_final(plan, winner, calibration, interrupt)
        except KeyboardInterrupt:
            print("stopped; the same command continues it")
            return 128 + (interrupt.signal or 2)
        except (RuntimeError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    metric = plan.task.metric
    print(
        f"{metric} {with_error(winner['score'], winner['standard_error'])} over {plan.seeds} seeds"
        f" ({plan.task.baseline_name} {plan.baseline[metric]:.4f}), {winner['name']}, {winner['epochs']} epochs"
    )
    for name, value in winner["original_size"].items():
        print(f"at the images' original sizes {name} {value:.4f}")
    spent = duration(time.monotonic() - started)
    print(f"{typed(plan.folder)}/final.pt trained on all {len(plan.data.ids)} images in {spent}")
    if plan.task.submitted:
        place = f"--data {shlex.quote(plan.source)} --{plan.task.name} {typed(plan.folder.parent)}"
        print(f"next: python -m search.submit {place}")
    return 0


def _retrainings(plan: Plan, name: str, config: TrainConfig) -> list[Job]:
    """The trainings of a candidate, one per seed; none of the seeds is the search's."""
    configs = [dataclasses.replace(config, seed=config.seed + number) for number in range(1, plan.seeds + 1)]
    return [Job(f"{name}, seed {c.seed}", c, _place(plan, c)) for c in configs]


def _choose(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write final.json, every candidate's scores; returns the winner by their mean, and its calibration."""
    metric = plan.task.metric
    candidates = []
    for name, config in plan.candidates:
        folders = [job.folder for job in _retrainings(plan, name, config)]
        histories, diverged = zip(*map(read_result, folders), strict=True)
        if any(diverged):
            print(f"{name} is left out: {sum(map(bool, diverged))} of its {plan.seeds} trainings diverged")
            continue
        curves = [[metrics[metric] for metrics in history] for history in histories]
        shortest = min(map(len, curves))
        mean_curve = np.mean([curve[:shortest] for curve in curves], axis=0)
        epochs = int(mean_curve.argmax()) + 1
        candidates.append(
            {
                "name": name,
                "config": config.to_dict(),
                "epochs": epochs,
                **_mean([curve[epochs - 1] for curve in curves]),
                "best": _mean([max(curve) for curve in curves]),
                "last": _mean([curve[-1] for curve in curves]),
                "metrics": _mean_metrics([history[epochs - 1] for history in histories]),
                "lr_by_epoch": np.mean(
                    [[m["lr"] for m in history[:shortest]] for history in histories], axis=0
                ).tolist(),
                "original_size": _mean_metrics([_at_original_size(plan, folder) for folder in folders]),
                "folders": [folder.name for folder in folders],
            }
        )
    if not candidates:
        raise RuntimeError("every configuration diverged with another seed: search on, with --resume")
    winner = max(candidates, key=lambda candidate: candidate["score"])
    held_out = [dict(np.load(plan.folder / "trainings" / name / PREDICTIONS)) for name in winner["folders"]]
    calibration = plan.task.calibrate({key: np.concatenate([part[key] for part in held_out]) for key in held_out[0]})
    write_json(
        plan.folder / "final.json",
        {
            "task": plan.task.name,
            "metric": metric,
            "score": winner["score"],
            "standard_error": winner["standard_error"],
            "epochs": winner["epochs"],
            "winner": winner["name"],
            "seeds": plan.seeds,
            "baseline": plan.baseline,
            "original_size": winner["original_size"],
            **calibration,
            "candidates": candidates,
        },
    )
    return winner, calibration


def _train_final(plan: Plan, winner: dict[str, Any], calibration: dict[str, Any], interrupt: Any) -> None:
    """Train the winner on all labeled images and write final.pt."""
    config = plan.task.config.from_dict(winner["config"] | {"patience": None})
    if config.schedule == "plateau":  # what it did is known only with validation
        rates = winner["lr_by_epoch"]
        dropped = dict.fromkeys(("gamma", "plateau_patience", "warmup_epochs"))
        values = {k: v for k, v in config.to_dict().items() if k not in dropped}
        config = plan.task.config.from_dict(
            values | {"schedule": "replay", "lr_by_epoch": rates, "lr": max(rates), "epochs": len(rates)}
        )
    folder = _place(plan, config, all_labeled=True, epochs=winner["epochs"])
    say(f"training {winner['name']} on all {len(plan.data.ids)} images, {winner['epochs']} epochs")
    train_all(
        [Job(f"{winner['name']}, all images", config, folder)],
        plan.task,
        plan.data.all_train(),
        resources=plan.resources,
        interrupt=interrupt,
        stop_after=winner["epochs"],
    )
    if diverged := read_result(folder)[1]:
        raise RuntimeError(f"the training on all images {diverged}: give --top more configurations to choose from")
    saved = read_torch(folder / WEIGHTS)
    del saved["predictions"], saved["score"]
    score = {"score": winner["score"], "standard_error": winner["standard_error"]}
    write_torch(plan.folder / "final.pt", saved | calibration | score | {"metrics": winner["metrics"]})


def _at_original_size(plan: Plan, folder: Path) -> dict[str, float]:
    """Metrics at the images' original sizes of a retraining's best epoch, whose weights are dropped then."""
    file = folder / ORIGINAL
    if not file.exists():
        write_json(file, plan.task.at_original_size(read_torch(folder / WEIGHTS), plan.data))
    (folder / WEIGHTS).unlink(missing_ok=True)
    return json.loads(file.read_text())


def _mean_metrics(metrics: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each validation metric."""
    return {key: float(np.mean([m[key] for m in metrics])) for key in metrics[0] if key.startswith("val_")}


def _mean(scores: list[float]) -> dict[str, Any]:
    spread = float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None
    return {"score": float(np.mean(scores)), "standard_error": spread, "scores": scores}


def _read_config(path: Path) -> tuple[Task, TrainConfig]:
    """Task and configuration of a best.json."""
    try:
        best = json.loads(path.read_text())
        return TASKS[best["task"]], TASKS[best["task"]].config.from_dict(best["config"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise ValueError(f"--config takes a best.json with task and config, but {path} is not one") from None


def _place(plan: Plan, config: TrainConfig, **work: Any) -> Path:
    """The folder of a training, named by all that decides its result."""
    text = json.dumps([plan.data.fingerprint, plan.data.train.tolist(), config.to_dict(), work], sort_keys=True)
    return plan.folder / "trainings" / hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
