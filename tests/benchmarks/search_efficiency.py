"""What a search finds for its epochs: our searcher, sampler and scheduler over recorded learning curves, as JSON.

python tests/benchmarks/search_efficiency.py [--tables …] [--variants …] [--seeds 40] takes the tables of
record_curves.py. `StudySearcher`, `StudyASHA`, `SeededSampler` and the study are the product's; in place of Ray Tune, a
loop plays WORKERS workers for whom every epoch takes as long, and an epoch's score is looked up. A search sees one
split and one training seed of its table, and goes on until it has spent the epochs of 60 full trainings.

What it hands over, the configuration with the best score so far, is judged by its true quality. Its `regret` is how far
that is below the table's best configuration, and is the sum of three parts: `drawing`, up to the best configuration
that the search started; `pruning`, from there to the best one that it trained to the end; and `choosing`. With the same
trials, it is `smoothed` if the choice is by the best mean of three epochs, and `raced` if the last 81 epochs of the
budget train the best three again, with another seed. Each is a mean over the search seeds with its standard error,
after 5, 20 and 60 full trainings. `lead` is the lead over random search without pruning, seed by seed. `speedup` is how
many times fewer epochs it takes to random search's regret after 20 and 60; null if it never gets there.
"""

import argparse
import heapq
import json
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from record_curves import EPOCHS, SEEDS, SPLITS, Table, configurations, read_table

from search.cluster.asha import StudyASHA
from search.cluster.searcher import StudySearcher
from search.cluster.worker import Job
from search.run_folder.paths import RunPaths
from search.study.sampler import SeededSampler
from search.study.trials import Attr, asha_rungs

WORKERS = 4
BUDGETS = (5, 20, 60)  # full trainings
METRIC = "score"
MEAN, RACE = 3, 3  # epochs that a smoothed score is the mean of, and configurations in a race


class Unguarded(StudyASHA):
    """Prunes whatever the trials that run whole say, of which there are none."""

    def on_trial_result(self, tune_controller: object, trial: object, result: dict) -> str:
        by_number = SimpleNamespace(trial_id=trial.config["training"])
        return ASHAScheduler.on_trial_result(self, tune_controller, by_number, result)


class Late(Unguarded):
    """Prunes only after a third of the epochs."""

    def on_trial_result(self, tune_controller: object, trial: object, result: dict) -> str:
        stops = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result["epoch"] == asha_rungs(EPOCHS)[0] else stops


VARIANTS: dict[str, tuple[str, type[StudyASHA] | None]] = {  # sampler and scheduler
    "random": ("random", None),
    "search": ("tpe", StudyASHA),  # by default
    "tpe, unguarded": ("tpe", Unguarded),
    "tpe, late": ("tpe", Late),
    "tpe, unpruned": ("tpe", None),
    "random, guarded": ("random", StudyASHA),
    "random, unguarded": ("random", Unguarded),
    "random, late": ("random", Late),
}


class Log(NamedTuple):
    """Each epoch that was trained, in the order in which they ended."""

    config: np.ndarray  # its row in the table
    epoch: np.ndarray
    score: np.ndarray


class Tried(NamedTuple):
    """A simulated trial of Ray Tune."""

    trial_id: str
    config: dict


def search(table: Table, seed: int, sampler: str, kind: type[StudyASHA] | None, epochs: int) -> Log:
    """A search with a budget of epochs."""
    scores = table.curves[:, seed % SPLITS, seed // SPLITS % SEEDS]
    rows = {tuple(config.values()): row for row, config in enumerate(configurations(table.grid))}
    study = optuna.create_study(direction="maximize", sampler=SeededSampler(sampler, seed, {}))

    def configure(trial: optuna.Trial) -> Job:
        drawn = {name: suggest(trial, name, values) for name, values in table.grid.items()}
        trial.set_user_attr(Attr.CONFIG, drawn)
        return Job(trial.number, drawn, drawn, 0.0)

    searcher = StudySearcher(
        study,
        paths=RunPaths(Path("run")),
        configure=configure,
        metric=METRIC,
        epochs=EPOCHS,
        trials=len(scores),
        worst=0.0,
        on_change=lambda trial: None,
    )
    scheduler = kind and kind(metric=METRIC, epochs=EPOCHS)
    log: list[tuple[int, int, float]] = []
    now, running = 0.0, []  # (when its epoch ends, order, trial, epoch)

    def start(order: int) -> None:
        if (job := searcher.suggest(str(order))) != Searcher.FINISHED:
            tried = Tried(str(order), job)
            if scheduler:
                scheduler.on_trial_add(None, tried)
            heapq.heappush(running, (now + 1, order, tried, 1))

    for order in range(WORKERS):
        start(order)
    while running and len(log) < epochs:
        now, order, tried, epoch = heapq.heappop(running)
        row = rows[tuple(tried.config["config"].values())]
        score = float(scores[row, epoch - 1])
        log.append((row, epoch, score))
        result = {"epoch": epoch, METRIC: score, "hostname": "simulated", "pid": 0}
        goes_on = scheduler is None or scheduler.on_trial_result(None, tried, result) == TrialScheduler.CONTINUE
        if epoch == EPOCHS or not goes_on:
            searcher.on_trial_complete(tried.trial_id, result)
            order += WORKERS
            start(order)
        else:
            searcher.on_trial_result(tried.trial_id, result)
            heapq.heappush(running, (now + 1, order, tried, epoch + 1))
    assert searcher.halted is None, searcher.halted
    return Log(*map(np.array, zip(*log, strict=True)))


def suggest(trial: optuna.Trial, name: str, values: Sequence[float]) -> float:
    """A value of the grid; all but the schedule are ordered."""
    if name == "schedule":
        return trial.suggest_categorical(name, values)
    return values[trial.suggest_int(name, 0, len(values) - 1)]


def parts(log: Log, table: Table, seed: int, epochs: int) -> dict[str, float]:
    """The regret after that many epochs, its parts, and what it would be with other choices."""
    quality = table.quality
    config, epoch, score = (column[:epochs] for column in log)
    handed, best, drawn = quality[config[score.argmax()]], quality.max(), quality[config].max()
    whole = max(handed, *quality[config[epoch == EPOCHS]])
    found = {"regret": best - handed, "drawing": best - drawn, "pruning": drawn - whole, "choosing": whole - handed}
    means = {row: np.convolve(score[config == row], np.ones(MEAN) / MEAN, "valid") for row in np.unique(config)}
    smooth = max(means, key=lambda row: means[row].max(initial=0) if len(means[row]) >= MEAN else 0)
    return found | {"smoothed": best - quality[smooth], "raced": best - quality[raced(log, table, seed, epochs)]}


def raced(log: Log, table: Table, seed: int, epochs: int) -> int:
    """The best of RACE configurations by the mean of two training seeds; the last epochs pay for the second."""
    config, _, score = (column[: epochs - RACE * EPOCHS] for column in log)
    reached = {row: score[config == row].max() for row in np.unique(config)}
    few = sorted(reached, key=reached.__getitem__)[-RACE:]
    again = table.curves[few, seed % SPLITS, (seed // SPLITS + 1) % SEEDS].max(1)
    return max(zip(few, again, strict=True), key=lambda pair: reached[pair[0]] + pair[1])[0]


def regret_by_epoch(log: Log, quality: np.ndarray) -> np.ndarray:
    """After each epoch, and the last one's until the budget is spent, if the table is exhausted."""
    best = np.maximum.accumulate(log.score)
    first = np.flatnonzero(np.diff(best, prepend=-1.0) > 0)
    holder = first[np.searchsorted(first, np.arange(len(best)), side="right") - 1]
    regret = quality.max() - quality[log.config[holder]]
    return np.pad(regret, (0, EPOCHS * BUDGETS[-1] - len(regret)), mode="edge")


def run(table: str, variant: str, seed: int) -> tuple[list[dict[str, float]], np.ndarray]:
    """The parts of the regret at each budget, and the regret by epoch."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    found = cache(read_table)(table)
    log = search(found, seed, *VARIANTS[variant], epochs=EPOCHS * BUDGETS[-1])
    return [parts(log, found, seed, EPOCHS * b) for b in BUDGETS], regret_by_epoch(log, found.quality)


def with_error(values: np.ndarray) -> list[float]:
    """Mean and standard error."""
    return [round(float(values.mean()), 4), round(float(values.std(ddof=1) / len(values) ** 0.5), 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=["digits", "crossing", "voc"])
    parser.add_argument("--variants", nargs="+", help="all by default")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for table in arguments.tables:
            random: tuple[list[list[dict[str, float]]], np.ndarray] | None = None
            for variant in dict.fromkeys(["random", *(arguments.variants or VARIANTS)]):
                begin = time.monotonic()
                found, curves = zip(*pool.map(partial(run, table, variant), range(arguments.seeds)), strict=True)
                by_epoch = np.array(curves)
                random = random or (found, by_epoch)
                line: dict[str, object] = {"table": table, "variant": variant}
                for i, budget in enumerate(BUDGETS):
                    each = {name: np.array([f[i][name] for f in found]) for name in found[0][i]}
                    each["lead"] = np.array([f[i]["regret"] for f in random[0]]) - each["regret"]
                    line[f"after {budget}"] = {name: with_error(values) for name, values in each.items()}
                line["speedup"] = {b: speedup(by_epoch, random[1], EPOCHS * b) for b in BUDGETS[1:]}
                print(json.dumps(line | {"seconds": round(time.monotonic() - begin)}), flush=True)


def speedup(regret: np.ndarray, random: np.ndarray, epochs: int) -> float | None:
    """How many times fewer epochs are needed to the mean regret that random search has after that many."""
    reached = np.flatnonzero(regret.mean(0) <= random[:, epochs - 1].mean())
    return round(epochs / (int(reached[0]) + 1), 2) if len(reached) else None


if __name__ == "__main__":
    main()
