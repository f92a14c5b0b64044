from types import SimpleNamespace

import pytest
import torch

from search.cluster.worker import Worker


def test_a_process_that_lost_its_gpu_serves_no_other_trial(tmp_path):
    """What it raises ends the process; another one continues the trial. All else is reported."""

    def train(error):
        raise error
        yield

    worker = SimpleNamespace(log=tmp_path / "log", costs={"seconds": 1.0}, epochs=train(torch.AcceleratorError("gone")))
    for method in ("_broken", "_last", "_write"):
        setattr(worker, method, getattr(Worker, method).__get__(worker))
    with pytest.raises(torch.AcceleratorError):
        Worker.step(worker)
    worker.epochs = train(KeyError("x"))
    assert Worker.step(worker)["outcome"] == "failed"
