import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from ray._private import worker

from search.cluster.head import HeadWatch, lacking


@pytest.fixture
def processes(monkeypatch):
    """Ray's processes on this machine, by kind; of this test."""
    kinds = ("raylet", "gcs_server", "log_monitor")
    started = {kind: subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for kind in kinds}

    def dead_processes():
        return [(kind, process) for kind, process in started.items() if process.poll() is not None]

    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(dead_processes=dead_processes))
    monkeypatch.setattr("search.cluster.head.LOOK_HERE_SECONDS", 0.01)
    monkeypatch.setattr("search.cluster.head.NEEDED", 0)
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["raylet", "gcs_server"])
def test_a_killed_process_of_ray_on_this_machine_is_told_in_one_line(kind, processes):
    told, lost = [], threading.Event()
    with HeadWatch(None, lambda cause: (told.append(cause), lost.set())):
        processes["log_monitor"].kill()
        processes["log_monitor"].wait()
        assert not lost.wait(0.2)  # Ray works without it
        processes[kind].kill()
        assert lost.wait(10)
    assert told == [f"Ray's {kind} on this machine has been killed: free memory and processors"]


def test_what_ends_with_the_search_is_not_lost(processes):
    told = []
    with HeadWatch(None, told.append):
        pass
    processes["raylet"].kill()
    processes["raylet"].wait()
    assert not threading.Event().wait(0.1)
    assert not told


@pytest.mark.parametrize("full", ["/dev/shm", "/tmp/ray"])
def test_a_place_that_is_full_is_named(full, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)

    def space(place):
        free = 3_000_000 if str(place).startswith(full[:5]) else 10**10
        return shutil._ntuple_diskusage(10**10, 10**10 - free, free)

    monkeypatch.setattr(shutil, "disk_usage", space)
    assert lacking() == f"no space left on {full}, 3 MB free, and Ray needs 100 MB: free some"
