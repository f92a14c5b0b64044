from types import SimpleNamespace

import numpy as np
import pytest
import torch

from search.cluster.resources import Resources
from search.cluster.worker import Job, Worker
from search.run_folder.paths import RunPaths
from search.trial import memory
from search.trial.device import FAKE_GPUS
from voctrain.data import load
from voctrain.device_array import DeviceArray


@pytest.fixture
def whole_gpu():
    """Allow this process all of the GPU again afterwards."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


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


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("could not create a primitive"), RuntimeError("std::bad_alloc")]
)
def test_a_process_without_memory_ends_and_another_one_continues_its_trial(error, tmp_path):
    def train():
        raise error
        yield

    worker = SimpleNamespace(costs={"seconds": 1.0}, epoch=3, paths=RunPaths(tmp_path), job=Job(0, {}, {}, 0.0))
    for method in ("_broken", "_last", "_log", "_exhausted_before"):
        setattr(worker, method, getattr(Worker, method).__get__(worker))
    worker.epochs = train()
    with pytest.raises(type(error)):
        Worker.step(worker)
    worker.epochs, worker.epoch = train(), 4
    with pytest.raises(type(error)):
        Worker.step(worker)
    worker.epochs = train()
    assert Worker.step(worker)["outcome"] == "out of memory"  # of two processes in one epoch


def test_a_trial_that_was_promised_a_gpu_never_trains_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(FAKE_GPUS, raising=False)
    task = SimpleNamespace(config=SimpleNamespace(from_dict=dict))
    worker = SimpleNamespace(costs={}, task=task, paths=RunPaths(tmp_path), job=Job(0, {}, {}, 0.0))
    worker.resources = Resources(1, 1, 0.5)
    for method in ("_broken", "_last", "_log"):
        setattr(worker, method, getattr(Worker, method).__get__(worker))
    worker.epochs = Worker._train(worker, worker.job)
    last = Worker.step(worker)
    assert last["outcome"] == "interrupted"  # of the machine
    assert last["error"].startswith("Ray gave a trial a GPU, but PyTorch finds none: install the node's driver")


def test_a_score_that_is_no_number_fails_the_trial(tmp_path):
    worker = SimpleNamespace(costs={"seconds": 1.0}, epochs=iter([{"epoch": 1, "val_mAP": float("nan")}]))
    worker.paths, worker.job, worker.task = RunPaths(tmp_path), Job(0, {}, {}, 0.0), SimpleNamespace(metric="val_mAP")
    for method in ("_broken", "_last", "_log"):
        setattr(worker, method, getattr(Worker, method).__get__(worker))
    last = Worker.step(worker)
    assert (last["outcome"], last["error"]) == ("failed", "val_mAP is nan after epoch 1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("whole_gpu")
def test_a_gpu_without_room_is_reported_and_the_process_goes_on(dataset, tmp_path):
    worker = Worker.__new__(Worker)
    job = {"config": {"architecture": "resnet18", "image_size": 32, "batch_size": 8, "epochs": 1}, "params": {}}
    jobs = [Job(number, **job, min_score=-1.0).to_tune() for number in range(3)]
    known = {"task": "classify", "paths": RunPaths(tmp_path), "rungs": (), "resources": Resources(1, 1, 1.0)}
    for file in (known["paths"].log(0), known["paths"].history(0)):
        file.parent.mkdir(parents=True, exist_ok=True)

    worker.setup(jobs[0], data=load(dataset, image_size=32), **known)
    first = worker.step()
    assert first["epoch"] == 1
    assert 0.04 < first["memory_gb"] < 2
    worker.cleanup()
    before = torch.cuda.memory_allocated()

    torch.cuda.set_per_process_memory_fraction(1e-4)  # less than the weights
    worker.reset_config(jobs[1])
    broken = worker.step()
    assert broken["outcome"] == "out of memory"
    assert "\n" not in broken["error"]
    torch.cuda.set_per_process_memory_fraction(1.0)
    worker.reset_config(jobs[2])
    assert worker.step()["epoch"] == 1
    worker.cleanup()
    assert torch.cuda.memory_allocated() <= before + 1e6  # no training left anything behind


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("whole_gpu")
def test_neighbors_on_a_gpu_share_its_memory():
    memory.limit("cuda", 1.0)
    assert torch.cuda.get_per_process_memory_fraction() == 1
    memory.limit("cuda", 0.25)
    total = torch.cuda.mem_get_info()[1]
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.25 * total), dtype=torch.uint8, device="cuda")
    torch.empty(int(0.2 * total), dtype=torch.uint8, device="cuda")
    # 2 % of the GPU are less than 0.4 of all of it, and more than 0.4 of this share of it.
    memory.limit("cuda", 0.04)
    images = np.zeros((1, int(0.02 * total)), np.uint8)
    assert not DeviceArray(images, torch.device("cuda")).rows.is_cuda
    memory.limit("cuda", 0.9)
    assert DeviceArray(images, torch.device("cuda")).rows.is_cuda
