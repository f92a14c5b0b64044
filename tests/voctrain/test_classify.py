import dataclasses
import hashlib
import io
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import nn

from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.models import Classifier, build_classifier
from voctrain.seeding import seed_epoch

TINY = {"architecture": "simple", "image_size": 32, "batch_size": 4, "epochs": 1, "precision": "float32", "lr": 0.01}
STILL = {"lr": 0.0, "schedule": "constant", "hflip": 0.0}  # no weight changes
EVERYTHING = {
    **{"vflip": 0.5, "rotation": 30, "translate": 0.1, "zoom": 0.2, "shear": 10, "perspective": 0.2},
    **{"crop_scale": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1, "grayscale": 0.2},
    **{"mixup": 0.4, "cutmix": 1.0, "sampling": "weighted", "ema_memory": 0.9, "mask_loss": 1.0},
}


def trained(data, **options):
    """The epochs of a training and its last weights."""
    epochs, weights = [], {}
    for epoch in classify.train(ClassifyConfig(**(TINY | options)), data):
        epochs.append(epoch)
        weights = {name: tensor.clone() for name, tensor in epoch.weights.items()}
    return epochs, weights


def through_a_file(saved):
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_training_is_deterministic(draw_data):
    (first, weights), (second, again) = (trained(draw_data(), **EVERYTHING) for _ in range(2))
    assert [e.metrics for e in first] == [e.metrics for e in second]
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


GOLDEN = [  # train_loss, val_loss, val_mAP
    [0.66741, 0.75446, 0.82872],
    [0.60705, 0.55439, 0.92040],
    [0.51058, 0.50725, 0.93560],
]


def test_golden_curve(draw_data):
    epochs, _ = trained(draw_data(train=24, val=24), epochs=3, lr=0.003, rotation=10.0, brightness=0.2)
    curve = [[e.metrics[name] for name in ("train_loss", "val_loss", "val_mAP")] for e in epochs]
    assert np.allclose(curve, GOLDEN, rtol=0, atol=1e-3), curve


@pytest.mark.parametrize("options", [{}, {"architecture": "complex"}, {"optimizer": "sgd", "lr": 0.1}])
def test_training_overfits_one_batch(draw_data, options):
    epochs, _ = trained(draw_data(train=6), **({"batch_size": 6, "epochs": 60, "hflip": 0.0} | options))
    assert epochs[0].metrics["train_loss"] > 0.3
    assert epochs[-1].metrics["train_loss"] < 0.02
    assert epochs[-1].metrics["train_mAP"] == 1


def test_metrics_are_flat_floats_computed_from_predictions(draw_data):
    data = draw_data()
    ((epoch,), _) = trained(data)
    names = {"accuracy", "precision", "recall", "f1", "f1_macro", "mAP", "dice", "loss"}
    assert epoch.metrics.keys() == {"lr"} | {f"{fold}_{name}" for fold in ("train", "val") for name in names}
    assert all(type(value) is float for value in epoch.metrics.values())
    assert epoch.predictions["ids"].tolist() == [f"image {i}" for i in range(8)]
    y_true, y_prob = epoch.predictions["y_true"], epoch.predictions["y_prob"]
    assert np.array_equal(y_true, data.labels[:8])
    assert y_prob.dtype == np.float32
    assert epoch.metrics["val_mAP"] == pytest.approx(average_precision_score(y_true, y_prob, average="macro"))


def test_early_stopping_without_gain(draw_data):
    epochs, _ = trained(draw_data(), **(STILL | {"epochs": 9, "patience": 2}))
    assert [epoch.number for epoch in epochs] == [1, 2, 3]


@pytest.mark.parametrize(("batch_size", "message"), [(4, "training loss became nan in epoch 1"), (12, "validation")])
def test_divergence_raises(draw_data, batch_size, message):
    with pytest.raises(FloatingPointError, match=message):
        trained(draw_data(), optimizer="sgd", lr=1e30, schedule="constant", batch_size=batch_size)


def checksums(data):
    arrays = (getattr(data, name) for name in ("images", "labels", "train", "val"))
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


@pytest.mark.parametrize("writeable", [True, False])
def test_shared_arrays_are_not_modified(draw_data, writeable):
    data = draw_data(train=13)
    for array in (data.images, data.labels, data.train, data.val):
        array.flags.writeable = writeable
    before = checksums(data)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, weights = trained(data, **EVERYTHING)
            model, config = classify.restore(
                classify.checkpoint(ClassifyConfig(**TINY), data, weights, {"val_mAP": 0.5})
            )
            classify.predict(model, data.images, config, flip=True)
    finally:
        torch.set_warn_always(always)
    assert checksums(data) == before


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"architecture": "tinyvgg", "precision": "bfloat16", "ema_memory": 0.9},
        {"architecture": "shufflenet_v2_x0_5", "image_size": 48},
    ],
)
def test_restored_model_predicts_exactly_what_was_scored(draw_data, options):
    config = ClassifyConfig(**(TINY | {"epochs": 2} | options))
    data = draw_data(train=8, val=70, size=config.image_size)  # more than an evaluation batch
    for epoch in classify.train(config, data):
        saved = through_a_file(classify.checkpoint(config, data, epoch.weights, epoch.metrics))
        model, restored = classify.restore(saved)
        assert restored == config
        y_prob = classify.predict(model, data.images[data.val], restored)
        assert np.array_equal(y_prob, epoch.predictions["y_prob"])
        metrics = classify.classify_metrics(data.labels[data.val], y_prob)
        assert {name: epoch.metrics[name] for name in metrics} == metrics


def test_checkpoint_contents(draw_data):
    data = draw_data()
    (epoch,), weights = trained(data)
    config = ClassifyConfig(**TINY)
    saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
    assert saved.keys() == {"task", "config", "classes", "image_size", "resize", "mean", "std", "metrics", "model"}
    assert (saved["task"], saved["classes"], saved["image_size"]) == ("classify", ["cat", "dog", "person"], 32)
    assert saved["config"] == config.to_dict()
    assert saved["metrics"] == epoch.metrics
    pixels = data.images[data.train].reshape(-1, 3) / 255  # of the training fold alone
    assert saved["mean"] == pytest.approx(pixels.mean(0).tolist())
    assert saved["std"] == pytest.approx(pixels.std(0).tolist())
    epoch.weights["net.0.weight"].zero_()  # as a later epoch would
    assert torch.equal(saved["model"]["net.0.weight"], weights["net.0.weight"])


def test_flip_averages_probabilities(draw_data):
    images = draw_data().images
    torch.manual_seed(0)
    model = build_classifier("simple", num_classes=3, image_size=32).eval()
    config = ClassifyConfig(**TINY)
    plain = classify.predict(model, images, config)
    mirrored = classify.predict(model, np.ascontiguousarray(images[:, :, ::-1]), config)
    assert not np.allclose(plain, mirrored)
    assert np.allclose(classify.predict(model, images, config, flip=True), (plain + mirrored) / 2, rtol=0, atol=1e-7)
    by_hand = model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).sigmoid().detach().numpy()
    assert np.allclose(plain, by_hand, rtol=0, atol=1e-5)


def test_without_validation_images(draw_data):
    data = draw_data().all_train()
    epochs, _ = trained(data, epochs=3, patience=1, schedule="plateau", plateau_patience=0)
    assert len(epochs) == 3
    for epoch in epochs:
        assert not any(name.startswith("val_") for name in epoch.metrics)
        assert epoch.predictions == {}
        assert epoch.metrics["lr"] == 0.01  # no score, no plateau


class WithAuxiliary(nn.Module):
    """Constant logits 0, and auxiliary logits 1 and -2 in train mode."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self, images):
        logits = (images.mean((2, 3)) * self.weight).float()
        return (logits, logits + 1, logits - 2) if self.training else logits


def test_auxiliary_outputs_enter_the_loss(draw_data, monkeypatch):
    monkeypatch.setattr(
        classify, "build_classifier", lambda *args, **kwargs: Classifier(WithAuxiliary(), input_size=32)
    )
    data = draw_data(train=12)
    ((epoch,), _) = trained(data, **STILL)
    target = torch.tensor(data.labels[data.train], dtype=torch.float32)
    auxiliary = [F.binary_cross_entropy_with_logits(torch.full((12, 3), value), target).item() for value in (1.0, -2.0)]
    assert epoch.metrics["train_loss"] == pytest.approx(math.log(2) + 0.3 * sum(auxiliary))
    assert epoch.metrics["val_loss"] == pytest.approx(math.log(2))


@pytest.mark.parametrize(("batch_size", "train", "images"), [(4, 12, 4), (16, 12, 12)])
def test_summed_losses_of_both_folds_are_scaled_to_one_batch(draw_data, batch_size, train, images):
    data = draw_data(train=train)
    ((mean,), _), ((summed,), _) = (
        trained(data, **STILL, batch_size=batch_size, reduction=reduction) for reduction in ("mean", "sum")
    )
    for name in ("train_loss", "val_loss"):
        assert summed.metrics[name] == pytest.approx(mean.metrics[name] * images * len(data.classes), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "adagrad"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "plateau", "linear", "constant"])
def test_every_optimizer_works_with_every_schedule(draw_data, optimizer, schedule):
    epochs, _ = trained(draw_data(train=4), optimizer=optimizer, schedule=schedule, epochs=2)
    assert len(epochs) == 2


def test_momentum_stays_as_configured_under_one_cycle(draw_data):
    (epoch,), _ = trained(draw_data(), optimizer="sgd", momentum=0.7)
    assert {group["momentum"] for group in epoch.state["optimizer"]["param_groups"]} == {0.7}


@pytest.mark.parametrize("name", ["tinyvgg", "resnet18"])
def test_odd_number_of_images_in_batches_of_two(draw_data, name):
    epochs, _ = trained(draw_data(train=3), architecture=name, batch_size=2)  # batch normalization of 1 × 1 maps
    assert math.isfinite(epochs[0].metrics["train_loss"])


def test_unknown_class_raises(draw_data):
    with pytest.raises(ValueError, match="copies_except must be one of cat, dog, person, but got 'cow'"):
        trained(draw_data(), sampling="copies", copies_except="cow")


def test_mask_heads_are_trained_but_not_saved(draw_data):
    data, config = draw_data(), ClassifyConfig(**TINY, mask_loss=1.0)
    (epoch,) = classify.train(config, data)
    assert any(name.startswith("mask_heads.") for name in epoch.state["model"])
    saved = through_a_file(classify.checkpoint(config, data, epoch.weights, epoch.metrics))
    model, config = classify.restore(saved)
    assert {name for name in saved["model"] if name.startswith("mask_heads.")} == set()
    y_prob = classify.predict(model, data.images[data.val], config)
    np.testing.assert_allclose(y_prob, epoch.predictions["y_prob"], atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_pooled_masks_are_trained_and_saved(draw_data, name):
    data, config = draw_data(), ClassifyConfig(**TINY | {"architecture": name, "mask_loss": 1.0, "mask_pooling": True})
    seed_epoch(config.seed, 0)
    before = classify.new_model(config, data).state_dict()
    (epoch,) = classify.train(config, data)
    layers = [name for name in before if name.startswith("mask_heads.layers.") and name.endswith("weight")]
    assert layers
    assert not any(torch.equal(epoch.weights[name], before[name]) for name in layers)
    saved = through_a_file(classify.checkpoint(config, data, epoch.weights, epoch.metrics))
    model, config = classify.restore(saved)
    y_prob = classify.predict(model, data.images[data.val], config)
    np.testing.assert_allclose(y_prob, epoch.predictions["y_prob"], atol=1e-6)
    model.mask_heads = None
    assert not np.allclose(classify.predict(model, data.images[data.val], config), y_prob, atol=1e-3)


@pytest.mark.parametrize("mask_pooling", [False, True])
def test_weights_may_come_from_pooled_masks(draw_data, tmp_path, mask_pooling):
    """Whatever the checkpoint has besides the network, the network and its normalization are taken."""
    data, path = draw_data(), str(tmp_path / "weights.pt")
    pooled = TINY | {"architecture": "test_resnet", "mask_loss": 1.0, "mask_pooling": True}
    (epoch,) = classify.train(ClassifyConfig(**pooled), data)
    torch.save(classify.checkpoint(ClassifyConfig(**pooled), data, epoch.weights, epoch.metrics), path)
    model = classify.new_model(ClassifyConfig(**pooled | {"weights": path, "mask_pooling": mask_pooling}), data)
    assert model.own_normalization
    assert all(torch.equal(v, epoch.weights[f"net.{k}"]) for k, v in model.net.state_dict().items())


def test_errors_state_what_mask_loss_requires(draw_data):
    without = dataclasses.replace(draw_data(), masks=None)
    with pytest.raises(ValueError, match="mask_loss requires masks, but these data have none: omit mask_loss"):
        trained(without, mask_loss=1.0)
    with pytest.raises(ValueError, match="mask_pooling requires masks, but these data have none: omit mask_pooling"):
        trained(without, mask_pooling=True)
