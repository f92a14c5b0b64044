import contextlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from voctrain.data.sample import make_sample

SPACE = """
def suggest(trial, problem):
    assert problem["classes"] == 20
    return {
        "architecture": "simple",
        "batch_size": 16,
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "adam")),
        "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True),
    }
"""


@dataclass(frozen=True)
class Outcome:
    """Of a command: its exit status and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Iterator[Path]:
    """A small set in the Kaggle layout, and a cache of its own for all sets."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        make_sample(root / "set", num_labeled=40, num_unlabeled=8, max_size=40)
        yield root / "set"


@pytest.fixture
def space(tmp_path) -> Path:
    """A small space of one architecture, without a portfolio."""
    file = tmp_path / "space.py"
    file.write_text(SPACE)
    return file


@pytest.fixture(scope="session")
def call() -> Callable[..., Outcome]:
    """Call a command's main in this process."""

    def command(main: Callable[[list[str]], int], *arguments: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main([str(a) for a in arguments])
            except SystemExit as end:  # argparse
                status = end.code
        return Outcome(status, out.getvalue(), err.getvalue())

    return command


@pytest.fixture(scope="session")
def prepared(call) -> Callable[..., Any]:
    """The session of a call of `search.run` that is checked, and does not run."""
    from search.options import run_parser
    from search.reporter import Reporter
    from search.session.session import open_session

    def command(*arguments: object) -> Any:
        sessions = []

        def check(typed: list[str]) -> int:
            given = vars(run_parser().parse_args(typed))
            sessions.append(open_session(given.pop("task"), given, Reporter()))
            return 0

        outcome = call(check, *arguments)
        assert outcome.status == 0, outcome
        return sessions[0]

    return command


@pytest.fixture(scope="session")
def begin(prepared) -> Callable[..., Any]:
    """The session of a call whose folder is made, and in which no trial starts."""
    from search.running.driver import open_run_study
    from search.session.session import claim

    def command(*arguments: object) -> Any:
        session = claim(prepared(*arguments))
        open_run_study(session)
        session.close()
        return session

    return command


@pytest.fixture(scope="session")
def begun(begin, dataset, tmp_path_factory) -> Path:
    """A run whose folder is complete and in which no trial has started."""
    place = ("--out", tmp_path_factory.mktemp("runs"), "--name", "begun", "--set", "architecture=simple")
    return begin("classify", "--data", dataset, "--image-size", 32, "--epochs", 3, "--trials", 2, *place).paths.folder


@pytest.fixture
def unstarted(begun, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(begun, tmp_path / "runs" / "begun"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of the Ray cluster that all tests share, to which this process is connected. Its GPUs are fake."""
    from search.cluster.connection import ray, set_environment
    from search.trial.device import FAKE_GPUS

    os.environ[FAKE_GPUS] = "1"
    set_environment()
    context = ray.init(
        num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def on_cluster(call, cluster) -> Callable[..., Outcome]:
    """Call a command's main on the shared cluster, one CPU and no GPU a training."""

    def command(main: Callable[[list[str]], int], *arguments: object) -> Outcome:
        return call(main, *arguments, "--cpus-per-trial", 1, "--gpus-per-trial", 0)

    return command


@pytest.fixture(scope="session")
def run(on_cluster, dataset) -> Callable[..., Outcome]:
    """`search.run classify`: of a new run on the small set, one trial after the other, unless it resumes one."""
    from search.run import main

    def command(*arguments: object) -> Outcome:
        new = ("--data", dataset, "--image-size", 32, "--epochs", 3, "--trials", 2, "--concurrent", 1)
        return on_cluster(main, "classify", *(() if "--resume" in arguments else new), *arguments)

    return command


@pytest.fixture(scope="session")
def finished(run, tmp_path_factory) -> Path:
    """A run of four trials; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("runs")
    outcome = run("--trials", 4, "--concurrent", 2, "--set", "architecture=simple", "--out", out, "--name", "finished")
    assert outcome.status == 0, outcome
    return out / "finished"


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def refused(call, tmp_path, monkeypatch):
    """Call a main with bad arguments in an empty folder: the one line that it answers, without its `error: `."""
    monkeypatch.setattr("ray.init", lambda *a, **k: pytest.fail("nothing may start"))
    monkeypatch.setattr("search.session.problem.PROBES", 40)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(main, *arguments):
        before = contents(tmp_path)
        outcome = call(main, *arguments)
        assert outcome.status == 2, outcome
        errors = [line for line in outcome.err.splitlines() if not line.startswith("warning: ")]
        assert len(errors) == 1, outcome
        assert errors[0].startswith("error: ")
        assert contents(tmp_path) == before
        return errors[0].removeprefix("error: ")

    return command
