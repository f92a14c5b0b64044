"""Training, resuming and predicting on a CUDA device, compared with the CPU. Run with -m gpu."""

import copy
import dataclasses
import functools
import io
import math

import numpy as np
import pytest
import torch

from voctrain import attack, classify, loop, segment
from voctrain.attack.objective import Objective
from voctrain.augment.transforms import augment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.device_array import DeviceArray
from voctrain.images import to_unit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

GPU = torch.device("cuda")
TINY = {"image_size": 32, "batch_size": 4, "epochs": 2, "lr": 1e-3}
VARIED = {"rotation": 20.0, "perspective": 0.2, "crop_scale": 0.5, "brightness": 0.3, "contrast": 0.3, "vflip": 0.5}
COLORED = VARIED | {"saturation": 0.3, "hue": 0.1, "grayscale": 0.1, "translate": 0.1, "zoom": 0.1, "shear": 5.0}

OPTIONS = {  # task and options of trainings that together reach every part that runs on the device
    "all augmentations": ("classify", COLORED | {"num_ops": 5}),
    "mixing, average, focal": ("classify", {"mixup": 0.4, "cutmix": 1.0, "ema_memory": 0.9, "loss": "focal"}),
    "masks, asymmetric": ("classify", {"mask_loss": 1.0, "loss": "asymmetric", "optimizer": "adam"}),
    "places": ("classify", {"architecture": "test_resnet", "mask_loss": 1.0, "mask_pooling": True}),
    "weights, clipping": ("classify", {"loss": "bce_weight", "clip_norm": 1.0, "clip_value": 0.1, "aug_repeats": 2}),
    "adagrad, plateau": ("classify", {"optimizer": "adagrad", "schedule": "plateau", "sampling": "weighted"}),
    "sgd, cap": ("classify", {"optimizer": "sgd", "reduction": "sum", "pos_weight_cap": 5.0}),
    "focus, paste": ("segment", COLORED | {"crop_focus": 0.5, "copy_paste": 0.5, "class_balance": 0.5}),
    "dice": ("segment", {"loss": "cross_entropy+dice"}),
    "lovasz": ("segment", {"loss": "lovasz"}),
    "object_cross_entropy": ("segment", {"loss": "object_cross_entropy"}),
    "bce": ("segment", {"loss": "bce"}),
    "residual, penalties": ("attack", VARIED | {"ssim_penalty": 1.0, "l2_penalty": 1.0, "contrast_masking": 0.5}),
    "guided": ("attack", {"architecture": "guided", "goal": "invert"}),
    "universal": ("attack", {"architecture": "universal", "activation": None, "width": None, "goal": "hide:dog"}),
    "privacy": ("attack", {"architecture": "mnist_adversarial", "width": None, "goal": "privacy", "ssim_penalty": 1.0}),
}
WAITING = ("lovasz", "adagrad, plateau")  # boolean indices; not fused


@pytest.fixture(scope="module")
def task(draw_data, tmp_path_factory):
    """A function from a task's name and options to its module and a small configuration."""
    path = tmp_path_factory.mktemp("victims") / "victim.pt"
    config = ClassifyConfig(**TINY, architecture="simple")
    for epoch in classify.train(config, draw_data()):
        saved = classify.checkpoint(config, draw_data(), epoch.weights, epoch.metrics)
    torch.save(saved | {"thresholds": [0.4] * 3}, path)
    tasks = {
        "classify": (classify, ClassifyConfig, {"architecture": "resnet9"}),
        "segment": (segment, SegmentConfig, {"width": 4, "depth": 2}),
        "attack": (attack, AttackConfig, {"victim": str(path), "width": 4, "scale": 0.1}),
    }

    def make(name, **options):
        module, kind, known = tasks[name]
        return module, kind(**(TINY | known | options))

    return make


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


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_part_runs_on_the_device(task, draw_data, options):
    name, options = options
    module, config = task(name, **options)
    for epoch in module.train(config, draw_data(), device="cuda"):
        assert all(math.isfinite(value) for value in epoch.metrics.values())


@pytest.mark.parametrize("options", [name for name in OPTIONS if name not in WAITING])
def test_batches_do_not_wait_for_the_device(task, draw_data, monkeypatch, options):
    update, steps = loop.Training.update, []

    def strict(training, loss, step):
        update(training, loss, step)
        steps.append(step)  # three per epoch; the first one initializes, and after the last the losses are needed
        torch.cuda.set_sync_debug_mode("default" if step % 3 == 0 else "error")

    monkeypatch.setattr(loop.Training, "update", strict)
    name, options = OPTIONS[options]
    module, config = task(name, **options)
    try:
        list(module.train(config, draw_data(), device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == [1, 2, 3, 4, 5, 6]


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
