import os
import signal
import subprocess
import sys

import pytest

COMMAND = """
import os, sys, time
from search.report.__main__ import beside_a_search

def command():
    print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.getsid(0) == os.getpid(), flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        return 130

sys.exit(beside_a_search(command))
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="no such scheduler here")
def test_it_takes_idle_time_in_a_session_of_its_own_and_heeds_ctrl_c():
    with subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True True\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_mistake_of_the_user_comes_through():
    asked = [sys.executable, "-m", "search.report", "runs/some", "--format", "json"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --format goes with --best")
    assert done.stderr.count("\n") == 1
