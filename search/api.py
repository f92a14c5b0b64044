"""The commands as functions, for notebooks and programs.

    from search import api

    run = api.search("classify", data="DIR", trials=50)
    print(run.best.score, run.trials.head())
    final = api.finalize(run, top=3)
    api.submit(data="DIR", classify=run)

The options are those of the commands (python -m search.run --help), with underscores. A mistake raises `ValueError` or
`OSError`, a failure of the machine `RuntimeError`; each message is one line.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from search.cluster.connection import RayStartError, connect, own_connection
from search.cluster.head import HeadWatch
from search.cluster.interrupt import Interrupt, Stopped
from search.option_values import checked
from search.packaging.packaging import Export, ExportFailed
from search.packaging.packaging import export as write_export
from search.prediction.prediction import Prediction, PredictionFailed
from search.prediction.prediction import predict as write_predictions
from search.report.page import write_report
from search.reporter import Reporter
from search.result_options import ExportOptions, FinalOptions, PredictOptions, SubmitOptions
from search.run_folder.files import read_torch
from search.run_folder.location import is_stored, local_copy, locate
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, EnsembleRecord, FinalRecord, RunRecord, read_best, read_run
from search.run_folder.store import StoreError
from search.run_folder.uploads import Uploads
from search.running.driver import Outcome, SearchFailed, run_search
from search.running.packing import share_gpus
from search.running.telling import tell
from search.selection.choice import select
from search.selection.retraining import SelectionFailed
from search.selection.selection import open_selection
from search.selection.telling import tell_final
from search.session.dry_run import describe_session
from search.session.session import Session, claim, open_session
from search.study.quiet import quiet_optuna
from search.submission.submission import Submission
from search.submission.submission import submit as write_submission
from search.tasks import submitted_tasks
from search.text import shell_path

__all__ = [
    "Export",
    "ExportFailed",
    "Final",
    "Prediction",
    "PredictionFailed",
    "RayStartError",
    "Run",
    "SearchFailed",
    "SelectionFailed",
    "Stopped",
    "dry_run",
    "export",
    "finalize",
    "open_run",
    "predict",
    "search",
    "submit",
]


@dataclass(frozen=True)
class Run:
    """A run in its folder, which may be running elsewhere."""

    folder: Path
    outcome: Outcome | None = None  # of the search that has just ended
    uri: str | None = None  # of a run in a store, which `folder` is the working folder of

    @property
    def record(self) -> RunRecord:
        """What was asked for, and all that decides the result."""
        return read_run(self.folder)

    @property
    def best(self) -> BestRecord | None:
        """The best epoch of the best trial; None if no trial has scored."""
        return read_best(RunPaths(self.folder))

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial: state, score, costs, parameters."""
        return pd.read_csv(RunPaths(self.folder).trials)

    def report(self) -> Path:
        """Write report.html and return its path."""
        with quiet_optuna():
            report = write_report(self.folder)
        return report if self.uri is None else locate(self.uri).share(report)


@dataclass(frozen=True)
class Final:
    """A final model: its records and the checkpoint that was handed over."""

    record: FinalRecord
    weights: Path
    ensemble: EnsembleRecord | None = None  # None if it is a single network


def open_run(folder: str | Path) -> Run:
    """The run in a folder, or at a URI. Raises `ValueError` for anything else."""
    place = str(folder)
    path = local_copy(place)
    read_run(path)
    return Run(path.resolve(), uri=place if is_stored(place) else None)


def search(task: str, *, reporter: Reporter | None = None, **options: Any) -> Run:
    """Search the hyperparameters of a task, or continue a run with `resume`.

    Ctrl-C, SIGTERM and SIGHUP stop the search cleanly; `run.outcome.signal` tells. Raises `ValueError` or `OSError`
    for a mistake, `RayStartError` and `SearchFailed` for a failure. If Ray is lost, it ends this process, as Ray itself
    would a little later.
    """
    reporter = reporter or Reporter(bool(options.get("quiet")))
    with quiet_optuna(), own_connection():
        session = open_session(task, options, reporter)
        try:
            dashboard = "nothing left to run"
            if not session.complete:
                if session.address is None:
                    reporter.status("starting Ray")
                dashboard = connect(session.address, session.resources.total_cpus)
            session = share_gpus(claim(session))
            if session.paths.mirror is not None:
                reporter.status(f"{session.paths.place}, with {session.paths.folder} as its working folder")
            ending = _ending(reporter, f"continue with: {session.command}")
            with _copied(session.paths, reporter, session.command, SearchFailed):
                with HeadWatch(session.address, ending):
                    outcome = run_search(session, dashboard)
                if outcome.signal is None:  # whoever stops a search does not want to wait
                    reporter.status("writing the report")
                    _look_back(session)
                tell(session, outcome)
        finally:
            session.close()
    return Run(session.paths.folder, outcome, session.paths.uri)


def dry_run(task: str, *, reporter: Reporter | None = None, **options: Any) -> list[str]:
    """What `search` with these options would run, and about how long it would take, as lines of text."""
    with quiet_optuna(), own_connection():
        session = open_session(task, options, reporter or Reporter())
        try:
            return describe_session(share_gpus(session))
        finally:
            session.close()


def finalize(run: Run | str | Path | None = None, *, reporter: Reporter | None = None, **options: Any) -> Final:
    """Retrain the best configurations of a run with other seeds, choose one, train the final model on all images.

    options: see python -m search.final --help. Raises `ValueError` or `OSError` for a mistake, `RayStartError` and
    `SelectionFailed` for a failure, and `Stopped` after Ctrl-C, SIGTERM or SIGHUP; the same call continues it. A lost
    Ray ends this process, see `search`.
    """
    given = checked(FinalOptions, {"run": _folder(run), **options})
    with quiet_optuna(), own_connection():
        selection = open_selection(FinalOptions(**given), reporter or Reporter())
        try:
            if selection.address is None:
                selection.reporter.status("starting Ray")
            connect(selection.address, selection.resources.total_cpus)
            again = "run the same command again"
            with (
                _copied(selection.paths.final, selection.reporter, f"python -m search.final {selection.paths.place}"),
                Interrupt() as interrupt,
                HeadWatch(selection.address, _ending(selection.reporter, again)),
            ):
                record, ensemble, seconds = select(selection, interrupt)
        finally:
            selection.lock.release()
    tell_final(selection, record, ensemble, seconds)
    paths = selection.paths
    return Final(record, paths.final_weights if ensemble is None else paths.ensemble, ensemble)


def submit(
    *,
    data: str,
    out: str = "submission.csv",
    gate: bool = False,
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
    reporter: Reporter | None = None,
    **runs: Run | str | Path,
) -> Submission:
    """Predict the test images and write the submission.

    runs: by task name, a run, its folder or a checkpoint file. The rest: see python -m search.submit --help. Raises
    `ValueError` or `OSError` for a mistake.
    """
    what = {task.name: kind for kind, task in submitted_tasks().items()}
    if unknown := runs.keys() - what.keys():
        raise ValueError(f"{min(unknown)} cannot be submitted: give a run of {' or '.join(what)}")
    if not runs:
        raise ValueError(f"there is nothing to submit: give a run of {' or '.join(what)}")
    if gate and runs.keys() != what.keys():
        raise ValueError(f"the gate needs runs of {' and '.join(what)}")
    options = SubmitOptions(data=data, out=out, gate=gate, flip=flip, scales=tuple(scales))
    given = {what[name]: str(_folder(run)) for name, run in runs.items()}
    return write_submission(given, options, reporter or Reporter())


def predict(
    run: Run | str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> Prediction:
    """Predict images: files, folders or both. `signal` of the result tells whether Ctrl-C or SIGTERM stopped it.

    run: a run, its folder or a checkpoint file. options: see python -m search.predict --help. Images that cannot be
    read are skipped and listed in the result. Raises `ValueError` or `OSError` for a mistake, `PredictionFailed` for a
    failure.
    """
    several = [images] if isinstance(images, str | Path) else images
    given = checked(PredictOptions, {"run": _folder(run), "images": [str(path) for path in several], **options})
    return write_predictions(PredictOptions(**given), reporter or Reporter())


def export(run: Run | str | Path, *, reporter: Reporter | None = None, **options: Any) -> Export:
    """Write a trained model as one file, see python -m search.export --help for the options.

    run: a run, its folder or a checkpoint file. Raises `ValueError` or `OSError` for a mistake, `ExportFailed` if the
    model cannot be written in the format.
    """
    given = checked(ExportOptions, {"run": _folder(run), **options})
    return write_export(ExportOptions(**given), reporter or Reporter())


def _folder(run: Run | str | Path | None) -> str | None:
    return None if run is None else str((run.uri or run.folder) if isinstance(run, Run) else run)


@contextmanager
def _copied(
    paths: RunPaths, reporter: Reporter, command: str, failure: type[RuntimeError] = SelectionFailed
) -> Iterator[None]:
    """Keep the copy of a run in its store up to date. Raises `failure` if it cannot be completed."""
    try:
        with Uploads(paths, reporter.warning):
            yield
    except StoreError as error:
        raise failure(f"{error}: {error.repair}, then upload what is in {paths.folder} with: {command}") from None


def _ending(reporter: Reporter, repair: str) -> Callable[[str], None]:
    """Ends this process, as Ray would a little later: what was trained is kept."""

    def end(cause: str) -> None:
        reporter.fatal(f"{cause}, then {repair}")
        os._exit(1)

    return end


def _look_back(session: Session) -> None:
    """Write the tables, pictures and report of a search. They can be made later, so a failure is a warning."""
    try:
        if session.paths.mirror is not None:
            session.paths.mirror.fetch_notes()
        best = read_torch(session.paths.best_weights)
        if best is not None:
            session.task.conclude(session.paths, session.record, best, session.data, session.reporter)
        session.reporter.result(f"report {shell_path(write_report(session.paths.folder, session.data))}")
    except KeyboardInterrupt:
        session.reporter.result("stopped before the report was written")
    except Exception as error:
        session.reporter.warning(f"no report: {type(error).__name__}: {error}".splitlines()[0])
