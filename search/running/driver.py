"""The search itself: the study, its folder, Ray and what is shown, put together."""

import functools
import math
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import optuna

from search.cluster.asha import StudyASHA
from search.cluster.connection import first_line
from search.cluster.execution import execute
from search.cluster.interrupt import Interrupt
from search.cluster.searcher import SAME_FAILURES, StudySearcher
from search.report.page import write_report
from search.run_folder.files import StorageError, read_torch, typed, write_json
from search.running.cost import fits_in, portfolio_operations
from search.running.live import Progress, describe
from search.running.publishing import RunFolder, lock
from search.session.session import Session, announce
from search.study.journal import open_study, read_study
from search.study.sampler import PRUNING_SAMPLERS, SeededSampler
from search.study.trials import Attr, portfolio_numbers, rank_trials, started_trials

WARM_STARTS = 5  # configurations taken from another run


def search(session: Session, dashboard: str) -> int:
    """Run what is left of a session on the connected cluster. Returns the exit status, see `search.run.main`."""
    try:
        study = _study(session)
        return _run(session, study, dashboard)
    except OSError as error:
        return _halt(session, error)


def _run(session: Session, study: optuna.Study, dashboard: str) -> int:
    arguments, task = session.arguments, session.problem.task
    folder, stopwatch = RunFolder(session.folder, task, study), Stopwatch(session)
    scheduler = _scheduler(session, study, folder)
    folder.update()
    searcher = _searcher(session, study, folder, stopwatch)
    progress = Progress(
        study,
        head=f"{typed(session.folder)} | {session.resources.concurrent} at a time | {dashboard}",
        plan=session.plan,
        spent=searcher.spent,
        metric=task.metric,
        deadline=stopwatch.deadline,
        quiet=arguments["quiet"],
    )
    with Interrupt() as interrupt, progress:
        if not session.complete:
            execute(
                searcher,
                scheduler,
                data=session.data,
                task=task.name,
                run=session.folder,
                resources=session.resources,
                stop=lambda: bool(interrupt.signal or searcher.halted) or stopwatch.seconds_left() < 0,
                progress=progress,
            )
    if searcher.halted:
        raise StorageError(searcher.halted)
    stopwatch.save()
    folder.update()
    if interrupt.signal is None:  # who stops it does not want to wait
        announce(arguments, "writing the report")
        _look_back(session)
    return _conclude(session, study, searcher, interrupt.signal)


class Stopwatch:
    """The seconds that a run has taken, its earlier parts included, and those that its time budget leaves."""

    def __init__(self, session: Session):
        self.session, self.before, self.started = session, session.facts["seconds"], time.monotonic()
        self.deadline = self.started + (session.arguments["time_budget"] or math.inf) - self.before  # monotonic

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def save(self) -> None:
        """Write run.json."""
        self.session.facts["seconds"] = round(self.before + time.monotonic() - self.started, 1)
        write_json(self.session.folder / "run.json", self.session.facts)


def _searcher(session: Session, study: optuna.Study, folder: RunFolder, stopwatch: Stopwatch) -> StudySearcher:
    arguments = session.arguments

    def changed(trial: optuna.trial.FrozenTrial) -> None:
        if trial.state.is_finished():
            folder.update()
            stopwatch.save()

    def configure(trial: optuna.Trial) -> dict[str, Any]:
        config = session.problem.config(trial).to_dict()
        trial.set_user_attr(Attr.CONFIG, config)
        return {"number": trial.number, "config": config, "params": trial.params, "bar": folder.bar()}

    searcher = StudySearcher(
        study,
        folder=session.folder,
        configure=configure,
        metric=session.problem.task.metric,
        epochs=arguments["epochs"],
        trials=arguments["trials"],
        worst=session.problem.task.worst,
        on_change=changed,
    )
    if arguments["time_budget"] is not None and not session.complete:
        announce(arguments, "estimating the cost of the best-known recipes")
        operations = portfolio_operations(session.problem, session.data)
        begun = functools.partial(started_trials, study)
        searcher.fits = fits_in(stopwatch.seconds_left, operations, arguments["epochs"], begun, searcher.spent)
    return searcher


def _scheduler(session: Session, study: optuna.Study, folder: RunFolder) -> StudyASHA | None:
    """ASHA with the rungs of the run's earlier parts; None for samplers that learn from complete trials only."""
    if session.arguments["sampler"] not in PRUNING_SAMPLERS:
        return None
    scheduler = StudyASHA(
        metric=session.problem.task.metric,
        epochs=session.arguments["epochs"],
        whole=portfolio_numbers(study),  # slow starters are among them, and the search's floor is theirs
        noise=folder.noise,
    )
    scheduler.refill(study)
    return scheduler


def _halt(session: Session, error: OSError) -> int:
    """Say how the machine failed and how to go on; what has not ended is unfinished. Returns the exit status."""
    if isinstance(error, ConnectionError):  # to Ray
        cause = f"{first_line(error)}: see that the cluster runs"
    else:
        cause = f"{StorageError.of(session.folder, error)}: free space there or make it writable"
    again = f"continue with: {session.command}"
    if not (session.folder / "run.json").exists():  # it has not begun
        shutil.rmtree(session.folder, ignore_errors=True)
        again = "run the command again"
    print(f"error: {cause}, then {again}", file=sys.stderr)
    return 1


def _look_back(session: Session) -> None:
    """Make the tables, pictures and report of what was found; they can be made later, and nothing depends on them."""
    try:
        if (best := read_torch(session.folder / "best.pt")) is not None:
            session.problem.task.conclude(session.folder, best, session.data)
        print(f"report {typed(write_report(session.folder, session.data))}")
    except KeyboardInterrupt:
        print("stopped before the report was made")
    except Exception as error:
        print(f"warning: no report: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)


def _study(session: Session) -> optuna.Study:
    """The run's study; a new run's folder is filled with it, and run.json last: what has one is complete."""
    sampler = SeededSampler(session.arguments["sampler"], session.arguments["seed"], session.problem.pins)
    journal = session.folder / "study.journal"
    if session.resumed:
        return open_study(journal, sampler)
    for name in ("logs", "checkpoints"):
        (session.folder / name).mkdir()
    lock(session.folder)
    if session.arguments["space"] is not None:
        shutil.copy(session.arguments["space"], session.folder / "space.py")
    study = open_study(journal, sampler)
    for name, entry in session.problem.portfolio():
        study.enqueue_trial(entry, user_attrs={Attr.ORIGIN: name})
    if (other := session.arguments["warm_start"]) is not None:
        best = rank_trials(started_trials(read_study(Path(other) / "study.journal")))[:WARM_STARTS]
        for trial in best:
            if (entry := session.problem.fitting(trial.params)) is not None:
                study.enqueue_trial(entry, user_attrs={Attr.ORIGIN: f"{Path(other).name}, trial {trial.number}"})
    write_json(session.folder / "run.json", session.facts)
    return study


def _conclude(session: Session, study: optuna.Study, searcher: StudySearcher, signal: int | None) -> int:
    """Say how it ended and what to type next; the exit status."""
    facts, run = session.facts, typed(session.folder)
    best = next(iter(rank_trials(started_trials(study))), None)
    if best is not None:
        print(f"best {facts['metric']} {describe(best)}")
        print(f"{session.problem.task.baseline_name} {facts['baseline'][facts['metric']]:.4f} | run folder {run}")
    if searcher.broken is not None:
        print(f"error: {SAME_FAILURES} trials in a row failed: {searcher.broken} (see {run}/logs)", file=sys.stderr)
        return 1
    finished = sum(t.state.is_finished() for t in started_trials(study))
    missing = max(0, session.arguments["trials"] - finished)
    if searcher.exhausted and signal is None:
        print(f"the space has only {finished} configurations: all of them have been tried")
        missing = 0
    if missing:
        budget = session.arguments["time_budget"]
        longer = f" --time-budget {2 * math.ceil(facts['seconds'])}s" if budget and facts["seconds"] >= budget else ""
        print(f"stopped with {missing} trials to go; continue with: {session.command}{longer}")
        if signal is not None:
            print(f"look at it with: python -m search.report {run}")
    if signal is not None:
        return 128 + signal
    if best is None:
        print(f"error: no trial has scored: see {run}/trials.csv and {run}/logs", file=sys.stderr)
        return 1
    if not missing:
        print(f"next: python -m search.final {run}")
        if session.problem.task.submitted:
            data = shlex.quote(session.arguments["data"])
            print(f"      python -m search.submit --data {data} --{facts['task']} {run}")
    return 0
