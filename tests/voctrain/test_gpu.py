"""Training, resuming and predicting on a CUDA device, compared with the CPU. Run with -m gpu."""

import copy
import dataclasses
import functools
import io
import math

import numpy as np
import pytest
import torch

from tests.voctrain.setups import COLORED, SETUPS, data_of, save_victim, small
from voctrain import classify, loop, segment
from voctrain.attack.objective import Objective
from voctrain.augment.transforms import augment
from voctrain.device_array import DeviceArray
from voctrain.images import to_unit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

GPU = torch.device("cuda")
PASTED = {"crop_focus": 0.5, "copy_paste": 0.5, "loss": "cross_entropy+lovasz"}
WAITING = ("float16, adagrad",)  # not fused, see test_launches.py


@pytest.fixture(scope="module")
def task(draw_data, tmp_path_factory):
    """A function from a task's name and options to its module and a small configuration."""
    victim = tmp_path_factory.mktemp("victims") / "victim.pt"
    save_victim(victim, draw_data())
    return lambda name, **options: small(name, victim, **options)


@pytest.fixture
def full_float32(monkeypatch):
    """No TF32, which rounds the factors of convolutions to 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def stored(state):
    """The state after a round trip through a file, on the CPU."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def assert_near(metrics, expected, tolerance):
    """Losses, whose size is about 1; scores jump with the order of the images."""
    names = [name for name in expected if name.endswith("_loss")]
    assert names
    assert {name: metrics[name] for name in names} == pytest.approx({n: expected[n] for n in names}, abs=tolerance)


@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
@pytest.mark.parametrize("name", ["classify", "segment", "attack"])
def test_trains_on_the_device_with_channels_last(task, draw_data, name, precision):
    module, config = task(name, precision=precision)
    torch.cuda.reset_peak_memory_stats()
    numbers = []
    for epoch in module.train(config, draw_data(), device="cuda"):
        numbers.append(epoch.number)
        assert all(math.isfinite(value) for value in epoch.metrics.values())
        assert all(isinstance(array, np.ndarray) for array in epoch.predictions.values())
        assert all(weight.is_cuda for weight in epoch.weights.values())
        filters = [w for w in epoch.weights.values() if w.ndim == 4 and w.shape[1] > 1 and w.shape[2] > 1]
        assert filters
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)
    assert numbers == [1, 2]
    assert torch.cuda.max_memory_allocated() > 1e4


@pytest.mark.parametrize("name", SETUPS)
def test_batches_do_not_wait_for_the_device(task, draw_data, monkeypatch, name):
    known, options = SETUPS[name]
    module, config = task(known, **options)
    data, update, steps = data_of(name, draw_data(size=config.image_size)), loop.Training.update, []
    batches = loop.batches_per_epoch(len(data.train), config.batch_size)

    def strict(training, step):
        update(training, step)
        steps.append(step)  # the first one initializes, and after an epoch's last the losses are needed
        free = step % batches == 0 or name in WAITING
        torch.cuda.set_sync_debug_mode("default" if free else "error")

    monkeypatch.setattr(loop.Training, "update", strict)
    try:
        for epoch in module.train(config, data, device="cuda"):
            assert all(math.isfinite(value) for value in epoch.metrics.values())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == list(range(1, 2 * batches + 1))


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["classify", "segment", "attack"])
def test_half_precision_agrees_with_float32(task, draw_data, name, precision):
    results = []
    for dtype in ("float32", precision):
        module, config = task(name, precision=dtype, optimizer="sgd")
        results.append([epoch.metrics for epoch in module.train(config, draw_data(), device="cuda")])
    for metrics, expected in zip(*reversed(results), strict=True):
        assert_near(metrics, expected, 0.05)


def bits(epochs):
    return [(e.metrics, {name: weight.cpu() for name, weight in e.weights.items()}, stored(e.state)) for e in epochs]


@pytest.mark.parametrize("name", ["classify", "segment", "attack"])
@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_deterministic_trainings_resume_bit_for_bit(task, draw_data, name, precision):
    options = {"attack": {"architecture": "universal", "activation": None, "width": None}, "segment": PASTED}
    options = {"deterministic": True, "precision": precision, "epochs": 3} | COLORED | options.get(name, {})
    module, config = task(name, **options)
    whole = bits(module.train(config, draw_data(), device="cuda"))
    rest = bits(module.train(config, draw_data(), device="cuda", resume=whole[0][2]))
    for (metrics, weights, _), (expected, those, _) in zip(rest, whole[1:], strict=True):
        assert metrics == expected
        assert all(torch.equal(weights[name], weight) for name, weight in those.items())


def test_a_batch_that_does_not_fit_is_computed_in_parts(task, draw_data):
    def train():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _, config = task("classify", architecture="resnet18", image_size=128, batch_size=64, epochs=1)
        data = draw_data(train=64, size=128)
        epochs = [epoch.metrics for epoch in classify.train(config, data, device="cuda")]
        return epochs, torch.cuda.max_memory_reserved()

    _, peak = train()
    limit = 0.7 * peak
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    try:
        epochs, used = train()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert math.isfinite(epochs[0]["train_loss"])
    assert used <= limit


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("name", ["classify", "segment", "attack"])
def test_training_equals_that_on_the_cpu(task, draw_data, name):
    module, config = task(name, precision="float32", optimizer="sgd", **COLORED)
    epochs = [[e.metrics for e in module.train(config, draw_data(), device=device)] for device in ("cpu", "cuda")]
    for here, there in zip(*epochs, strict=True):
        assert_near(there, here, 5e-3)


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize(
    "options", [{}, {"ema_memory": 0.9, "precision": "float16"}], ids=["plain", "float16, average"]
)
@pytest.mark.parametrize("name", ["classify", "segment", "attack"])
def test_resumes_on_either_device(task, draw_data, name, options):
    module, config = task(name, **({"precision": "float32", "optimizer": "sgd", "epochs": 3} | COLORED | options))
    epochs = [(e.metrics, stored(e.state)) for e in module.train(config, draw_data(), device="cuda")]
    rest = [e.metrics for e in module.train(config, draw_data(), device="cuda", resume=copy.deepcopy(epochs[0][1]))]
    assert len(rest) == 2
    for metrics, (expected, _) in zip(rest, epochs[1:], strict=True):
        assert_near(metrics, expected, 1e-3)
    config = dataclasses.replace(config, precision="float32")
    assert [e.number for e in module.train(config, draw_data(), device="cpu", resume=epochs[1][1])] == [3]


def test_a_training_that_began_on_the_cpu_continues_on_the_device(task, draw_data):
    module, config = task("classify", precision="auto", ema_memory=0.9)
    state = stored(next(module.train(config, draw_data())).state)
    for precision in ("auto", "float16"):
        _, config = task("classify", precision=precision, ema_memory=0.9)
        assert [e.number for e in module.train(config, draw_data(), device="cuda", resume=state)] == [2]


@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
@pytest.mark.parametrize("name", ["classify", "segment"])
def test_divergence_raises(task, draw_data, name, precision):
    module, config = task(name, precision=precision, optimizer="sgd", lr=1e30, schedule="constant")
    with pytest.raises(FloatingPointError):
        list(module.train(config, draw_data(), device="cuda"))


@pytest.mark.parametrize("budget", [0.4, 0.0], ids=["resident", "pinned"])
def test_arrays_are_indexed_on_the_device(budget):
    array = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)).astype(np.uint8)
    array.setflags(write=False)
    rows, index = DeviceArray(array, GPU, budget), torch.tensor([3, 3, 49, 0])
    assert rows.rows.is_cuda == (budget > 0)
    batch = rows[index]
    assert batch.is_cuda
    assert np.array_equal(batch.cpu().numpy(), array[index.numpy()])
    before = array.copy()
    batch.zero_()
    assert np.array_equal(rows[index].cpu().numpy(), before[index.numpy()])
    assert len(rows) == 50


def test_a_set_that_does_not_fit_on_the_device_trains_alike(task, draw_data, monkeypatch):
    module, config = task("classify", precision="float32", optimizer="sgd")
    resident = [epoch.metrics for epoch in module.train(config, draw_data(), device="cuda")]
    monkeypatch.setattr(classify, "DeviceArray", functools.partial(DeviceArray, budget=0.0))
    for metrics, expected in zip(module.train(config, draw_data(), device="cuda"), resident, strict=True):
        assert_near(metrics.metrics, expected, 1e-3)


@pytest.mark.parametrize("field", COLORED)
def test_augmentations_are_those_of_the_cpu(task, field):
    _, config = task("segment", **{"hflip": 0.0, field: COLORED[field]})
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32).to(memory_format=torch.channels_last)
    masks = torch.randint(0, 4, (8, 32, 32), dtype=torch.uint8)
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        results.append([part.cpu() for part in augment(images.to(device), config, masks.to(device))])
    (expected, expected_masks), (varied, varied_masks) = results
    assert varied.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(varied, expected, atol=1e-3, rtol=0)
    assert (varied_masks == expected_masks).float().mean() > 0.99


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["classify", "segment", "attack"])
def test_predictions_equal_those_on_the_cpu(task, draw_data, name, precision):
    data, (module, config) = draw_data(), task(name, precision=precision)
    for epoch in module.train(config, data, device="cuda"):
        saved = module.checkpoint(config, data, epoch.weights, epoch.metrics)
    assert not any(weight.is_cuda for weight in saved["model"].values())
    options = {"attack": {"factor": 2.0}, "segment": {"flip": True, "scales": (0.75, 1.0)}, "classify": {"flip": True}}
    results = []
    for device in ("cpu", "cuda"):
        model, known = module.restore(saved, device=device)
        predict = segment.predict_logits if name == "segment" else module.predict
        made = predict(model, data.images, known, device=device, **options[name])
        made = [part.cpu().numpy() for part in made] if name == "segment" else made
        results.append(np.asarray(made, np.float32) / (255 if name == "attack" else 1))
    assert np.abs(results[0] - results[1]).max() < (0.01 if precision == "float32" else 0.1)
    assert np.abs(results[0] - results[1]).mean() < (0.001 if precision == "float32" else 0.01)


def test_label_maps_equal_those_on_the_cpu(task, draw_data):
    data, (_, config) = draw_data(), task("segment", precision="float32")
    torch.manual_seed(0)
    model, sizes = segment.new_model(config, data), np.array([[40, 50]] * len(data.ids))
    prior = np.random.default_rng(0).normal(size=(len(data.ids), 4))
    maps = [
        np.stack(list(segment.predict(model.to(d).eval(), data.images, config, sizes=sizes, log_prior=prior, device=d)))
        for d in ("cpu", "cuda")
    ]
    assert maps[0].shape == (20, 40, 50)
    assert (maps[0] == maps[1]).mean() > 0.99


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_an_attack_are_float32_within_autocast(task, draw_data, dtype):
    _, config = task("attack", goal="invert")
    images = to_unit(torch.from_numpy(draw_data().images))
    on_cpu = Objective(config).descent(images)
    objective = Objective(config, GPU)
    with torch.autocast("cuda", dtype):
        descent = objective.descent(images.to(GPU))
    assert descent.dtype == torch.float32
    torch.testing.assert_close(descent.cpu(), on_cpu, atol=1e-2, rtol=0)
