"""A call of `search.final`, checked before anything starts, with the configurations to choose from."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.cluster import connection
from search.cluster.address import resolve_address
from search.cluster.resources import Resources, share_resources
from search.cluster.sharing import for_workers
from search.reporter import Reporter
from search.result_options import FEW_IMAGES, FinalOptions
from search.run_folder.files import read_json
from search.run_folder.location import locate, restore
from search.run_folder.lock import RunLock, lock
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from search.selection.retraining import Retraining, training_name
from search.session.images import default_store_size, load_images
from search.study.journal import read_study
from search.study.trials import Attr, best_epoch, portfolio_numbers, rank_trials, started_trials
from search.tasks import Baseline, Task, find_task
from search.tasks.pretrained import NONE, is_named
from search.text import duration
from voctrain.config import TrainConfig
from voctrain.data import Data, load
from voctrain.self_training import Unlabeled, read_unlabeled, unlabeled_of

FOLDS = 5
SEEDS = 3  # of each configuration without folds


@dataclass(frozen=True)
class Finalist:
    """A configuration to retrain."""

    name: str
    config: TrainConfig
    epochs: int
    seconds: float | None = None  # that a training is expected to take
    is_default: bool = False  # whether it is the first recipe of the portfolio


@dataclass(frozen=True)
class Selection:
    """A checked call of `search.final`."""

    paths: RunPaths  # of the run
    task: Task
    source: str  # of the data, as --data takes it
    data: Data
    finalists: list[Finalist]  # the best of the search first
    folds: list[tuple[int, int] | None]  # K of N for each; None: the split of the data
    seeds: int
    searched: frozenset[str]  # ids of images that the finalists were chosen on
    baseline: Baseline
    address: str | None
    resources: Resources
    reporter: Reporter
    lock: RunLock
    options: FinalOptions
    unlabeled: Unlabeled | None = None  # for self-training

    @property
    def default(self) -> str | None:
        """The name of the portfolio's first recipe, if it is among the finalists."""
        return next((finalist.name for finalist in self.finalists if finalist.is_default), None)

    def parts(self) -> list[Data]:
        """The data, with the split of each fold."""
        return [self.data if fold is None else self.data.fold(*fold) for fold in self.folds]

    def retrainings(self, finalist: Finalist, **work: object) -> list[Retraining]:
        """The trainings of a finalist, fold by fold and in each seed by seed; the seeds differ from the search's."""
        jobs = []
        for fold, data in zip(self.folds, self.parts(), strict=True):
            for number in range(1, self.seeds + 1):
                config = dataclasses.replace(finalist.config, seed=finalist.config.seed + number)
                training = training_name(data, config, epochs=finalist.epochs, **work)
                name = f"{finalist.name}, seed {config.seed}" + ("" if fold is None else f", fold {fold[0]}")
                jobs.append(Retraining(name, config, training, finalist.epochs, fold))
        return jobs


def open_selection(options: FinalOptions, reporter: Reporter) -> Selection:
    """Check a call and load the data. Raises `ValueError` or `OSError` for a mistake of the user."""
    if options.run is not None:
        paths = locate(options.run)
        restore(paths)
        task, source, data, finalists = _best_of_run(paths.folder, options, reporter)
        searched = frozenset(data.ids[i] for i in data.val)
    else:
        assert options.config is not None
        assert options.data is not None
        task, config, best, resize = _read_config(Path(options.config))
        config = dataclasses.replace(config, image_size=options.image_size or config.image_size)
        source, finalists, searched = options.data, [_finalist(options.config, config, best)], frozenset[str]()
        size = config.image_size
        data = load(
            source,
            image_size=size,
            store_size=default_store_size(size),
            resize=resize,
            progress=reporter.reading(),
        )
        paths = RunPaths(Path(options.out or f"runs/{task.name}-final").resolve())
    folds, seeds = _folds(task, options, data)
    for finalist in finalists:
        for fold in folds:
            task.module.check(finalist.config, data if fold is None else data.fold(*fold))
        if getattr(finalist.config, "weights", "none") != "none":  # downloads them
            task.module.new_model(finalist.config, data)
    unlabeled = _unlabeled(task, options, data, reporter.reading())
    baseline = task.baseline(data, finalists[0].config.to_dict())
    address = resolve_address(options.address)
    machines = connection.available(address, paths.final, options, reporter)
    data = for_workers(data, address)
    trainings = len(finalists) * len(folds) * seeds
    resources = share_resources(machines, options, trials=trainings, elastic=address is not None)
    finalists = affordable(finalists, len(folds) * seeds, resources.concurrent, options.time_budget)
    for name in ("logs", "history"):
        (paths.final.folder / name).mkdir(parents=True, exist_ok=True)
    return Selection(
        paths,
        task,
        source,
        data,
        finalists,
        folds,
        seeds,
        searched,
        baseline,
        address,
        resources,
        reporter,
        lock(paths.final),
        options,
        unlabeled,
    )


def _folds(task: Task, options: FinalOptions, data: Data) -> tuple[list[tuple[int, int] | None], int]:
    """The folds and the number of seeds. Raises `ValueError` for folds that the data or the task cannot have."""
    count = options.folds or (FOLDS if task.submits is not None and len(data.ids) < FEW_IMAGES else 1)
    if count == 1:
        return [None], options.seeds or SEEDS
    if task.submits is None:
        raise ValueError(f"--folds is for tasks with labels, not for {task.name}: leave it out")
    data.fold(1, count)  # raises if there are too few images
    return [(number, count) for number in range(1, count + 1)], options.seeds or 1


def affordable(finalists: list[Finalist], trainings: int, concurrent: int, budget: float | None) -> list[Finalist]:
    """The first finalists whose trainings, and the one of the final model, are expected to fit in a time budget.

    trainings: of each finalist. Raises `ValueError` if there is no time for any.
    """
    if budget is None:
        return finalists
    rounds = math.ceil(trainings / concurrent)
    costs = np.cumsum([(finalist.seconds or 0.0) * rounds for finalist in finalists])
    last = max(finalist.seconds or 0.0 for finalist in finalists)  # the final model, if the most expensive one wins
    if costs[0] + last > budget:
        raise ValueError(
            f"--time-budget must suffice for the {trainings} trainings of a configuration and one more, about"
            f" {duration(costs[0] + last)}, but got {duration(budget)}: raise it, or lower --folds or --seeds"
        )
    return [finalist for finalist, cost in zip(finalists, costs, strict=True) if cost + last <= budget]


def _unlabeled(task: Task, options: FinalOptions, data: Data, progress: Callable[[int, int], None]) -> Unlabeled | None:
    """The images for self-training, if it is asked for: those of --unlabeled, or those of the set without labels.

    Raises `ValueError` if there are none.
    """
    if not options.self_training:
        if options.unlabeled is not None:
            raise ValueError("--unlabeled is for --self-training: add that, or leave --unlabeled out")
        return None
    if task.submits is None:
        raise ValueError(f"--self-training is for tasks with labels, not for {task.name}: leave it out")
    if options.unlabeled is not None:
        return read_unlabeled(Path(options.unlabeled), data, progress)
    if not data.test_ids:
        raise ValueError("--self-training needs unlabeled images, but the set has none: give a folder with --unlabeled")
    return unlabeled_of(data)


def _best_of_run(run: Path, options: FinalOptions, reporter: Reporter) -> tuple[Task, str, Data, list[Finalist]]:
    """Task, source of the data, data and best configurations of a run."""
    record = read_run(run)
    task, size = find_task(record.task), options.image_size or record.image_size
    study = read_study(RunPaths(run).journal, record.id)
    ranked, first = rank_trials(started_trials(study)), min(portfolio_numbers(study), default=None)
    default = [trial for trial in ranked if trial.number == first]
    best = ranked[: options.top]
    if options.top > 1 and default and default[0] not in best:
        best = [*ranked[: options.top - 1], *default]
    if not best:
        raise ValueError(f"{options.run} has no trial that scored: continue it with --resume")
    files = {name: getattr(record.options, name) for name in task.files}  # they may have moved since
    finalists = []
    for trial in best:
        values = trial.user_attrs[Attr.CONFIG]
        of_file = [name for name in files if not is_named(values.get(name, NONE))]
        moved = {name: files[name] for name in of_file if files[name] is not None}
        config = task.config.from_dict(values | moved | {"image_size": size})
        seconds = None
        if Attr.SECONDS in trial.user_attrs:
            per_epoch = trial.user_attrs[Attr.SECONDS] / len(trial.intermediate_values)
            seconds = per_epoch * config.epochs * (size / record.image_size) ** 2
        finalists.append(
            _finalist(f"trial {trial.number}", config, best_epoch(trial), seconds, is_default=trial in default)
        )
    source, sized = options.data or record.options.data, record.options
    if size != record.image_size:
        sized = dataclasses.replace(sized, image_size=size, store_size=default_store_size(size))
    data = load_images(sized, source, reporter.reading())
    if data.fingerprint != record.data.fingerprint:
        raise ValueError(f"the data at {source} are not those of {options.run}: give the same set with --data")
    return task, source, data.with_split(record.split.train, record.split.val), finalists


def _finalist(
    name: str, config: TrainConfig, best: int | None, seconds: float | None = None, *, is_default: bool = False
) -> Finalist:
    """Early stopping would look at the held-out images: such a configuration trains for as long as it was best."""
    epochs = config.epochs if config.patience is None or best is None else best
    return Finalist(name, dataclasses.replace(config, patience=None), epochs, seconds, is_default)


def _read_config(path: Path) -> tuple[Task, TrainConfig, int | None, str]:
    """Task, configuration and best epoch of a best.json, and how its images became squares."""
    try:
        best = read_json(path) or {}
        task, config = find_task(best["task"]), dict(best["config"])
    except (ValueError, LookupError, TypeError, ImportError):
        raise ValueError(f"--config takes a best.json with task and config, but {path} is not one") from None
    return task, task.config.from_dict(config), best.get("epoch"), best.get("resize", "squash")
