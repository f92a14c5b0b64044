import os
import subprocess
import sys

import pytest

from search.study.journal import read_study

WRITER = """
import sys
from search.command_line import run_command

def main():
    sys.stdin.readline()  # until the reader has left
    for _ in range(1000):
        print("x" * 100)
        print("y" * 100, file=sys.stderr)
    return 7

sys.exit(run_command(main))
"""


def test_a_command_outlives_the_readers_of_its_output():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", WRITER], **pipes) as process:
        process.stdout.close()
        process.stderr.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(30) == 7


def test_a_full_disk_does_not_end_a_command():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", WRITER], input=b"\n", stdout=full, stderr=full)
    assert done.returncode == 7


@pytest.mark.slow
def test_a_search_continues_after_head_has_read_its_first_line(cluster, dataset, space, tmp_path):
    command = [sys.executable, "-m", "search.run", "classify", "--data", dataset, "--image-size", "32", "--epochs", "1"]
    command += ["--trials", "2", "--space", space, "--out", tmp_path, "--name", "run", "--gpus-per-trial", "0"]
    on_cluster = {**os.environ, "RAY_ADDRESS": cluster, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=on_cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"running on the Ray cluster at ")
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait(120) == 0, error
    assert [t.state.name for t in read_study(tmp_path / "run" / "study.journal").trials] == ["COMPLETE"] * 2
