"""A run in an object store: the store goes away, the driver is killed, and another machine continues.

Run with `pytest -n 0 -m faults tests/faults/test_store.py`.
"""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from search.run_folder.history import read_history
from search.run_folder.location import locate
from voctrain.data.sample import make_sample

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

# A search whose workers save their state after each epoch.
DRIVER = """
import sys
import search.cluster.execution
from search.run import main
from search.cluster.store_worker import StoreWorker

class Saving(StoreWorker):
    def setup(self, config, **more):
        import search.trial.training
        search.trial.training.SAVE_SECONDS = 0.0
        StoreWorker.setup(self, config, **more)

search.cluster.execution.StoreWorker = Saving
sys.exit(main(sys.argv[1:]))
"""


class Machine:
    """A machine with a home of its own, where one search runs."""

    def __init__(self, home, *arguments):
        resources = ("--concurrent", 2, "--cpus-per-trial", 1, "--gpus-per-trial", 0)
        self.home, self.log = home, home.with_suffix(".txt")
        environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, "classify", *map(str, (*arguments, *resources))],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until(self, condition):
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)

    def kill(self):
        """As if the machine had lost its power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self):
        assert self.process.wait() == 0, self.log.read_text()
        return self.log.read_text()


def test_another_machine_continues_what_a_killed_one_has_begun(bucket, tmp_path):
    make_sample(tmp_path / "set", num_labeled=40, num_unlabeled=8, max_size=40)
    for home in ("first", "second", "third"):
        (tmp_path / home).mkdir()
    search = ("--data", tmp_path / "set", "--image-size", 32, "--epochs", 8, "--trials", 4, "--sampler", "random")
    search += ("--set", "architecture=simple")
    store = locate(f"{bucket.uri}/killed").mirror.store

    first = Machine(tmp_path / "first", *search, "--out", bucket.uri, "--name", "killed")
    first.wait_until(lambda: store.find("checkpoints/0001/state.pt") is not None)
    with bucket.away():
        first.wait_until(lambda: "trying again: cannot " in first.log.read_text())
    first.wait_until(lambda: b"complete" in (store.read("trials.csv") or b""))
    first.kill()
    done = pd.read_csv(first.home / "cache" / "voctrain" / "runs" / "s3" / "bucket" / "killed" / "trials.csv")

    second = Machine(tmp_path / "second", "--resume", f"{bucket.uri}/killed")
    said = second.end()
    assert "working folder" in said
    folder = second.home / "cache" / "voctrain" / "runs" / "s3" / "bucket" / "killed"
    trials = pd.read_csv(folder / "trials.csv")

    whole = Machine(tmp_path / "third", *search, "--out", tmp_path / "runs", "--name", "whole")
    whole.end()
    reference = pd.read_csv(tmp_path / "runs" / "whole" / "trials.csv")
    assert trials["number"].tolist() == reference["number"].tolist() == [0, 1, 2, 3]
    assert done["number"].is_unique
    measured = {"state", "score", "best_epoch", "epochs", "seconds", "memory_gb", "error", "lost", "node", "pid", "log"}
    params = [name for name in reference.columns if name not in measured]
    pd.testing.assert_frame_equal(trials[params], reference[params])
    both = (trials["state"] == "complete") & (reference["state"] == "complete")
    assert both.sum() >= 2
    assert trials["score"][both].tolist() == reference["score"][both].tolist()
    for number, epochs in zip(trials["number"], trials["epochs"], strict=True):
        lines = (folder / "history" / f"{number:04d}.jsonl").read_text().splitlines()
        assert len(lines) == len(read_history(folder / "history" / f"{number:04d}.jsonl")) == epochs
