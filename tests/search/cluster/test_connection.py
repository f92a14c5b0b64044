import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray

from search import final, run
from search.cluster.address import describe_start, resolve_address
from search.cluster.connection import connect


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """No address is set, and Ray's folder, which it returns, is empty."""
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


TIMED_OUT = (
    "The current node timed out during startup. This could happen because some of the raylet failed to startup.\nx"
)


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [
        (None, None, None),
        (None, "", None),
        ("local", "10.0.0.1:6379", None),
        (None, "local", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        (None, "ray://head:10001", "ray://head:10001"),
        ("auto", None, "auto"),
    ],
)
def test_the_argument_comes_first_then_the_variable_of_ray(argument, variable, expected, unset, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert resolve_address(argument) == expected


class TestAClusterOfThisMachine:
    """`ray start` leaves its address in a file."""

    @pytest.fixture
    def listening(self, unset):
        """The address of a port that answers, as in that file."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            (unset / "ray_current_cluster").write_text(f"{address}\n")
            yield address

    def test_it_is_joined_and_the_first_line_tells_how_not_to(self, listening):
        assert resolve_address(None) == listening
        assert describe_start(None).startswith(f"running on the Ray cluster at {listening}; ")
        assert describe_start(None).endswith("; --address local stays out of it")
        assert "stays out" not in describe_start(listening)

    def test_an_argument_or_the_variable_comes_first(self, listening, monkeypatch):
        assert resolve_address("local") is None
        assert resolve_address("10.0.0.1:6379") == "10.0.0.1:6379"
        monkeypatch.setenv("RAY_ADDRESS", "local")
        assert resolve_address(None) is None

    def test_that_of_another_user_is_not(self, listening, monkeypatch):
        monkeypatch.setattr("os.getuid", lambda: os.geteuid() + 1)
        assert resolve_address(None) is None

    @pytest.mark.parametrize("content", ["127.0.0.1:1", "127.0.0.1:", "", "?"])
    def test_one_that_was_killed_is_not(self, content, unset):
        (unset / "ray_current_cluster").write_text(content)
        assert resolve_address(None) is None


@pytest.mark.slow
def test_the_ray_address_variable_leads_to_the_cluster(cluster, dataset, tmp_path):
    """As in `ray job submit`, which sets the variable for what it starts."""
    command = [sys.executable, "-m", "search.run", "classify", "--data", str(dataset), "--image-size", "32"]
    command += ["--epochs", "1", "--set", "architecture=simple", "--dry-run", "--out", str(tmp_path)]
    on_cluster = {**os.environ, "RAY_ADDRESS": cluster, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=on_cluster, timeout=120)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[0].startswith(f"running on the Ray cluster at {cluster}; ")
    assert "2 at a time, 1 CPU and 1 GPU each" in done.stdout  # it has two fake GPUs; this machine may have none


def test_a_run_is_never_resumed_at_a_stored_address(unstarted, prepared, unset):
    record = json.loads((unstarted / "run.json").read_text())
    record["options"]["address"] = "127.0.0.1:1"
    (unstarted / "run.json").write_text(json.dumps(record))
    session = prepared("classify", "--resume", unstarted)
    assert session.address is None
    assert session.options.address is None


LISTENING = """
import os, stat, sys
from search.cluster.connection import connect, own_connection, ray
import psutil
with own_connection():
    connect(None, 1)
    ray.get(ray.remote(lambda: 0).remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    places = [place for process in processes for place in process.net_connections("inet") if place.status == "LISTEN"]
    print(len(processes), len(places), *{place.laddr.ip for place in places})
    print(oct(stat.S_IMODE(os.stat(ray._private.worker._global_node.get_session_dir_path()).st_mode)))
"""


@pytest.mark.slow
def test_a_cluster_on_this_machine_is_for_this_machine_and_user_alone():
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120)
    first, mode = done.stdout.splitlines()
    processes, places, *addresses = first.split()
    assert (int(processes) > 5, int(places) > 5) == (True, True), done
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    assert mode == "0o700"


class TestRayDoesNotStart:
    @pytest.fixture
    def starts(self, monkeypatch, tmp_path):
        """The attempts so far; the first `failures` of them time out as Ray's do."""
        attempts = []

        def set_failures(failures):
            def init(address, **options):
                attempts.append(address)
                if len(attempts) <= failures:
                    raise Exception(TIMED_OUT)
                return SimpleNamespace(dashboard_url=None, address_info={"session_dir": tmp_path})

            monkeypatch.setattr(ray, "init", init)
            monkeypatch.setattr(ray, "shutdown", lambda: None)
            monkeypatch.setattr(ray, "is_initialized", lambda: False)
            return attempts

        return set_failures

    def test_ray_gets_a_second_try(self, starts):
        attempts = starts(1)
        assert connect(None, 2) == "no dashboard"
        assert attempts == ["local", "local"]

    def test_a_search_ends_in_one_line_and_leaves_nothing(self, starts, call, dataset, tmp_path):
        attempts = starts(2)
        asked = ("--data", dataset, "--image-size", 32, "--set", "architecture=simple", "--out", tmp_path / "runs")
        outcome = call(run.main, "classify", *asked)
        assert outcome.status == 1
        assert outcome.err.startswith("error: Ray did not start on this machine in 2 attempts (The current node timed")
        assert outcome.err.count("\n") == 1
        assert attempts == ["local", "local"]
        assert not (tmp_path / "runs").exists()

    def test_a_failed_start_ends_a_retraining_in_one_line(self, starts, call, dataset, tmp_path):
        starts(2)
        best = {"task": "classify", "config": {"architecture": "simple", "image_size": 32}}
        (tmp_path / "best.json").write_text(json.dumps(best))
        asked = ("--config", tmp_path / "best.json", "--data", dataset, "--out", tmp_path / "out")
        outcome = call(final.main, *asked)
        assert outcome.status == 1
        assert outcome.err.startswith("error: Ray did not start on this machine")
        assert outcome.err.count("\n") == 1
