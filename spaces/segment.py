"""The search space of semantic segmentation. Source of the choices: SEED.md §3 and §5.

`suggest(trial, problem)` draws a configuration from an Optuna trial; `problem` holds the run's plain facts: image_size,
weights, epochs, classes (their number), masks (whether there are any), device. A parameter is called as the
configuration field that it sets.
"""

from typing import Any

# From scratch on few images, networks that a CPU trains too.
SMALL = ("fpn_resnet9", "fpn_resnet18", "unet", "lraspp_mobilenet_v3_large")
# With published weights, or with a GPU, the larger ones earn their time.
LARGE = ("fpn_resnet50", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50")
PRETRAINED = ("fpn_resnet18", "fpn_resnet34", "lraspp_mobilenet_v3_large", *LARGE)
PUBLISHED = ("lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50")


def architectures(problem: dict[str, Any]) -> tuple[str, ...]:
    """The architectures worth trying: those with published weights if these are asked for, small ones on a CPU."""
    if problem["weights"] in ("imagenet", "published"):
        return PRETRAINED if problem["weights"] == "imagenet" else PUBLISHED
    return SMALL if problem["device"] == "cpu" else SMALL + LARGE


def suggest(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """A configuration's searched fields, as SegmentConfig takes them."""
    architecture = trial.suggest_categorical("architecture", architectures(problem))
    config: dict[str, Any] = {
        "architecture": architecture,
        # Small sets: above 16 an epoch has too few steps.
        "batch_size": trial.suggest_categorical("batch_size", (8, 16)),
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "adam", "sgd")),
        # From no effect to about as much as from-scratch training on few images bears.
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 0.1, log=True),
    }
    if config["optimizer"] == "sgd":  # ten times the steps of the adaptive ones
        config["lr"] = trial.suggest_float("lr_sgd", 3e-3, 0.2, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    else:  # learned weights bear no more than a third of this
        config["lr"] = trial.suggest_float("lr", 1e-4, 1e-2 if problem["weights"] == "none" else 3e-3, log=True)
    if architecture == "unet":  # 64, the notebook's, costs sixteen times as much as 16
        widths = (16, 32) if problem["device"] == "cpu" else (16, 32, 64)
        config["width"] = trial.suggest_categorical("unet_width", widths)
    elif architecture.startswith("fpn_"):
        config["width"] = trial.suggest_categorical("fpn_width", (32, 64, 128))
    if problem["device"] != "cpu" or architecture in ("fpn_resnet9", "lraspp_mobilenet_v3_large"):
        # Few images want many looks; each view costs an epoch's time again.
        config["aug_repeats"] = trial.suggest_int("aug_repeats", 1, 3)
    return config | _schedule(trial, problem) | _augmentation(trial) | _loss(trial) | _average(trial)


def _schedule(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    schedule = trial.suggest_categorical("schedule", ("one_cycle", "cosine", "constant"))
    config: dict[str, Any] = {"schedule": schedule}
    if schedule == "one_cycle":  # it starts at lr / div_factor
        config["div_factor"] = trial.suggest_float("div_factor", 5, 100, log=True)
    elif problem["epochs"] > 4:
        config["warmup_epochs"] = trial.suggest_int("warmup_epochs", 0, 3)
    return config


def _augmentation(trial: Any) -> dict[str, Any]:
    policy = trial.suggest_categorical("augmentation", ("flip", "crop", "warp"))
    config: dict[str, Any] = {"hflip": 0.5}
    if policy != "flip":  # below a quarter of the area the object is often gone
        config["crop_scale"] = trial.suggest_float("crop_scale", 0.25, 0.9)
        config["crop_focus"] = trial.suggest_float("crop_focus", 0, 1)
    if policy == "warp":  # crops and scales: large-scale jitter
        config["rotation"] = trial.suggest_float("rotation", 0, 20)
        config["zoom"] = trial.suggest_float("zoom", 0, 0.5)
    config["copy_paste"] = trial.suggest_float("copy_paste", 0, 0.8)
    if trial.suggest_categorical("color", ("none", "jitter")) == "jitter":
        strength = trial.suggest_float("color_strength", 0.05, 0.5)
        config |= {"brightness": strength, "contrast": strength, "saturation": strength, "hue": strength / 5}
    return config


def _loss(trial: Any) -> dict[str, Any]:
    losses = ("cross_entropy", "cross_entropy+dice", "cross_entropy+lovasz", "object_cross_entropy")
    config: dict[str, Any] = {"loss": trial.suggest_categorical("loss", losses)}
    if config["loss"].startswith("cross_entropy"):  # background has a hundred pixels to one of a rare class
        config["class_balance"] = trial.suggest_float("class_balance", 0, 0.8)
    config["sampling"] = trial.suggest_categorical("sampling", ("shuffle", "weighted", "oversample"))
    return config


def _average(trial: Any) -> dict[str, Any]:
    if not trial.suggest_categorical("ema", (False, True)):
        return {}
    return {"ema_decay": 1 - 1 / trial.suggest_float("ema_steps", 20, 200, log=True)}  # memory in steps


_MODERN = {
    "batch_size": 16,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.05,
    "fpn_width": 64,
    "aug_repeats": 1,
    "schedule": "one_cycle",
    "div_factor": 25.0,
    "augmentation": "crop",
    "crop_scale": 0.4,
    "crop_focus": 0.5,
    "copy_paste": 0.0,
    "color": "none",
    "loss": "object_cross_entropy",  # small classes weigh as much as large ones
    "sampling": "shuffle",
    "ema": False,
}

# R4 in sound form: cross-entropy with balanced classes for a positive weight on every plane.
_R4 = {
    **_MODERN,
    "architecture": "unet",
    "batch_size": 8,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 1e-5,
    "unet_width": 32,
    "schedule": "constant",
    "warmup_epochs": 0,
    "augmentation": "flip",
    "loss": "cross_entropy",
    "class_balance": 0.5,
}

# Parameters to try first: the best we know, the cheap ones first, and the notebook's recipe.
PORTFOLIO: tuple[dict[str, Any], ...] = (
    {**_MODERN, "architecture": "fpn_resnet9", "lr": 2e-3},
    {
        **_MODERN,
        "architecture": "fpn_resnet9",
        "lr": 2e-3,
        "aug_repeats": 3,
        "copy_paste": 0.3,
        "color": "jitter",
        "color_strength": 0.3,
    },
    {**_MODERN, "architecture": "fpn_resnet18"},
    _R4,
    {**_R4, "unet_width": 64},  # with a GPU
)
