from types import SimpleNamespace

import pytest
import torch

from search.cluster.worker import Job, Worker
from search.run_folder.paths import RunPaths


def test_a_process_that_lost_its_gpu_runs_no_other_trial(tmp_path):
    """What it raises ends the process; another one continues the trial. All else is reported."""

    def train(error):
        raise error
        yield

    worker = SimpleNamespace(costs={"seconds": 1.0}, epochs=train(torch.AcceleratorError("gone")))
    worker.paths, worker.job = RunPaths(tmp_path), Job(0, {}, {}, 0.0)
    for method in ("_broken", "_last", "_log"):
        setattr(worker, method, getattr(Worker, method).__get__(worker))
    with pytest.raises(torch.AcceleratorError):
        Worker.step(worker)
    worker.epochs = train(KeyError("x"))
    assert Worker.step(worker)["outcome"] == "failed"
