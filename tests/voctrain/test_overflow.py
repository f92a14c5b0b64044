import copy
import io
import itertools
import math

import pytest
import torch
from torch import nn

from voctrain import classify, precision, segment
from voctrain.config import ClassifyConfig, SegmentConfig, TrainConfig
from voctrain.loop import fit

TINY = {"image_size": 32, "batch_size": 4, "epochs": 2, "precision": "float16", "lr": 1e-3}
SIMPLE = {"architecture": "simple"} | TINY
UNET = {"architecture": "unet", "width": 4, "depth": 2} | TINY  # with batch normalization
TASKS = {
    "classify": (classify, ClassifyConfig(ema_memory=0.9, mask_loss=1.0, optimizer="sgd", **SIMPLE)),
    "cross-entropy and dice": (segment, SegmentConfig(loss="cross_entropy+dice", ema_memory=0.9, **UNET)),
    "lovasz": (segment, SegmentConfig(loss="lovasz", optimizer="adagrad", clip_norm=1.0, **UNET)),
    "object cross-entropy": (segment, SegmentConfig(loss="object_cross_entropy", clip_value=0.1, **UNET)),
}


@pytest.fixture
def overflow(monkeypatch):
    """A function that makes the training batches with these numbers, from 1, overflow by infinitely bright images."""
    originals = {task: task.vary for task in (classify, segment)}

    def plan(*numbers):
        def too_bright(vary):
            count = itertools.count(1)

            def varied(*arguments):
                images, *rest = vary(*arguments)
                return images * (math.inf if next(count) in numbers else 1), *rest

            return varied

        for task, vary in originals.items():
            monkeypatch.setattr(task, "vary", too_bright(vary))

    return plan


def followed(epochs):
    """Number, metrics, weights and state of each epoch, copied."""
    followed = []
    for epoch in epochs:
        file = io.BytesIO()
        torch.save(epoch.state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        followed.append((epoch.number, epoch.metrics, copy.deepcopy(epoch.weights), state))
    return followed


@pytest.mark.parametrize(("task", "config"), TASKS.values(), ids=TASKS)
def test_one_overflowing_batch_is_skipped(draw_data, overflow, task, config):
    data = draw_data()  # three batches per epoch
    overflow(5)
    whole = followed(task.train(config, data))
    assert [number for number, *_ in whole] == [1, 2]
    for _, metrics, weights, state in whole:
        assert all(math.isfinite(value) for value in metrics.values())
        tensors = [*weights.values(), *state["model"].values(), *state.get("average", {}).values()]
        assert all(tensor.isfinite().all() for tensor in tensors)
    first, second = (state["scaler"]["scale"] for *_, state in whole)
    assert second <= first / 2
    assert any(
        (whole[0][2][name] != weight).any() for name, weight in whole[1][2].items()
    )  # the other batches trained it

    overflow(2)  # the same batch in a training that starts with the second epoch
    ((_, metrics, weights, _),) = followed(task.train(config, data, resume=whole[0][3]))
    assert metrics == whole[1][1]
    assert all(torch.equal(weights[name], weight) for name, weight in whole[1][2].items())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 3], "^3 of 3 batches overflowed float16 in epoch 1$"),
        ([2, 4, 5, 6], "^3 of 3 batches overflowed float16 in epoch 2$"),
        ([4, 6], "^2 of 3 batches overflowed float16 in epoch 2$"),
    ],
)
def test_mostly_overflowing_batches_raise(draw_data, overflow, numbers, message):
    overflow(*numbers)
    with pytest.raises(FloatingPointError, match=message):
        list(classify.train(ClassifyConfig(**SIMPLE), draw_data()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_gradient_scaling_one_overflow_raises(draw_data, overflow, precision):
    overflow(5)
    config = ClassifyConfig(**(SIMPLE | {"precision": precision}))
    with pytest.raises(FloatingPointError, match="the training loss became nan in epoch 2"):
        list(classify.train(config, draw_data()))


class Root(nn.Module):
    """A weight that is 0, whose square root is a finite loss with an infinite gradient."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, 1))


def test_gradients_that_overflow_at_any_scale_raise():
    model, numbers = Root(), []
    epochs = fit(
        model,
        TrainConfig(precision="float16", epochs=9, batch_size=1),
        draw=lambda: torch.arange(4),
        batch_loss=lambda index: (model.weight.sqrt().sum(), None),
        train_metrics=lambda outputs: {},
        evaluate=lambda model: ({}, {}),
        metric="val_score",
        device=torch.device("cpu"),
    )
    # From 2^16, the first scale below 10^-4 is 2^-14, after 30 batches: in the eighth epoch.
    with pytest.raises(FloatingPointError, match="the gradients overflowed float16 at any scale in epoch 8"):
        numbers.extend(epoch.number for epoch in epochs)
    assert numbers == list(range(1, 8))
    assert model.weight.item() == 0


def test_auto_scales_gradients_only_in_float16(draw_data, monkeypatch):
    config = ClassifyConfig(**(SIMPLE | {"precision": "auto"}))
    for dtype, scaled in ((torch.float16, True), (torch.bfloat16, False), (torch.float32, False)):
        monkeypatch.setattr(precision, "precision_of", lambda config, device, dtype=dtype: dtype)
        *_, (_, _, _, state) = followed(classify.train(config, draw_data()))
        assert bool(state["scaler"]) == scaled


def test_resume_on_a_device_with_other_precision(draw_data, monkeypatch):
    config = ClassifyConfig(**(SIMPLE | {"precision": "auto"}))
    for dtypes in ((torch.bfloat16, torch.float16), (torch.float16, torch.bfloat16)):
        monkeypatch.setattr(precision, "precision_of", lambda config, device, dtype=dtypes[0]: dtype)
        state = followed(classify.train(config, draw_data()))[0][-1]
        monkeypatch.setattr(precision, "precision_of", lambda config, device, dtype=dtypes[1]: dtype)
        ((number, _, weights, _),) = followed(classify.train(config, draw_data(), resume=state))
        assert number == 2
        assert all(weight.isfinite().all() for weight in weights.values())
