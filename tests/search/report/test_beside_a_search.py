import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.report.__main__ import checked

COMMAND = """
import os, sys, time
from pathlib import Path
from search.report import __main__

__main__.WAITING_SECONDS = 1

def command():
    group = Path("/proc/self/autogroup")
    share = group.read_text().split()[-1:] if group.exists() else []
    print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.getsid(0) == os.getpid(), *share, os.getpid(), flush=True)
    time.sleep(60)

sys.exit(__main__.beside_a_search(command, now=False))
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="no such scheduler here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_report_takes_idle_time_and_stops_with_its_command(number):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", COMMAND], text=True, **pipes) as process:
        *record, child = process.stdout.readline().split()
        assert record in (["True", "True", "19"], ["True", "True"])
        assert "--now takes" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    deadline = time.monotonic() + 30
    while _runs(int(child)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_user_mistake_is_reported():
    asked = [sys.executable, "-m", "search.report", "runs/some", "--format", "json"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --format needs --best")
    assert done.stderr.count("\n") == 1


def test_arguments_are_checked_before_anything_is_loaded(tmp_path):
    code = (
        "import sys\nfrom search.report.__main__ import checked\n"
        "try:\n    checked(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules, 'optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "nothing")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False False\n")
    assert done.stderr.startswith(f"error: no run folder {tmp_path / 'nothing'}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("asked", "now"), [((), False), (("--now",), True), (("--best",), True)])
def test_only_drawing_gives_way(asked, now, unstarted):
    _, at_once = checked([str(unstarted), *asked])
    assert at_once == now
