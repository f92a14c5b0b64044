"""The search space for semantic segmentation.

`suggest(trial, problem)` draws a configuration from an Optuna trial. `problem` contains the run's fixed values:
image_size, weights, epochs, classes (their number), masks (whether the set has any) and device. A parameter that sets a
configuration field directly has the field's name.
"""

from typing import Any

# For training from scratch on few images: networks small enough for a CPU. "unet" comes from the course notebook this
# project grew from.
SMALL = ("fpn_resnet9", "fpn_resnet18", "unet", "lraspp_mobilenet_v3_large")
# Worth their time only on a GPU.
LARGE = ("fpn_resnet50", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50")
# Whole segmenters, trained on COCO's masks of VOC's classes.
PUBLISHED = ("lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50")
# Decoders on pretrained encoders, the best known for their price first. The weights of two come with packages.
# A linear decoder that starts as a probe learns in a few epochs; others need more of them, more images, and a GPU.
FAST = ("linear/tf_efficientnet_lite0", "linear/tf_efficientnet_lite2")
FAST += ("linear/mobilenetv3_large_100.ra_in1k", "linear/resnet18.a1_in1k")
STRONG = (
    *("linear/vit_small_patch14_dinov2.lvd142m", "upernet/convnext_tiny.in12k_ft_in1k"),
    *("linear/convnext_tiny.in12k_ft_in1k", "dpt/vit_small_patch14_dinov2.lvd142m"),
    *("fpn/resnet50.a1_in1k", "linear/tf_efficientnet_lite2"),
)


def architectures(problem: dict[str, Any]) -> tuple[str, ...]:
    """The architectures worth trying: pretrained ones, or small ones from scratch; on a GPU also larger ones."""
    if problem["weights"] == "published":
        return PUBLISHED
    if problem["weights"] != "none":
        return FAST if problem["device"] == "cpu" else STRONG
    return SMALL if problem["device"] == "cpu" else SMALL + LARGE


def suggest(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """Draw the searched fields of a `SegmentConfig`."""
    whole = problem["weights"] in ("none", "published")
    return _whole(trial, problem) if whole else _transfer(trial, problem)


def _transfer(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """Fine-tuning of a pretrained encoder below a decoder that starts as a probe, if it is linear, or at random."""
    architecture = trial.suggest_categorical("architecture", architectures(problem))
    config: dict[str, Any] = {
        "architecture": architecture,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "batch_size": trial.suggest_categorical("batch_size", (8, 16)),
        # Of the encoder: above, features are destroyed; below, an epoch changes nothing.
        "lr": trial.suggest_float("lr", 5e-5, 1e-3, log=True),
        # Of the encoder: nothing, the first half of the layers, or all.
        "freeze": trial.suggest_categorical("freeze", (0.0, 0.5, 1.0)),
        "layer_decay": trial.suggest_float("layer_decay", 0.65, 1),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.1, log=True),
        # Small batches of few images spoil the statistics of millions.
        "freeze_norm": trial.suggest_categorical("freeze_norm", (True, False)),
        "hflip": 0.5,
        "crop_focus": trial.suggest_float("crop_focus", 0, 1),
        "copy_paste": trial.suggest_float("copy_paste", 0, 0.5),
    }
    if architecture.startswith("linear/"):
        config["head_init"] = "probe"
    else:
        config["head_lr"] = trial.suggest_float("head_lr", 1, 10, log=True)
    # One number for all: from crops of nearly everything to crops of a fifth of the area and strong colors.
    strength = trial.suggest_float("augmentation_strength", 0.1, 1)
    color = 0.4 * max(0.0, strength - 0.5)  # weak ones spare the colors, which often tell the class
    config |= {"crop_scale": 1 - 0.8 * strength, "brightness": color, "contrast": color, "saturation": color}
    config["loss"] = trial.suggest_categorical("loss", ("cross_entropy", "cross_entropy+dice", "object_cross_entropy"))
    if config["loss"].startswith("cross_entropy"):  # 100 background pixels per pixel of a rare class
        config["class_balance"] = trial.suggest_float("class_balance", 0, 0.8)
    if trial.suggest_categorical("ema", (False, True)):
        config["ema_memory"] = 0.2  # over the last fifth of the training
    return config


def _whole(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """Training from scratch, or of a published segmenter."""
    architecture = trial.suggest_categorical("architecture", architectures(problem))
    config: dict[str, Any] = {
        "architecture": architecture,
        # For small sets: above 16 an epoch has too few steps.
        "batch_size": trial.suggest_categorical("batch_size", (8, 16)),
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "adam", "sgd")),
    }
    # From no effect to about the most that training from scratch on few images tolerates.
    if config["optimizer"] == "adamw":
        config["weight_decay"] = trial.suggest_float("weight_decay", 1e-3, 0.1, log=True)
    else:  # an L2 penalty, which the gradients contain
        config["weight_decay"] = trial.suggest_float("weight_decay_l2", 1e-6, 1e-2, log=True)
    if config["optimizer"] == "sgd":  # ten times the adaptive lr
        config["lr"] = trial.suggest_float("lr_sgd", 3e-3, 0.2, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    else:  # pretrained weights tolerate a third of it at most
        config["lr"] = trial.suggest_float("lr", 1e-4, 1e-2 if problem["weights"] == "none" else 3e-3, log=True)
    if architecture == "unet":  # 64, as in the notebook, costs 16 times as much as 16
        widths = (16, 32) if problem["device"] == "cpu" else (16, 32, 64)
        config["width"] = trial.suggest_categorical("unet_width", widths)
    elif architecture.startswith("fpn_"):
        config["width"] = trial.suggest_categorical("fpn_width", (32, 64, 128))
    if problem["device"] != "cpu" or architecture in ("fpn_resnet9", "lraspp_mobilenet_v3_large"):
        # Training on few images benefits from repeats; each adds the time of one epoch to an epoch.
        config["aug_repeats"] = trial.suggest_int("aug_repeats", 1, 3)
    return config | _schedule(trial, problem) | _augmentation(trial) | _loss(trial) | _average(trial)


def _schedule(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    schedule = trial.suggest_categorical("schedule", ("one_cycle", "cosine", "constant"))
    config: dict[str, Any] = {"schedule": schedule}
    if schedule == "one_cycle":  # starts at lr / div_factor
        config["div_factor"] = trial.suggest_float("div_factor", 5, 100, log=True)
    elif problem["epochs"] > 4:
        config["warmup_epochs"] = trial.suggest_int("warmup_epochs", 0, 3)
    return config


def _augmentation(trial: Any) -> dict[str, Any]:
    policy = trial.suggest_categorical("augmentation", ("flip", "crop", "warp"))
    config: dict[str, Any] = {"hflip": 0.5}
    if policy != "flip":  # below a quarter of the area the object is often missing
        config["crop_scale"] = trial.suggest_float("crop_scale", 0.25, 0.9)
        config["crop_focus"] = trial.suggest_float("crop_focus", 0, 1)
    if policy == "warp":  # cropping and zooming: large-scale jitter
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
    if config["loss"].startswith("cross_entropy"):  # 100 background pixels per pixel of a rare class
        config["class_balance"] = trial.suggest_float("class_balance", 0, 0.8)
    config["sampling"] = trial.suggest_categorical("sampling", ("shuffle", "weighted", "oversample"))
    return config


def _average(trial: Any) -> dict[str, Any]:
    if not trial.suggest_categorical("ema", (False, True)):
        return {}
    return {"ema_memory": trial.suggest_float("ema_memory", 0.03, 0.3, log=True)}


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
    "loss": "object_cross_entropy",  # small classes have the same weight as large ones
    "sampling": "shuffle",
    "ema": False,
}

# The notebook's recipe, with a sound loss: class-balanced cross-entropy replaces binary cross-entropy with a positive
# weight of 100 on each class plane.
_NOTEBOOK = {
    **_MODERN,
    "architecture": "unet",
    "batch_size": 8,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay_l2": 1e-5,
    "unet_width": 32,
    "schedule": "constant",
    "warmup_epochs": 0,
    "augmentation": "flip",
    "loss": "cross_entropy",
    "class_balance": 0.5,
}

# As for classification, LP-FT (Kumar et al., 2022) with small steps and frozen batch normalization.
_PROBED = {
    "architecture": FAST[0],
    "batch_size": 16,
    "lr": 3e-4,
    "freeze": 0.0,
    "layer_decay": 0.85,
    "weight_decay": 0.01,
    "freeze_norm": True,
    "crop_focus": 0.5,
    "copy_paste": 0.0,
    "augmentation_strength": 0.6,
    "loss": "cross_entropy",
    "class_balance": 0.3,
    "ema": False,
}

# Parameters to try first, with pretrained encoders.
TRANSFER: tuple[dict[str, Any], ...] = (
    _PROBED,
    {**_PROBED, "architecture": FAST[1]},
    {**_PROBED, "architecture": STRONG[0], "lr": 5e-5, "layer_decay": 0.75},
    {**_PROBED, "architecture": STRONG[1], "lr": 1e-4, "layer_decay": 0.9, "head_lr": 10.0},
    {**_PROBED, "architecture": STRONG[2], "lr": 1e-4},
    {**_PROBED, "architecture": FAST[1], "ema": True},
    {**_PROBED, "architecture": FAST[1], "freeze": 1.0},
)

# From scratch: the best known ones, starting with the cheapest, then the notebook's recipe.
SCRATCH: tuple[dict[str, Any], ...] = (
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
    _NOTEBOOK,
    {**_NOTEBOOK, "unet_width": 64},  # with a GPU
)

PORTFOLIO = TRANSFER + SCRATCH


def portfolio(problem: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The recipes that a search begins with, if they fit: those for pretrained encoders, or the others."""
    return SCRATCH if problem["weights"] in ("none", "published") else TRANSFER
