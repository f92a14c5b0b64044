"""Every field of a classification configuration has an effect."""

import dataclasses
import functools

import pytest
import torch

from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.models import build_classifier

TINY = {"architecture": "simple", "image_size": 32, "batch_size": 4, "epochs": 1, "precision": "float32", "lr": 0.01}

# For every field: other fields that it needs to matter, and a second value.
EFFECTS = {
    "seed": ({}, 1),
    "epochs": ({}, 2),
    "image_size": ({}, 40),
    "batch_size": ({}, 6),
    "micro_batch": ({"architecture": "tinyvgg"}, 2),  # whose batch normalization sees two images at a time
    "precision": ({}, "bfloat16"),
    "optimizer": ({}, "adam"),
    "lr": ({}, 0.02),
    "momentum": ({"optimizer": "sgd"}, 0.5),
    "weight_decay": ({}, 0.5),
    "decay_norms": ({"weight_decay": 0.5}, True),
    "clip_norm": ({"optimizer": "sgd"}, 0.01),
    "clip_value": ({"optimizer": "sgd"}, 0.001),
    "ema_memory": ({}, 0.9),
    "schedule": ({}, "cosine"),
    "warmup_epochs": ({"schedule": "constant", "epochs": 2}, 1.0),
    "div_factor": ({}, 2.0),
    "step_epochs": ({"schedule": "step", "step_epochs": 2, "epochs": 2}, 1),
    "gamma": ({"schedule": "step", "step_epochs": 1, "epochs": 2}, 0.5),
    "plateau_patience": ({"schedule": "plateau", "epochs": 3, "lr": 1e-6}, 0),
    "end_factor": ({"schedule": "linear"}, 2.0),
    "lr_by_epoch": ({"schedule": "replay", "lr_by_epoch": (0.01,)}, (0.02,)),
    "patience": ({"schedule": "constant", "epochs": 3, "lr": 0.0}, 1),
    "aug_repeats": ({}, 2),
    "hflip": ({}, 0.0),
    "vflip": ({}, 0.5),
    "rotation": ({}, 20.0),
    "translate": ({}, 0.2),
    "zoom": ({}, 0.2),
    "shear": ({}, 10.0),
    "perspective": ({}, 0.3),
    "crop_scale": ({}, 0.5),
    "brightness": ({}, 0.3),
    "contrast": ({}, 0.3),
    "saturation": ({}, 0.3),
    "hue": ({}, 0.2),
    "grayscale": ({}, 0.5),
    "one_color": ({"brightness": 0.3, "grayscale": 0.5}, True),
    "num_ops": ({"rotation": 20.0, "brightness": 0.3}, 1),
    "architecture": ({}, "complex"),
    "weights": ({}, "FILE"),
    "loss": ({}, "focal"),
    "reduction": ({}, "sum"),
    "label_smoothing": ({}, 0.1),
    "pos_weight_cap": ({}, 5.0),
    "focal_gamma": ({"loss": "focal"}, 1.0),
    "gamma_neg": ({"loss": "asymmetric"}, 2.0),
    "gamma_pos": ({"loss": "asymmetric"}, 1.0),
    "prob_shift": ({"loss": "asymmetric"}, 0.2),
    "mask_loss": ({"mask_loss": 1.0}, 2.0),
    "mask_pooling": ({"architecture": "test_resnet", "mask_loss": 1.0}, True),
    "sampling": ({}, "weighted"),
    "extra_copies": ({"sampling": "copies"}, 1),
    "copies_except": ({"sampling": "copies"}, "person"),
    "head_init": ({"architecture": "tf_efficientnet_lite0", "weights": "imagenet"}, "probe"),
    "freeze": ({}, 0.5),
    "freeze_norm": ({"architecture": "tinyvgg"}, True),
    "layer_decay": ({}, 0.5),
    "head_lr": ({}, 2.0),
    "dropout": ({}, 0.5),
    "drop_path": ({"architecture": "test_vit"}, 0.9),
    "mixup": ({}, 0.5),
    "cutmix": ({}, 1.0),
}
ON_CUDA = {"deterministic"}  # have an effect there only, see test_launches.py
CHOICES = {  # the other choices of a field, which must differ from each other too
    "optimizer": ["adamw", "adam", "sgd", "adagrad"],
    "schedule": ["one_cycle", "cosine", "plateau", "linear"],
    "loss": ["bce", "bce_weight", "focal", "asymmetric"],
    "sampling": ["shuffle", "copies", "weighted", "oversample", "undersample"],
}


@pytest.fixture(scope="module")
def outcome(draw_data, tmp_path_factory):
    """A function from options to the metrics of every epoch and the last weights."""
    path = str(tmp_path_factory.mktemp("weights") / "weights.pt")
    torch.manual_seed(5)
    torch.save(build_classifier("simple", num_classes=3, image_size=32).state_dict(), path)

    @functools.cache
    def run(config):
        data = draw_data(train=13, size=config.image_size)
        epochs = [(epoch.metrics, epoch) for epoch in classify.train(config, data)]
        return [metrics for metrics, _ in epochs], epochs[-1][1].weights

    return lambda **options: run(ClassifyConfig(**(TINY | {k: path if v == "FILE" else v for k, v in options.items()})))


def differ(one, other):
    return one[0] != other[0] or any(not torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_every_field_is_covered():
    assert EFFECTS.keys() | ON_CUDA == {field.name for field in dataclasses.fields(ClassifyConfig)}


@pytest.mark.parametrize("field", EFFECTS)
def test_every_field_has_an_effect(field, outcome):
    base, value = EFFECTS[field]
    assert differ(outcome(**base), outcome(**(base | {field: value})))


@pytest.mark.parametrize("field", CHOICES)
def test_choices_differ_from_each_other(field, outcome):
    results = [outcome(**{"epochs": 2, field: value}) for value in CHOICES[field]]
    assert all(differ(a, b) for i, a in enumerate(results) for b in results[:i])
