"""A cluster of `ray start`, whose nodes have our dependencies and not our code. Run with `pytest -n 0 -m faults`."""

import contextlib
import json
import os
import re
import shutil
import signal
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
from tests.search.runs import rows_of

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]

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
    process: int  # the first of its processes

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


def autoscaling(address):
    """Ray's own imitation of a cluster that starts nodes of one CPU, which are processes here, as they are needed."""
    nodes = {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1, "object_store_memory": 2**30}, "node_config": {}, "max_workers": 2},
    }
    empty_lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    fake = ("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check")
    return {
        "cluster_name": "test",
        "provider": {"type": "fake_multinode", "gcs_address": address, **dict.fromkeys(fake, True)},
        "available_node_types": nodes,
        "head_node_type": "head",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 1.0,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in empty_lists},
    }


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A head node without CPUs, which gets others as they are needed."""
    with head_node(tmp_path_factory.mktemp("home"), cpus=0, scales=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """A head node with two CPUs: Ray's imitated nodes would share, and delete, the working directory of a job."""
    with head_node(tmp_path_factory.mktemp("home"), cpus=2, scales=False) as cluster:
        yield cluster


@contextlib.contextmanager
def head_node(home, *, cpus, scales):
    """A head node of its own user. It requires a token, as `ray start` arranges where there is one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True)
    site = next((home / "env").rglob("site-packages"))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # none of the .pth files in there
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("5" * 64)
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets must have short paths
    own = ("RAY_ADDRESS", "RAY_AUTH_MODE", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"HOME": str(home), "RAY_TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment["PATH"] = f"{home / 'env' / 'bin'}{os.pathsep}{environment['PATH']}"
    python, (port, dashboard, agent) = str(home / "env" / "bin" / "python"), free_ports(3)
    absent = subprocess.run([python, "-c", "import search"], capture_output=True, env=environment, cwd=home)
    assert absent.returncode == 1
    address = f"127.0.0.1:{port}"
    (home / "scaling.yaml").write_text(json.dumps(autoscaling(address)))
    start = [
        "start",
        "--head",
        "--num-cpus",
        str(cpus),
        "--node-ip-address",
        "127.0.0.1",
        "--port",
        str(port),
        "--block",
    ]
    start += ["--autoscaling-config", str(home / "scaling.yaml")] if scales else []
    start += ["--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    with open(home / "head.log", "w") as log:
        head = subprocess.Popen(
            [python, *RAY, *start], env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while "block forever" not in (home / "head.log").read_text():
            assert head.poll() is None, (home / "head.log").read_text()
            time.sleep(0.2)
        yield Cluster(python, folder, f"http://127.0.0.1:{dashboard}", environment, head.pid)
    finally:
        head.terminate()
        head.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)  # the nodes that it has started
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def states(run):
    return [trial.state.name for trial in read_study(run / "study.journal").trials]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


@pytest.fixture
def command(bare, dataset, space, tmp_path):
    """A command of a user on this machine: its first words, and its environment."""
    words = [sys.executable, "-m", *SMALL, "--data", dataset, "--space", space, "--out", tmp_path, "--name", "run"]
    return [str(word) for word in words], {**bare.environment, "PYTHONPATH": str(ROOT)}


def test_a_wrong_token_is_refused_in_one_line(command):
    words, environment = command
    environment = {**environment, "RAY_AUTH_TOKEN": "6" * 64}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: the Ray cluster at ")
    assert "requires its token: put what `ray get-auth-token` prints" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_joins_it_by_itself_and_brings_our_code_and_the_token_and_asks_for_nodes(command, tmp_path):
    words, environment = command
    two = ("--concurrent", "2", "--cpus-per-trial", "1", "--epochs", "100000")
    log = tmp_path / "log"
    with open(log, "w") as out, subprocess.Popen([*words, *two], stdout=out, stderr=out, env=environment) as search:
        try:
            wait_for(lambda: trained(tmp_path / "run") == 2 or search.poll() is not None)
            search.terminate()
            assert search.wait(timeout=60) == 128 + signal.SIGTERM, log.read_text()
        finally:
            search.kill()
    assert log.read_text().startswith("running on the Ray cluster at ")
    assert "no node of the cluster has 1 CPU for trials yet: waiting for one\n" in log.read_text()
    assert "Unauthenticated" not in log.read_text()
    assert len({row["pid"] for row in rows_of(tmp_path / "run")}) == 2


def test_a_node_that_joins_is_used(command, bare, tmp_path):
    words, environment = command
    address = (bare.folder / "ray" / "ray_current_cluster").read_text()
    log = tmp_path / "log"
    with (
        open(log, "w") as out,
        subprocess.Popen(
            [*words, "--epochs", "100000", "--trials", "4"], stdout=out, stderr=out, env=environment
        ) as search,
    ):
        try:
            wait_for(lambda: "at a time" in log.read_text() or search.poll() is not None)
            before = int(re.search(r"(\d) at a time", log.read_text())[1])
            start = [bare.python, *RAY, "start", "--address", address, "--num-cpus", "1", "--block"]
            with subprocess.Popen(
                start, env={**environment, "RAY_AUTH_MODE": "token"}, cwd=bare.folder, start_new_session=True
            ) as node:
                try:
                    wait_for(lambda: trained(tmp_path / "run") > before or search.poll() is not None)
                    search.terminate()
                    assert search.wait(timeout=60) == 128 + signal.SIGTERM, log.read_text()
                finally:
                    node.terminate()
                    node.wait(timeout=60)
        finally:
            search.kill()
    assert states(tmp_path / "run") == ["RUNNING"] * (before + 1)


def trained(run):
    """The number of trials that have ended an epoch."""
    return sum(bool(read_history(file)) for file in (run / "history").glob("*"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A working directory for jobs: our code."""
    folder = tmp_path_factory.mktemp("source")
    for package in ("search", "spaces", "voctrain"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_jobs_run_on_a_cluster(fixed, source, dataset, space, tmp_path):
    shutil.copy(space, source / "my_space.py")
    job = ("job", "submit", "--address", fixed.jobs, "--working-dir", source, "--", "python", "-m", *SMALL)
    job = (*job, "--data", dataset, "--space", "my_space.py", "--name", "run")
    for _ in range(20):  # jobs are taken some seconds after the start
        refused = fixed.ray(*job)
        if "No available agent" not in refused.stdout + refused.stderr:
            break
    assert refused.returncode != 0
    assert "is in the copy of a Ray job, which is deleted with it: give --out another folder" in refused.stdout
    done = fixed.ray(*job, "--out", tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "running on the Ray cluster at " in done.stdout
    assert states(tmp_path / "run") == ["COMPLETE"] * 2


def test_a_stopped_job_tells_how_to_continue(fixed, source, dataset, space, tmp_path):
    place, run = ("--address", fixed.jobs), tmp_path / "run"
    shutil.copy(space, source / "my_space.py")
    job = (*SMALL, "--epochs", 200, "--data", dataset, "--space", "my_space.py", "--out", tmp_path, "--name", "run")
    submitted = ("job", "submit", *place, "--submission-id", "stopped", "--no-wait", "--working-dir", source)
    assert fixed.ray(*submitted, "--", "python", "-m", *job).returncode == 0
    wait_for(lambda: trained(run))
    assert fixed.ray("job", "stop", *place, "stopped").returncode == 0
    assert "RUNNING" in states(run)
    logs = fixed.ray("job", "logs", *place, "stopped").stdout
    assert f"stopping; continue with: python -m search.run classify --resume {run}\n" in logs


IMPATIENT = """
import search.cluster.head, sys
from search.run import main
search.cluster.head.LOOK_SECONDS, search.cluster.head.LOST_PART = 0.5, 0.05
sys.exit(main(sys.argv[1:]))
"""


def test_a_lost_head_ends_the_search_in_one_line(command, bare, tmp_path):
    """The last of these tests: it leaves no cluster."""
    words, environment = command
    words = [words[0], "-c", IMPATIENT, *words[3:], "--epochs", "500"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as search:
        try:
            wait_for(lambda: trained(tmp_path / "run") or search.poll() is not None)
            os.killpg(bare.process, signal.SIGKILL)
            _, err = search.communicate(timeout=60)
        finally:
            search.kill()
    assert search.returncode == 1
    lost = r"error: the Ray cluster at \S+ has not answered for \d+ s: start it again, then continue with: python -m"
    assert re.search(lost, err)
    assert f"--resume {tmp_path / 'run'}\n" in err
    assert "RUNNING" in states(tmp_path / "run")
