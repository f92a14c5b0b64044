import copy
import io
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from voctrain.classify import train
from voctrain.config import ClassifyConfig, TrainConfig
from voctrain.loop import clip_gradients, fit

CPU = torch.device("cpu")
TINY = {"architecture": "simple", "image_size": 32, "batch_size": 4, "epochs": 3, "precision": "float32", "lr": 0.01}

RESUMED = {
    "one_cycle": {},
    "plateau": {"schedule": "plateau", "plateau_patience": 0, "lr": 1e-6, "gamma": 0.5},
    "cosine after warm-up": {"schedule": "cosine", "warmup_epochs": 1},
    "linear": {"schedule": "linear", "end_factor": 1.2},
    "replay": {"schedule": "replay", "lr_by_epoch": (0.01, 0.03, 0.02)},
    "ema": {"ema_memory": 0.9},
    "mixup and cutmix": {"mixup": 0.4, "cutmix": 1.0},
    "dropout and batch normalization": {"architecture": "tinyvgg"},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "clip_norm": 1.0},
    "adagrad": {"optimizer": "adagrad", "schedule": "step", "step_epochs": 1},
    "in parts": {"micro_batch": 2, "decay_norms": True},
    "adam": {"optimizer": "adam", "schedule": "constant"},
    "weighted": {"sampling": "weighted"},
    "early stopping": {"patience": 1, "lr": 0.0, "schedule": "constant"},
    "warps and colors": {
        "rotation": 20,
        "perspective": 0.2,
        "crop_scale": 0.5,
        "hue": 0.1,
        "contrast": 0.3,
        "num_ops": 2,
    },
    "bfloat16": {"precision": "bfloat16", "ema_memory": 0.5},
    "float16": {
        "precision": "float16",
        "reduction": "sum",
        "pos_weight_cap": 8.0,
    },  # overflows, so that the scale changes
    "much at once": {
        **{"architecture": "tinyvgg", "precision": "bfloat16", "schedule": "plateau", "warmup_epochs": 1},
        **{"plateau_patience": 0, "ema_memory": 0.9, "mixup": 0.4, "cutmix": 1.0, "sampling": "oversample"},
    },
}


def stored(state):
    """The state after a round trip through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def followed(epochs):
    """Copies of everything in the epochs of a training: an `Epoch` is only valid until the next one."""
    return [(e.number, e.metrics, e.predictions, copy.deepcopy(e.weights), stored(e.state)) for e in epochs]


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
def test_resume_is_bit_equal_after_any_epoch(draw_data, options):
    config, data = ClassifyConfig(**(TINY | options)), draw_data(train=13)
    whole = followed(train(config, data))
    assert len(whole) == (2 if config.patience else 3)
    for done in range(1, len(whole) + 1):
        torch.manual_seed(done)  # as if anything had run before
        rest = followed(train(config, data, resume=whole[done - 1][-1]))
        assert len(rest) == len(whole) - done
        for (number, metrics, predictions, weights, _), expected in zip(rest, whole[done:], strict=True):
            assert (number, metrics) == expected[:2]
            assert all(np.array_equal(predictions[name], array) for name, array in expected[2].items())
            assert weights.keys() == expected[3].keys()
            assert all(torch.equal(weights[name], tensor) for name, tensor in expected[3].items())


def test_state_includes_the_history(draw_data):
    *_, (_, _, _, _, state) = epochs = followed(train(ClassifyConfig(**TINY), draw_data()))
    assert state["history"] == [metrics for _, metrics, _, _, _ in epochs]


class Scalar(nn.Module):
    """One weight that starts at 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, 1))


def fitted(draws=4, scores=None, loss=None, **options):
    """Train one weight by plain descent on itself, or on `loss` of a batch's indices."""
    settings = {"optimizer": "sgd", "momentum": 0, "lr": 1.0, "schedule": "constant", "weight_decay": 0, "epochs": 1}
    model, batches, remaining = Scalar(), [], iter(scores or ())

    def batch_loss(index):
        batches.append(index.tolist())
        return (model.weight.sum() if loss is None else loss(index) + 0 * model.weight.sum()), len(index)

    def evaluate(evaluated):
        assert not evaluated.training
        return ({"val_score": next(remaining)} if scores else {}), {"weight": evaluated.weight.detach().clone().numpy()}

    epochs = fit(
        model,
        TrainConfig(**(settings | options)),
        draw=lambda: torch.arange(draws),
        batch_loss=batch_loss,
        train_metrics=lambda outputs: {"train_images": sum(outputs)},
        evaluate=evaluate,
        metric="val_score",
        device=CPU,
    )
    return [(e.number, e.metrics, e.predictions) for e in epochs], batches


@pytest.mark.parametrize(
    ("draws", "batch_size", "sizes"),
    [(9, 4, [3, 3, 3]), (8, 4, [4, 4]), (5, 2, [3, 2]), (7, 3, [3, 2, 2]), (3, 8, [3]), (3, 1, [1, 1, 1]), (1, 2, [1])],
)
def test_batches_have_nearly_equal_sizes_and_more_than_one_image(draws, batch_size, sizes):
    epochs, batches = fitted(draws=draws, batch_size=batch_size)
    assert [len(batch) for batch in batches] == sizes
    assert [i for batch in batches for i in batch] == list(range(draws))
    assert epochs[0][1]["train_images"] == draws


def test_train_loss_is_the_mean_over_images():
    epochs, _ = fitted(draws=7, batch_size=3, loss=lambda index: index.float().mean())
    assert epochs[0][1]["train_loss"] == pytest.approx(3.0)


def test_weight_average_is_evaluated():
    epochs, _ = fitted(draws=4, batch_size=1, ema_memory=0.5)
    assert epochs[0][2]["weight"].item() != -4
    epochs, _ = fitted(draws=4, batch_size=1)
    assert epochs[0][2]["weight"].item() == -4


@pytest.mark.parametrize(
    ("draws", "ema_memory", "expected"),
    [
        # Over 2 of the 4 steps, at most. Of the weights 0, -1, -2, -3, -4, with decays 2/11, 3/12, 4/13 and 5/14:
        (1, 0.5, [-9 / 11, -75 / 44, -372 / 143, -3504 / 1001]),
        (2, 0.5, [-75 / 44, -3504 / 1001]),  # steps are counted across epochs
        (4, 1.0, [-3504 / 1001]),
        # Over 4/3 steps: 2/11, then 1/4 throughout.
        (1, 1 / 3, [-9 / 11, -75 / 44, -471 / 176, -2583 / 704]),
        (4, 1 / 3, [-2583 / 704]),
        (2, 0.0, [-2, -4]),
    ],
)
def test_weight_average_warms_up(draws, ema_memory, expected):
    epochs, _ = fitted(draws=draws, batch_size=1, epochs=4 // draws, ema_memory=ema_memory)
    assert [predictions["weight"].item() for _, _, predictions in epochs] == pytest.approx(expected)


def test_average_over_all_steps_is_as_good_as_the_weights_after_few_steps(draw_data):
    scores = {None: 0.0, 1.0: 0.0}  # a constant average would still contain random weights
    for seed, ema_memory in itertools.product(range(3), scores):
        options = TINY | {"lr": 0.003, "ema_memory": ema_memory}
        *_, last = train(ClassifyConfig(seed=seed, **options), draw_data(seed, train=48, val=60))
        scores[ema_memory] += last.metrics["val_mAP"] / 3
    assert scores[None] > 0.9
    assert scores[1.0] > scores[None] - 0.05


def test_lr_is_the_mean_over_the_epochs_batches():
    # From 1 to 0 in eighths: 1, 7/8, 6/8, 5/8, and then 4/8 … 1/8
    epochs, _ = fitted(draws=4, batch_size=1, epochs=2, schedule="linear", end_factor=0)
    assert [metrics["lr"] for _, metrics, _ in epochs] == pytest.approx([6.5 / 8, 2.5 / 8])


class Linear(nn.Module):
    """A linear model without batch normalization, whose batches may be computed in parts."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)


def trained_in_parts(most=99, resume=None, states=None, **options):
    """The weights and train_loss after two epochs, and the sizes of the parts; more than `most` images fail."""
    torch.manual_seed(0)
    model, rows, sizes = Linear(), torch.rand(14, 3), []
    config = ClassifyConfig(epochs=2, batch_size=7, precision="float32", optimizer="sgd", lr=0.1, **options)

    def batch_loss(index):
        if len(index) > most:
            raise torch.OutOfMemoryError
        sizes.append(len(index))
        loss = model.layer(rows[index]).square()
        return (loss.sum() if config.reduction == "sum" else loss.mean()), None

    epochs = fit(
        model,
        config,
        draw=lambda: torch.arange(14),
        batch_loss=batch_loss,
        train_metrics=lambda outputs: {},
        evaluate=lambda evaluated: ({}, {}),
        metric="score",
        device=CPU,
        resume=resume,
    )
    losses = []
    for epoch in epochs:
        losses.append(epoch.metrics["train_loss"])
        if states is not None:
            states.append(stored(epoch.state))
    return [*model.layer.weight.flatten().tolist(), *losses], sizes


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_in_parts_has_the_same_gradients(reduction):
    whole, sizes = trained_in_parts(reduction=reduction)
    assert sizes == [7] * 4
    parts, sizes = trained_in_parts(reduction=reduction, micro_batch=3)
    assert sizes == [3, 2, 2] * 4
    assert parts == pytest.approx(whole, rel=1e-4)


def test_batches_that_do_not_fit_are_computed_in_parts():
    whole, _ = trained_in_parts()
    parts, sizes = trained_in_parts(most=3)
    assert sizes == [3, 2, 2] * 4
    assert parts == pytest.approx(whole, rel=1e-4)
    with pytest.raises(torch.OutOfMemoryError):
        trained_in_parts(most=1)


def test_a_training_that_has_met_a_lack_of_memory_is_resumed_in_the_same_parts():
    states = []
    parts, _ = trained_in_parts(most=3, states=states)
    rest, sizes = trained_in_parts(resume=states[0])  # with all of the memory
    assert sizes == [3, 2, 2] * 2
    assert rest == [*parts[:3], parts[-1]]


@pytest.mark.parametrize(
    ("patience", "scores", "ends"),
    [
        (2, [0.1, 0.2, 0.2, 0.3, 0.1, 0.2, 0.9], 6),  # an equal score is not a gain
        (1, [0.1, 0.2, 0.2, 0.3], 3),
        (1, [0.4, 0.3, 0.5], 2),
        (3, [0.1, 0.2, 0.3, 0.4], 4),
        (None, [0.4, 0.3, 0.2, 0.1], 4),
    ],
)
def test_early_stopping(patience, scores, ends):
    epochs, _ = fitted(epochs=len(scores), patience=patience, scores=scores)
    assert [number for number, _, _ in epochs] == list(range(1, ends + 1))


def test_without_a_score_early_stopping_and_plateau_are_off():
    epochs, _ = fitted(epochs=4, patience=1, schedule="plateau", plateau_patience=0)
    assert [metrics["lr"] for _, metrics, _ in epochs] == [1.0] * 4


def iter_loss(values):
    left = iter(values)
    return lambda index: torch.tensor(next(left))


def test_overflowing_batch_is_ignored_in_metrics():
    # Of images 0, 1, 2, then 3, 4, then 5, 6
    means = {0: 1.0, 3: math.inf, 5: 5.5}
    epochs, _ = fitted(
        draws=7, batch_size=3, precision="float16", loss=lambda index: torch.tensor(means[int(index[0])])
    )
    assert epochs[0][1]["train_loss"] == pytest.approx((3 * 1 + 2 * 5.5) / 5)
    assert epochs[0][1]["train_images"] == 5


def test_divergence_raises():
    with pytest.raises(FloatingPointError, match="loss became nan in epoch 2"):
        fitted(epochs=3, loss=iter_loss([1.0, math.nan, 1.0]))
    with pytest.raises(FloatingPointError, match="loss became inf in epoch 1"):
        fitted(loss=iter_loss([math.inf]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3.0, -4.0]),
        ({"clip_norm": 1.0}, [0.6, -0.8]),  # the norm is 5
        ({"clip_norm": 10.0}, [3.0, -4.0]),
        ({"clip_value": 3.5}, [3.0, -3.5]),
        ({"clip_norm": 1.0, "clip_value": 0.7}, [0.6, -0.7]),  # by norm first
    ],
)
def test_gradient_clipping(options, expected):
    model = nn.ParameterList([torch.zeros(1), torch.zeros(1)])  # the norm is over all parameters together
    for p, gradient in zip(model, (3.0, -4.0), strict=True):
        p.grad = torch.tensor([gradient])
    clip_gradients(model, TrainConfig(**options))
    assert [p.grad.item() for p in model] == pytest.approx(expected, rel=1e-5)


def test_clipping_acts_on_unscaled_gradients():
    epochs, _ = fitted(draws=1, clip_value=0.25, precision="float16")
    assert epochs[0][2]["weight"].item() == -0.25
