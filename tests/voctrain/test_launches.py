"""What a training step asks of a GPU, counted on a device that is none."""

import os

import pytest
import torch

from tests.voctrain.fake_cuda import counted_steps, fake_cuda
from tests.voctrain.setups import SETUPS, TASKS, data_of, save_victim, small
from voctrain import loop
from voctrain.device_array import DeviceArray

# GradScaler asks the device whether a step is skipped, unless the optimizer is fused; Adagrad is only in new torch.
WAITING = {"float16, adagrad"}
PADDED = {
    "residual, penalties",
    "guided",
    "privacy",
    "float16, add",
}  # by reflection, which is not deterministic on CUDA
LARGE = {"fine-tuning", "auxiliary outputs", "auxiliary maps", "linear maps"}


@pytest.fixture(scope="module")
def trained(draw_data, tmp_path_factory):
    """A function from a setup to its configuration, and the `Counts` of its steps and its metrics on the device."""
    victim = tmp_path_factory.mktemp("victims") / "victim.pt"
    save_victim(victim, draw_data(), precision="float32")

    def run(name, **options):
        task, known = SETUPS[name]
        module, config = small(task, victim, **({"precision": "float32"} | known | options))
        return config, *counted_steps(module.train, config, data_of(name, draw_data(size=config.image_size)))

    return run


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in SETUPS])
def test_a_step_never_waits_for_the_device_and_copies_once_for_each_part(trained, name):
    config, steps, _ = trained(name)
    assert len(steps) >= 4
    for counts in steps:
        assert sum(counts.launches.values()) > 50
        assert not counts.syncs or name in WAITING
        assert len(counts.copies) == (2 if config.micro_batch else 1)


@pytest.mark.parametrize("name", ["flips", "crops", "mixing, average, focal", "lovasz", "residual, penalties"])
def test_training_there_equals_that_on_the_cpu(trained, draw_data, name):
    config, _, metrics = trained(name, optimizer="sgd")
    module = TASKS[SETUPS[name][0]][0]
    expected = [epoch.metrics for epoch in module.train(config, draw_data())]
    for there, here in zip(metrics, expected, strict=True):
        assert there == pytest.approx(here, abs=1e-5)


def test_a_set_that_does_not_fit_on_the_device_costs_a_copy_more_for_each_array(trained, monkeypatch):
    monkeypatch.setattr(DeviceArray.__init__, "__defaults__", (0.0,))
    for counts in trained("crops")[1]:
        assert not counts.syncs
        assert len(counts.copies) == 3  # images, labels, and amounts of augmentation


@pytest.mark.parametrize("name", ["crops", "residual, penalties"])
@pytest.mark.parametrize(
    "planted",
    [
        lambda loss: loss.item(),
        lambda loss: bool(loss > 0),
        lambda loss: loss.cpu(),
        lambda loss: loss[None][loss[None] > 0],
        lambda loss: torch.stack([loss]).nonzero(),
        lambda loss: torch.tensor([1.0], device=loss.device),
        lambda loss: torch.ones(2).to(loss.device),
    ],
)
def test_waiting_is_noticed(trained, monkeypatch, name, planted):
    gradients = loop.Training.gradients

    def waiting(training, index, batch_loss):
        parts = gradients(training, index, batch_loss)
        planted(parts[0][1])
        return parts

    monkeypatch.setattr(loop.Training, "gradients", waiting)
    assert all(len(counts.syncs) == 1 for counts in trained(name)[1])


def test_operands_on_two_devices_are_an_error():
    with fake_cuda(), pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda") + torch.ones(3)


def test_deterministic_trainings_use_deterministic_algorithms_only(trained, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen, gradients = set(), loop.Training.gradients

    def watched(training, index, batch_loss):
        seen.add((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        return gradients(training, index, batch_loss)

    monkeypatch.setattr(loop.Training, "gradients", watched)
    for deterministic in (False, True):
        _, _, metrics = trained("crops", deterministic=deterministic)
        assert len(metrics) == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    assert seen == {(False, True), (True, False)}
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("name", [name for name in SETUPS if name not in LARGE | PADDED])
def test_every_part_of_a_training_can_be_deterministic(trained, name):
    assert trained(name, deterministic=True, epochs=1)[2]


@pytest.mark.parametrize("name", sorted(PADDED))
def test_what_cannot_be_deterministic_is_an_error_of_one_line(trained, name):
    with pytest.raises(ValueError, match=r"^deterministic=true requires .*reflection_pad2d_backward.*omit") as error:
        trained(name, deterministic=True)
    assert "\n" not in str(error.value)
    assert not torch.are_deterministic_algorithms_enabled()
