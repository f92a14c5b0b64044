"""The running search: study, run folder, Ray and display, put together."""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from search.cluster.asha import StudyASHA
from search.cluster.execution import Ticker, execute
from search.cluster.interrupt import Interrupt
from search.cluster.searcher import LOST, SAME_FAILURES, StudySearcher
from search.cluster.trackers import make_tracker
from search.cluster.worker import Job
from search.run_folder.files import StorageError
from search.run_folder.location import local_copy
from search.run_folder.paths import RunPaths, training_name
from search.running.cost import fits_in, portfolio_operations
from search.running.live import Progress
from search.running.publishing import Publisher
from search.running.upkeep import Stopwatch, Upkeep
from search.session.folder import SUBFOLDERS
from search.session.session import Session
from search.study.journal import RECORD, open_study, read_study, sync
from search.study.sampler import PRUNING_SAMPLERS, SeededSampler
from search.study.trials import Attr, asha_rungs, portfolio_numbers, rank_trials, started_trials
from search.text import first_line
from search.trial.device import MachineError

WARM_STARTS = 5  # configurations taken from another run


class SearchFailed(RuntimeError):
    """The search cannot go on. The message is one line that tells the cause and what to do."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    best: FrozenTrial | None
    finished: int  # trials
    missing: int  # trials that were asked for and have not ended
    exhausted: bool  # the space has no more configurations
    broken: str | None  # why trials failed in a row, which ended the search
    signal: int | None  # that stopped it
    seconds: float  # over all parts of the run


def run_search(session: Session, dashboard: str) -> Outcome:
    """Run what is left of a session on the connected cluster. Raises `SearchFailed`."""
    try:
        return _run(session, open_run_study(session), dashboard)
    except (OSError, MachineError) as error:
        raise SearchFailed(_machine_failure(session, error)) from None


def _run(session: Session, study: optuna.Study, dashboard: str) -> Outcome:
    publisher, stopwatch = Publisher(session.paths, session.task, study), Stopwatch(session)
    mirror = session.paths.mirror
    scheduler = _scheduler(session, study, publisher)
    publisher.update()
    upkeep = Upkeep(functools.partial(sync, session.paths.journal), publisher.write_trials, stopwatch.save)
    searcher = _searcher(session, study, publisher, stopwatch, upkeep)
    progress = Progress(
        study,
        head=f"{session.paths.place} | {session.resources.concurrent} at a time | {dashboard}",
        workload=session.workload,
        spent=searcher.spent,
        metric=session.task.metric,
        deadline=stopwatch.deadline,
        quiet=session.reporter.quiet,
        trouble=lambda: None if mirror is None else mirror.trouble,
    )

    def stops() -> bool:
        if interrupt.signal is not None:
            progress.stopping(session.command)
        return bool(interrupt.signal or searcher.halted or (mirror and mirror.lost)) or stopwatch.seconds_left() < 0

    def step() -> None:
        progress.tick()
        if searcher.halted is None:
            with searcher.halting():
                upkeep.tick()

    with Interrupt() as interrupt, progress:
        if not session.complete:
            execute(
                searcher,
                scheduler,
                data=session.data,
                task=session.task,
                paths=session.paths,
                rungs=asha_rungs(session.record.epochs) if scheduler else (),
                resources=session.resources,
                stop=stops,
                tracker=make_tracker(session.options.log, session.paths.folder, session.reporter.warning),
                ticker=Ticker(on_start=progress.training_starts, on_loss=searcher.on_loss, on_step=step),
            )
    if searcher.halted:
        raise searcher.halted
    if mirror is not None and mirror.lost is not None:
        raise mirror.lost
    stopwatch.save()
    publisher.update(waits=True)
    return _outcome(session, study, searcher, stopwatch, interrupt.signal)


def _outcome(
    session: Session, study: optuna.Study, searcher: StudySearcher, stopwatch: Stopwatch, signal: int | None
) -> Outcome:
    broken = None
    if searcher.broken is not None:
        broken = f"{SAME_FAILURES} trials in a row failed: {searcher.broken} (see {session.paths.place}/logs)"
    trials = started_trials(study)
    lost = [t.number for t in trials if not t.state.is_finished() and Attr.LOST in t.user_attrs]
    if lost and broken is None and signal is None and stopwatch.seconds_left() > 0:
        names = f"trial{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))}"
        broken = f"{names}: {LOST}, then continue with: {session.command}"
    finished = sum(t.state.is_finished() for t in trials)
    exhausted = searcher.exhausted and signal is None
    missing = 0 if exhausted else max(0, session.options.trials - finished)
    best = next(iter(rank_trials(trials)), None)
    return Outcome(best, finished, missing, exhausted, broken, signal, stopwatch.seconds)


def _searcher(
    session: Session, study: optuna.Study, publisher: Publisher, stopwatch: Stopwatch, upkeep: Upkeep
) -> StudySearcher:
    def changed(trial: FrozenTrial) -> None:
        upkeep.stale = True
        if trial.state.is_finished():
            sync(session.paths.journal)  # before files are deleted that an unfinished trial needs
            publisher.trial_ended(trial)

    def configure(trial: optuna.Trial) -> Job:
        config = session.problem.config(trial).to_dict()
        trial.set_user_attr(Attr.CONFIG, config)
        alone = Attr.ALONE in trial.user_attrs
        return Job(trial.number, config, trial.params, min_score=publisher.score_worth_keeping(), alone=alone)

    searcher = StudySearcher(
        study,
        paths=session.paths,
        configure=configure,
        metric=session.task.metric,
        epochs=session.record.epochs,
        trials=session.options.trials,
        worst=session.task.worst,
        on_change=changed,
        shares_gpus=0 < session.resources.gpus < 1,
    )
    if session.options.time_budget is not None and not session.complete:
        session.reporter.status("estimating the cost of the best-known recipes")
        operations = portfolio_operations(session.problem, session.data)
        begun = functools.partial(started_trials, study)
        searcher.fits = fits_in(stopwatch.seconds_left, operations, session.record.epochs, begun, searcher.spent)
    return searcher


def _scheduler(session: Session, study: optuna.Study, publisher: Publisher) -> StudyASHA | None:
    """ASHA with the rungs of the run's earlier parts; None for samplers that learn from complete trials only."""
    if session.options.sampler not in PRUNING_SAMPLERS:
        return None
    scheduler = StudyASHA(
        metric=session.task.metric,
        epochs=session.record.epochs,
        protected=portfolio_numbers(study),  # the search must not end below them, and some start slowly
        noise=publisher.noise,
    )
    scheduler.refill(study)
    return scheduler


def _machine_failure(session: Session, error: OSError | MachineError) -> str:
    """How the machine failed and what to do; trials that have not ended are unfinished."""
    if isinstance(error, MachineError):
        cause = str(error)
    elif isinstance(error, ConnectionError):  # to Ray
        cause = f"{first_line(error)}: check that the cluster runs"
    else:
        failure = StorageError.of(Path(error.filename or session.paths.folder), error)
        cause = f"{failure}: {failure.repair}"
    if session.paths.record.exists():
        return f"{cause}, then continue with: {session.command}"
    shutil.rmtree(session.paths.folder, ignore_errors=True)  # it has not begun
    return f"{cause}, then run the command again"


def open_run_study(session: Session) -> optuna.Study:
    """The run's study. A new run's folder is filled with it, and run.json last: a folder with run.json is complete."""
    paths, options = session.paths, session.options
    sampler = SeededSampler(options.sampler, options.seed, session.problem.pins)
    if session.resumed:
        study = open_study(paths.journal, sampler, session.record.id)
        study.set_user_attr(RECORD, session.record.to_json())
        if paths.mirror is not None:  # it may have more than the journal that it had, whose trials begin again
            begun = [t.number for t in study.trials if Attr.CONFIG in t.user_attrs]
            paths.mirror.keep_checkpoints(map(training_name, begun))
        return study
    for name in SUBFOLDERS:
        (paths.folder / name).mkdir()
    if options.space is not None:
        shutil.copy(options.space, paths.space)
    study = open_study(paths.journal, sampler, session.record.id)
    study.set_user_attr(RECORD, session.record.to_json())
    for name, entry in session.problem.portfolio():
        study.enqueue_trial(entry, user_attrs={Attr.ORIGIN: name})
    if options.warm_start is not None:
        other = local_copy(options.warm_start)
        best = rank_trials(started_trials(read_study(RunPaths(other).journal)))[:WARM_STARTS]
        for trial in best:
            if (entry := session.problem.fitting(trial.params)) is not None:
                study.enqueue_trial(entry, user_attrs={Attr.ORIGIN: f"{other.name}, trial {trial.number}"})
    session.record.write(paths)
    return study
