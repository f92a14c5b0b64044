"""Searches in processes of their own, for tests that disturb them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from search.study.journal import open_study
from search.study.sampler import SeededSampler
from search.study.trials import started_trials, trial_score
from voctrain.metrics.classification import classify_metrics

# A search whose workers save their state after each epoch and soon count as hanging, and whose sampler learns within
# few trials.
DRIVER = """
import sys
import search.cluster.execution, search.cluster.hangs, search.study.sampler
from search.command_line import run_command
from search.run import main
from search.cluster.worker import Worker

class Saving(Worker):
    def setup(self, config, **more):
        import search.trial.training
        search.trial.training.SAVE_SECONDS = search.trial.training.SAVE_COSTS = 0
        Worker.setup(self, config, **more)

search.study.sampler.STARTUP_TRIALS = 6
search.cluster.execution.Worker = Saving
search.cluster.hangs.HANG_SECONDS = search.cluster.hangs.FIRST_SECONDS = 15.0
search.cluster.hangs.HANG_EPOCHS, search.cluster.hangs.LOOK_SECONDS = 1, 0.5
sys.exit(run_command(main))
"""


class Driver:
    """A search in a process of its own. What it says goes through another process, its reader."""

    def __init__(self, folder: Path, *arguments: object, concurrent: int = 1):
        self.folder, self.mark = folder, uuid.uuid4().hex
        resources = ("--concurrent", concurrent, "--cpus-per-trial", 1, "--gpus-per-trial", 0, "--quiet")
        command = [sys.executable, "-c", DRIVER, "classify", *map(str, (*arguments, *resources))]
        self.log = folder.with_suffix(".txt")
        self.heard = self.log.stat().st_size if self.log.exists() else 0  # of earlier drivers
        with self.log.open("a") as log:
            self.reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
        environment = {**os.environ, "RAY_ADDRESS": "local", "FAULT_MARK": self.mark}
        out = self.reader.stdin
        self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        assert out is not None
        out.close()

    def wait_for_run(self) -> float:
        """When its run.json appeared."""
        while not (self.folder / "run.json").exists():
            assert self.running(), self.said()
            time.sleep(0.001)
        return time.time()

    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_bytes()[self.heard :].decode()

    def end(self, seconds: float = 300) -> int:
        """Its exit status; what Ray started for it has gone."""
        status = self.process.wait(seconds)
        deadline = time.monotonic() + 120
        while left := [process for process, _ in self.others()]:
            assert time.monotonic() < deadline, f"Ray's processes outlived their driver: {left}"
            time.sleep(0.2)
        self.reader.wait(60)
        return status

    def others(self) -> Iterator[tuple[int, str]]:
        """Ray's processes that have been started for it: their ids and command lines."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = self.mark.encode() in (process / "environ").read_bytes()
                if ours and int(process.name) != self.process.pid:
                    yield int(process.name), (process / "cmdline").read_text().replace("\0", " ")

    def written(self, aim: str) -> float:
        """When the journal, a checkpoint or any of them was last written."""
        files = [self.folder / "study.journal"] if aim != "checkpoint" else []
        files += self.folder.glob("checkpoints/*/*.pt") if aim != "journal" else []
        times = []
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                times.append(file.stat().st_mtime)
        return max(times, default=0.0)


def trials_of(folder: Path):
    """What the journal holds, a torn last line apart; the journal itself stays as it is."""
    copy = Path(shutil.copy(folder / "study.journal", folder.with_suffix(".journal")))
    return started_trials(open_study(copy, SeededSampler("random", 0, {})))


def check_best(folder: Path, trials):
    """best.* are the best epoch of the best trial."""
    best = json.loads((folder / "best.json").read_text())
    saved = torch.load(folder / "best.pt", weights_only=True)
    top = min((-v, t.number, e) for t in trials if trial_score(t) is not None for e, v in t.intermediate_values.items())
    assert (-best["score"], best["trial"], best["epoch"]) == top
    assert (saved["trial"], saved["epoch"], saved["score"]) == (best["trial"], best["epoch"], best["score"])
    held = np.load(folder / "val_predictions.npz", allow_pickle=False)
    assert classify_metrics(held["y_true"], held["y_prob"])["val_mAP"] == best["score"]
