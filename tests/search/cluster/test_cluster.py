"""Clusters of `ray start`, whose nodes have our dependencies and not our code."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.run_folder.history import read_history
from search.study.journal import read_study

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
RAY = ("-m", "ray.scripts.scripts")
SMALL = ("search.run", "classify", "--image-size", "32", "--epochs", "1", "--trials", "2")


@dataclass(frozen=True)
class Cluster:
    """A running head node."""

    python: str  # of its environment, without our code
    folder: Path  # Ray's
    jobs: str  # the address for jobs
    environment: dict[str, str]  # of a user on this machine

    def ray(self, *command: object) -> subprocess.CompletedProcess:
        """A command of Ray's."""
        environment = {**self.environment, "RAY_AUTH_MODE": "token"}
        return subprocess.run(
            [self.python, *RAY, *map(str, command)],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=200,
        )


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A head node with two CPUs. It requires a token, as `ray start` arranges where there is one."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True)
    site = next((home / "env").rglob("site-packages"))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # none of the .pth files in there
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("5" * 64)
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets must have short paths
    own = ("RAY_ADDRESS", "RAY_AUTH_MODE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"HOME": str(home), "RAY_TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{home / 'env' / 'bin'}{os.pathsep}{environment['PATH']}"
    python, (dashboard, agent) = str(home / "env" / "bin" / "python"), free_ports(2)
    assert (
        subprocess.run([python, "-c", "import search"], capture_output=True, env=environment, cwd=home).returncode == 1
    )
    start = ["start", "--head", "--num-cpus", "2", "--port", "0", "--block", "--dashboard-port", str(dashboard)]
    with open(home / "head.log", "w") as log:
        head = subprocess.Popen(
            [python, *RAY, *start, "--dashboard-agent-listen-port", str(agent)],
            env=environment,
            cwd=home,
            stdout=log,
            stderr=log,
        )
    try:
        while "block forever" not in (home / "head.log").read_text():
            assert head.poll() is None, (home / "head.log").read_text()
            time.sleep(0.2)
        yield Cluster(python, folder, f"http://127.0.0.1:{dashboard}", environment)
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def states(run):
    return [trial.state.name for trial in read_study(run / "study.journal").trials]


def test_a_command_joins_it_by_itself_and_brings_our_code_and_the_token(bare, dataset, space, tmp_path):
    command = [sys.executable, "-m", *SMALL, "--data", str(dataset), "--space", str(space), "--out", str(tmp_path)]
    environment = {**bare.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--name", "run"], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done
    assert done.stdout.startswith("running on the Ray cluster at ")
    assert "Unauthenticated" not in done.stdout + done.stderr
    assert states(tmp_path / "run") == ["COMPLETE"] * 2


def test_a_wrong_token_is_refused_in_one_line(bare, dataset, space, tmp_path):
    command = [sys.executable, "-m", *SMALL, "--data", str(dataset), "--space", str(space), "--out", str(tmp_path)]
    environment = {**bare.environment, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": "6" * 64}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: the Ray cluster at ")
    assert "requires its token: put what `ray get-auth-token` prints" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A working directory for jobs: our code."""
    folder = tmp_path_factory.mktemp("source")
    for package in ("search", "spaces", "voctrain"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_jobs_run_on_it(bare, source, dataset, space, tmp_path):
    shutil.copy(space, source / "my_space.py")
    job = ("job", "submit", "--address", bare.jobs, "--working-dir", source, "--", "python", "-m", *SMALL)
    job = (*job, "--data", dataset, "--space", "my_space.py", "--name", "run")
    for _ in range(20):  # jobs are taken some seconds after the start
        refused = bare.ray(*job)
        if "No available agent" not in refused.stdout + refused.stderr:
            break
    assert refused.returncode != 0
    assert "is in the copy of a Ray job, which is deleted with it: give --out another folder" in refused.stdout
    done = bare.ray(*job, "--out", tmp_path)
    assert done.returncode == 0, done
    assert "running on the Ray cluster at " in done.stdout
    assert states(tmp_path / "run") == ["COMPLETE"] * 2


def test_a_stopped_job_tells_how_to_continue(bare, source, dataset, space, tmp_path):
    place, run = ("--address", bare.jobs), tmp_path / "run"
    shutil.copy(space, source / "my_space.py")
    job = (*SMALL, "--epochs", 200, "--data", dataset, "--space", "my_space.py", "--out", tmp_path, "--name", "run")
    submitted = ("job", "submit", *place, "--submission-id", "stopped", "--no-wait", "--working-dir", source)
    assert bare.ray(*submitted, "--", "python", "-m", *job).returncode == 0
    deadline = time.monotonic() + 120
    while not any(map(read_history, (run / "history").glob("*"))):
        assert time.monotonic() < deadline, bare.ray("job", "logs", *place, "stopped")
        time.sleep(0.2)
    assert bare.ray("job", "stop", *place, "stopped").returncode == 0
    assert states(run) == ["RUNNING"] * 2
    logs = bare.ray("job", "logs", *place, "stopped").stdout
    assert f"stopped with 2 trials to go; continue with: python -m search.run classify --resume {run}\n" in logs
