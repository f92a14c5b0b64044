from types import SimpleNamespace

import pytest
import torch

from search.cluster.resources import Resources
from search.cluster.worker import Job, Worker
from search.run_folder.paths import RunPaths
from voctrain.data import load


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_without_room_is_reported_and_the_process_goes_on(dataset, tmp_path):
    def job(number):
        config = {"architecture": "resnet18", "image_size": 32, "batch_size": 8, "epochs": 1}
        return Job(number, config, {}, -1.0).to_tune()

    paths, worker = RunPaths(tmp_path), Worker.__new__(Worker)
    for file in (paths.log(0), paths.history(0)):
        file.parent.mkdir(parents=True, exist_ok=True)
    data = load(dataset, image_size=32)
    torch.cuda.set_per_process_memory_fraction(1e-4)  # less than the weights
    try:
        worker.setup(job(0), data=data, task="classify", paths=paths, rungs=(), resources=Resources(1, 1, 1.0))
        broken = worker.step()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert broken["outcome"] == "out of memory"
    assert "\n" not in broken["error"]
    worker.reset_config(job(1))
    report = worker.step()
    assert report["epoch"] == 1
    assert 0.04 < report["memory_gb"] < 2
    worker.cleanup()
    assert torch.cuda.memory_allocated() < 1e7  # the first training left nothing behind
