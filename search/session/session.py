"""One call of `search.run`, checked before anything starts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.cluster.address import resolve_address
from search.cluster.connection import available
from search.cluster.resources import Resources, share_resources
from search.cluster.sharing import for_workers
from search.cluster.trackers import check_tracker
from search.command_line import flag, options_of
from search.option_values import check_task, checked
from search.options import SearchOptions, task_options
from search.reporter import Reporter
from search.run_folder.location import hold, local_copy, locate
from search.run_folder.lock import RunLock
from search.run_folder.paths import RunPaths
from search.run_folder.records import RunRecord, read_run
from search.session.folder import claim_folder, new_folder
from search.session.images import default_store_size, load_images, split_images
from search.session.origin import digests, new_record
from search.session.problem import Problem, make_problem
from search.session.settings import load_space, parse_settings
from search.study.journal import read_study
from search.study.sampler import PRUNING_SAMPLERS
from search.study.time_left import Workload
from search.study.trials import started_trials
from search.tasks import Task, find_task
from search.tasks.pretrained import is_named
from search.text import shell_path
from voctrain.data import DIGITS, FOLD, OWN_VAL, Data
from voctrain.data.class_names import listed

IMAGE_SIZE, EPOCHS = 300, 27
SAMPLE_IMAGE_SIZE, SAMPLE_EPOCHS = 64, 15  # of the built-in sample: minutes, not hours


@dataclass(frozen=True)
class Session:
    """A checked call, and what it needs to run."""

    paths: RunPaths
    resumed: bool
    record: RunRecord
    data: Data
    problem: Problem
    address: str | None  # of the Ray cluster to join; None starts one on this machine
    machines: list[dict[str, float]]  # that trials can run on, with their CPUs and GPUs
    resources: Resources
    ended: int  # trials of earlier parts of the run
    reporter: Reporter
    lock: RunLock | None  # None until a new run has its folder

    @property
    def options(self) -> SearchOptions:
        return self.record.options

    @property
    def task(self) -> Task:
        return self.problem.task

    @property
    def complete(self) -> bool:
        """Whether all of its trials have ended already."""
        return self.ended >= self.options.trials

    @property
    def workload(self) -> Workload:
        """For predicting how long it takes."""
        protected = range(len(self.problem.portfolio()))
        return Workload.of(self.record, concurrent=self.resources.concurrent, protected=protected)

    @property
    def command(self) -> str:
        """The command that continues the run."""
        return f"python -m search.run {self.record.task} --resume {self.paths.place}"

    def close(self) -> None:
        """Let other processes use the run."""
        if self.lock is not None:
            self.lock.release()


def open_session(task_name: str, given: Mapping[str, Any], reporter: Reporter) -> Session:
    """Check a call of `search.run` and load its data. given: the options that were typed.

    Raises `ValueError` or `OSError`, in one line, for a mistake of the user; nothing has been written then.
    """
    check_task(task_name, given)
    task, given = find_task(task_name), checked(task_options(task_name), given)
    resume = given.get("resume")
    if resume is None:
        options = _resolve(task, task_options(task_name)(**given))
        return _open(task, options, new_folder(task.name, options), None, None, reporter)
    paths = locate(resume)
    if paths.mirror is not None:
        reporter.status(f"restoring {paths.place} to {shell_path(paths.folder)}")
    held = hold(paths)
    try:
        record = read_run(paths.folder)
        options = _continued_options(task, given, record, paths)
        return _open(task, options, paths, record, held, reporter)
    except BaseException:
        held.release()
        raise


def _open(
    task: Task, options: SearchOptions, paths: RunPaths, before: RunRecord | None, held: RunLock | None, say: Reporter
) -> Session:
    """The session of a new run, or of one that continues the run `before`."""
    load_space(options.space, task)
    if options.log is not None:
        check_tracker(options.log)
    if before is None and options.warm_start is not None:
        _check_warm_start(task, local_copy(options.warm_start))
    settings = parse_settings(options.set)
    data = _load_data(options, before, say)
    _check_corrections(task, data)
    if options.sampler not in PRUNING_SAMPLERS:
        say.status(f"--sampler {options.sampler} learns from complete trials only: nothing is pruned")

    say.status("checking the search space")
    address = resolve_address(options.address)
    machines = available(address, paths, options, say)
    resources = share_resources(machines, options, trials=options.trials, elastic=address is not None)
    data = for_workers(data, address)
    device = "cuda" if resources.gpus else "cpu"
    problem = make_problem(
        task,
        data,
        space=options.space,
        settings=settings,
        device=device if before is None else before.device,  # the choices of a study must stay what they are
        left_out=None if before is None else before.left_out,
        seed=options.seed,
        epochs=options.epochs,
        image_size=options.image_size,
        **task.fixed_fields(options, data),
    )
    for note in problem.notes:
        say.status(note)
    if before is None:
        record, ended = new_record(options, data, problem), 0
        if record.track is not None:
            say.status(record.track)
    else:
        record = replace(before, options=options)
        for name, digest in digests(problem).items():
            if digest != before.digests.get(name):
                raise ValueError(
                    f"--{name} {problem.fixed[name]} is not the file that this run began with: give that file, or start"
                    " a new run"
                )
        ended = sum(t.state.is_finished() for t in started_trials(read_study(paths.journal, record.id)))
    return Session(paths, before is not None, record, data, problem, address, machines, resources, ended, say, held)


def _load_data(options: SearchOptions, before: RunRecord | None, reporter: Reporter) -> Data:
    """The data, split as the run `before` has split them."""
    if options.data == "sample":
        reporter.status("using the built-in sample, a synthetic data set of 20 classes; use yours with --data DIR")
    read = split_images if before is None else load_images
    data = read(options, progress=reporter.reading())
    reporter.status(listed(data.classes, data.class_source))
    for warning in data.warnings:
        reporter.warning(warning)
    if before is None:
        return data
    if before.data.fingerprint != data.fingerprint:
        raise ValueError(
            f"the data at {options.data} are not those of this run: give the same set with --data, or start a new run"
        )
    return data.with_split(before.split.train, before.split.val)


def _check_corrections(task: Task, data: Data) -> None:
    """Raise `ValueError` if labels are corrected that this task does not learn from."""
    corrections = None if data.source is None else data.source.corrections
    if corrections is not None and corrections.flipped and not task.flips:
        raise ValueError(
            f"--corrections can only ignore images of {task.name}, which learns from masks, but"
            f" {corrections.path} flips {len(corrections.flipped)} labels: write ignore, or correct the masks"
        )


def claim(session: Session) -> Session:
    """Create and lock a new run's folder; if an unnamed one has been taken in the meantime, another beside it."""
    if session.resumed:
        return session
    paths, held = claim_folder(session.paths, named=session.options.name is not None)
    return replace(session, paths=paths, lock=held)


def _resolve(task: Task, options: SearchOptions) -> SearchOptions:
    """The options with all that they imply."""
    options = task.resolve(options)
    sample, data, val = options.data == "sample", options.data, options.val
    if data not in ("sample", "voc2009", *DIGITS):
        data = str(Path(data).resolve())
    image_size = options.image_size or (SAMPLE_IMAGE_SIZE if sample else IMAGE_SIZE)
    return replace(
        options,
        data=data,
        val=val if val in (None, OWN_VAL) or re.fullmatch(FOLD, val) else str(Path(val).resolve()),
        classes=options.classes and str(Path(options.classes).resolve()),
        corrections=options.corrections and str(Path(options.corrections).resolve()),
        image_size=image_size,
        store_size=options.store_size or default_store_size(image_size),
        resize=options.resize or "squash",
        epochs=options.epochs or (SAMPLE_EPOCHS if sample else EPOCHS),
    )


def _continued_options(task: Task, given: Mapping[str, Any], record: RunRecord, paths: RunPaths) -> SearchOptions:
    """The run's own options, with what may change as it was typed now."""
    before = record.options
    if task.name != record.task:
        raise ValueError(f"{given['resume']} is a run of {record.task}, not of {task.name}: give {record.task}")
    # The cluster of an earlier part may be gone, and joining another one by chance is never meant.
    per_call = {"address": None, "dry_run": False, "quiet": False}
    asked = _resolve(task, replace(before, **{**per_call, **given}))
    for name in given:
        old, new = getattr(before, name), getattr(asked, name)
        by_name = name in task.files and (is_named(old) or is_named(new))  # a file may only have moved
        if old != new and (by_name or not options_of(type(before))[name].resumable):
            raise ValueError(
                f"{flag(name)} of this run is {old!r} and cannot become {new!r}: leave it out, or start a new run"
            )
    return asked if before.space is None else replace(asked, space=str(paths.space))


def _check_warm_start(task: Task, run: Path) -> None:
    """Raise `ValueError` unless this is a run whose configurations can be tried."""
    other = read_run(run)
    if other.task != task.name:
        raise ValueError(f"--warm-start takes a run of the same task, but {run} is {other.task}")
    read_study(RunPaths(run).journal)
