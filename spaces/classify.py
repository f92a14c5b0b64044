"""The search space of multi-label classification. Source of the choices: SEED.md §2 and §5.

`suggest(trial, problem)` draws a configuration from an Optuna trial; `problem` holds the run's plain facts: image_size,
weights, epochs, classes (their number), masks (whether there are any), device. A parameter is called as the
configuration field that it sets.
"""

from typing import Any

# From scratch on few images, small and middle-sized networks that a CPU trains too; the notebook's own beside them.
SMALL = ("simple", "complex", "resnet9", "resnet18", "resnet34", "mobilenet_v3_small")
# Of these a CPU can afford to see each image several times.
LIGHT = ("simple", "complex", "resnet9", "mobilenet_v3_small")
# With published weights, or with a GPU, the larger ones earn their time.
LARGE = ("resnet50", "mobilenet_v3_large", "efficientnet_b0", "regnet_y_800mf", "convnext_tiny", "tinyvgg")
PRETRAINED = (
    *("resnet18", "resnet34", "resnet50"),
    *("mobilenet_v3_large", "efficientnet_b0", "regnet_y_800mf", "convnext_tiny"),
)


def architectures(problem: dict[str, Any]) -> tuple[str, ...]:
    """The architectures worth trying: those with published weights if these are asked for, small ones on a CPU."""
    if problem["weights"] == "imagenet":
        return PRETRAINED
    return SMALL if problem["device"] == "cpu" else SMALL + LARGE


def suggest(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """A configuration's searched fields, as ClassifyConfig takes them."""
    scratch = problem["weights"] == "none"
    config: dict[str, Any] = {
        "architecture": trial.suggest_categorical("architecture", architectures(problem)),
        # Small sets: below 8 batch normalization is noisy, above 32 an epoch has too few steps.
        "batch_size": trial.suggest_categorical("batch_size", (8, 16, 32)),
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "adam", "sgd")),
        # From no effect to about as much as from-scratch training on few images bears.
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 0.3, log=True),
    }
    if config["optimizer"] == "sgd":  # ten times the steps of the adaptive ones; fine-tuning wants smaller ones
        low, high = (1e-3, 0.2) if scratch else (1e-4, 0.05)
        config["lr"] = trial.suggest_float("lr_sgd", low, high, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    else:
        low, high = (1e-4, 1e-2) if scratch else (1e-5, 3e-3)
        config["lr"] = trial.suggest_float("lr", low, high, log=True)
    if scratch and (problem["device"] != "cpu" or config["architecture"] in LIGHT):
        # Without another's knowledge few images want many repeats; each costs an epoch's time again.
        config["aug_repeats"] = trial.suggest_int("aug_repeats", 1, 4)
    config |= _schedule(trial, problem) | _augmentation(trial) | _loss(trial, problem) | _regularization(trial)
    return config


def _schedule(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    schedule = trial.suggest_categorical("schedule", ("one_cycle", "cosine", "step", "plateau", "linear"))
    config: dict[str, Any] = {"schedule": schedule}
    if schedule == "one_cycle":  # it starts at lr / div_factor
        config["div_factor"] = trial.suggest_float("div_factor", 5, 100, log=True)
    elif schedule == "linear":  # from vanishing to the notebook's gentle rise
        config["end_factor"] = trial.suggest_float("end_factor", 0.01, 1.2)
    elif schedule == "step":  # one drop at least, five at most
        config["step_epochs"] = max(1, round(problem["epochs"] * trial.suggest_float("step_part", 0.2, 0.7)))
        config["gamma"] = trial.suggest_float("gamma", 0.05, 0.5, log=True)
    elif schedule == "plateau":
        config["plateau_patience"] = trial.suggest_int("plateau_patience", 1, 5)
        config["gamma"] = trial.suggest_float("gamma", 0.05, 0.5, log=True)
    if schedule != "one_cycle" and problem["epochs"] > 4:
        config["warmup_epochs"] = trial.suggest_int("warmup_epochs", 0, 3)
    clip = trial.suggest_categorical("clip", ("none", "norm", "value"))
    config |= {"none": {}, "norm": {"clip_norm": 1.0}, "value": {"clip_value": 0.1}}[clip]
    return config


def _augmentation(trial: Any) -> dict[str, Any]:
    policy = trial.suggest_categorical("augmentation", ("flip", "crop", "warp", "random_ops"))
    config: dict[str, Any] = {"hflip": 0.5}
    if policy in ("crop", "warp"):  # below a quarter of the area the object is often gone
        config["crop_scale"] = trial.suggest_float("crop_scale", 0.25, 0.9)
    if policy == "warp":
        config["rotation"] = trial.suggest_float("rotation", 0, 30)
        config["shear"] = trial.suggest_float("shear", 0, 15)
        config["perspective"] = trial.suggest_float("perspective", 0, 0.4)
    if policy == "random_ops":  # the operations of the course notebook, of which each image gets three
        config |= {"vflip": 0.25, "rotation": 30.0, "translate": 0.1, "shear": 10.0, "perspective": 0.3, "num_ops": 3}
    color = trial.suggest_categorical("color", ("none", "jitter", "brightness_or_gray"))
    if color == "jitter":
        strength = trial.suggest_float("color_strength", 0.05, 0.5)
        config |= {"brightness": strength, "contrast": strength, "saturation": strength, "hue": strength / 5}
    elif color == "brightness_or_gray":  # the notebook's: one of the two
        config |= {"brightness": 0.2, "grayscale": 0.25, "one_color": True}
    return config


def _loss(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    loss = trial.suggest_categorical("loss", ("bce", "focal", "asymmetric"))
    config: dict[str, Any] = {"loss": loss}
    if loss == "asymmetric":
        config["gamma_neg"] = trial.suggest_float("gamma_neg", 1, 4)
    else:  # 1: no positive weight; a rare class has fifty negatives a positive
        config["pos_weight_cap"] = trial.suggest_float("pos_weight_cap", 1, 50, log=True)
    if loss == "focal":
        config["focal_gamma"] = trial.suggest_float("focal_gamma", 0.5, 3)
    if problem["masks"] and trial.suggest_categorical("mask_supervision", (True, False)):
        # Below the range it is as good as none; above it the labels are hardly looked at.
        config["mask_loss"] = trial.suggest_float("mask_loss", 0.3, 30, log=True)
    config["sampling"] = trial.suggest_categorical("sampling", ("shuffle", "weighted", "oversample"))
    return config


def _regularization(trial: Any) -> dict[str, Any]:
    mixing = trial.suggest_categorical("mixing", ("none", "mixup", "cutmix"))
    config: dict[str, Any] = {"label_smoothing": trial.suggest_float("label_smoothing", 0, 0.1)}
    if mixing != "none":
        config[mixing] = trial.suggest_float("mixing_alpha", 0.1, 1.0)
    if trial.suggest_categorical("ema", (False, True)):  # memory of 20 to 200 steps
        config["ema_decay"] = 1 - 1 / trial.suggest_float("ema_steps", 20, 200, log=True)
    return config


_PLAIN = {
    "aug_repeats": 1,
    "color": "none",
    "mixing": "none",
    "label_smoothing": 0.0,
    "mask_supervision": False,
    "ema": False,
    "sampling": "shuffle",
    "clip": "none",
}

_MODERN = {
    **_PLAIN,
    "batch_size": 16,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "schedule": "one_cycle",
    "div_factor": 25.0,
    "augmentation": "crop",
    "crop_scale": 0.4,
    "loss": "bce",
    "pos_weight_cap": 1.0,
}

# Parameters to try first: the best known, then the notebook's recipes in sound form (SEED.md §5: positive weights where
# `weight=` weighed both sides, plain shuffling for copies of everything), the slowest last.
PORTFOLIO: tuple[dict[str, Any], ...] = (
    {  # for few images: small networks that see each image often, taught by the masks, too
        **_MODERN,
        "architecture": "resnet9",
        "batch_size": 8,
        "lr": 2e-3,
        "aug_repeats": 4,
        "mask_supervision": True,
        "mask_loss": 1.0,
    },
    {
        **_MODERN,
        "architecture": "resnet9",
        "lr": 2e-3,
        "aug_repeats": 3,
        "mask_supervision": True,
        "mask_loss": 10.0,
        "color": "jitter",
        "color_strength": 0.3,
    },
    {
        **_MODERN,
        "architecture": "complex",
        "mask_supervision": True,
        "mask_loss": 3.0,
    },
    {  # plain and modern: AdamW, one cycle, random resized crop
        **_MODERN,
        "architecture": "resnet18",
    },
    {  # R1
        **_PLAIN,
        "architecture": "complex",
        "batch_size": 32,
        "optimizer": "sgd",
        "lr_sgd": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "one_cycle",
        "div_factor": 0.01 / 1.5e-4,
        "augmentation": "random_ops",
        "loss": "bce",
        "pos_weight_cap": 50.0,
    },
    {  # R3
        **_PLAIN,
        "architecture": "resnet34",
        "batch_size": 16,
        "optimizer": "adam",
        "lr": 1.5e-4,
        "weight_decay": 1e-4,
        "schedule": "linear",
        "end_factor": 1.7 / 1.5,
        "warmup_epochs": 0,
        "clip": "value",
        "augmentation": "random_ops",
        "loss": "bce",
        "pos_weight_cap": 50.0,
    },
    {  # R2
        **_PLAIN,
        "architecture": "resnet50",
        "batch_size": 32,
        "optimizer": "sgd",
        "lr_sgd": 1e-3,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "one_cycle",
        "div_factor": 25.0,
        "augmentation": "random_ops",
        "loss": "bce",
        "pos_weight_cap": 50.0,
    },
)
