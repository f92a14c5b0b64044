"""A call of `search.final`, checked before anything starts, with the configurations to choose from."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search.cluster import connection
from search.cluster.address import resolve_address
from search.cluster.resources import Resources, share_resources
from search.cluster.sharing import for_workers
from search.reporter import Reporter
from search.result_options import FinalOptions
from search.run_folder.files import read_json
from search.run_folder.location import locate, restore
from search.run_folder.lock import RunLock, lock
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from search.selection.retraining import Retraining, training_name
from search.session.images import default_store_size, load_images
from search.study.journal import read_study
from search.study.trials import Attr, rank_trials, started_trials
from search.tasks import Baseline, Task, find_task
from search.tasks.pretrained import NONE, is_named
from voctrain.config import TrainConfig
from voctrain.data import Data, load
from voctrain.self_training import Unlabeled, read_unlabeled, unlabeled_of


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
    unlabeled: Unlabeled | None = None  # for self-training

    def retrainings(self, name: str, config: TrainConfig, **work: object) -> list[Retraining]:
        """The trainings of a candidate, one per seed; the seeds differ from the search's."""
        configs = [dataclasses.replace(config, seed=config.seed + number) for number in range(1, self.seeds + 1)]
        teaches = self.unlabeled is not None and not work
        return [
            Retraining(f"{name}, seed {c.seed}", c, training_name(self.data, c, **work), teaches=teaches)
            for c in configs
        ]


def open_selection(options: FinalOptions, reporter: Reporter) -> Selection:
    """Check a call and load the data. Raises `ValueError` or `OSError` for a mistake of the user."""
    if options.run is not None:
        paths = locate(options.run)
        restore(paths)
        task, source, data, candidates = _best_of_run(paths.folder, options, reporter)
    else:
        assert options.config is not None
        assert options.data is not None
        task, config, resize = _read_config(Path(options.config))
        config = dataclasses.replace(config, image_size=options.image_size or config.image_size)
        source, candidates = options.data, [(options.config, config)]
        size = config.image_size
        data = load(
            source,
            image_size=size,
            store_size=default_store_size(size),
            resize=resize,
            progress=reporter.reading(),
        )
        paths = RunPaths(Path(options.out or f"runs/{task.name}-final").resolve())
    for _, config in candidates:
        task.module.check(config, data)
        if getattr(config, "weights", "none") != "none":  # downloads them
            task.module.new_model(config, data)
    unlabeled = _unlabeled(task, options, data, reporter.reading())
    baseline = task.baseline(data, candidates[0][1].to_dict())
    address = resolve_address(options.address)
    machines = connection.available(address, paths.final, options, reporter)
    data = for_workers(data, address)
    trainings = len(candidates) * options.seeds
    resources = share_resources(machines, options, trials=trainings, elastic=address is not None)
    for name in ("logs", "history"):
        (paths.final.folder / name).mkdir(parents=True, exist_ok=True)
    held = lock(paths.final)
    seeds = options.seeds
    return Selection(
        paths, task, source, data, candidates, seeds, baseline, address, resources, reporter, held, unlabeled
    )


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


def _best_of_run(
    run: Path, options: FinalOptions, reporter: Reporter
) -> tuple[Task, str, Data, list[tuple[str, TrainConfig]]]:
    """Task, source of the data, data and best configurations of a run."""
    record = read_run(run)
    task, size = find_task(record.task), options.image_size or record.image_size
    best = rank_trials(started_trials(read_study(RunPaths(run).journal, record.id)))[: options.top]
    if not best:
        raise ValueError(f"{options.run} has no trial that scored: continue it with --resume")
    files = {name: getattr(record.options, name) for name in task.files}  # they may have moved since
    candidates = []
    for trial in best:
        values = trial.user_attrs[Attr.CONFIG]
        of_file = [name for name in files if not is_named(values.get(name, NONE))]
        moved = {name: files[name] for name in of_file if files[name] is not None}
        candidates.append((f"trial {trial.number}", task.config.from_dict(values | moved | {"image_size": size})))
    source, sized = options.data or record.options.data, record.options
    if size != record.image_size:
        sized = dataclasses.replace(sized, image_size=size, store_size=default_store_size(size))
    data = load_images(sized, source, reporter.reading())
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
