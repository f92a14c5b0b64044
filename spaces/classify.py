"""The search space for multi-label classification.

`suggest(trial, problem)` draws a configuration from an Optuna trial. `problem` contains the run's fixed values:
image_size, weights, epochs, classes (their number), masks (whether the set has any) and device. A parameter that sets a
configuration field directly has the field's name.
"""

from typing import Any

# For training from scratch on few images: networks small enough for a CPU. "simple" and "complex" come from the course
# notebook this project grew from.
SMALL = ("simple", "complex", "resnet9", "resnet18", "resnet34", "mobilenet_v3_small")
# Those with which a CPU can afford several augmented copies of each image per epoch.
LIGHT = ("simple", "complex", "resnet9", "mobilenet_v3_small")
# Worth their time only on a GPU.
LARGE = ("resnet50", "mobilenet_v3_large", "efficientnet_b0", "regnet_y_800mf", "convnext_tiny", "tinyvgg")
# Pretrained backbones, the best known for their price first. The weights of the first two come with packages.
FAST = ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "mobilenetv3_large_100.ra_in1k", "resnet18.a1_in1k")
STRONG = (
    *("convnext_tiny.in12k_ft_in1k", "vit_small_patch14_dinov2.lvd142m"),
    *("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "timm/resnet50.a1_in1k", "tf_efficientnet_lite0"),
)


def architectures(problem: dict[str, Any]) -> tuple[str, ...]:
    """The architectures worth trying: pretrained backbones, or small networks from scratch; larger ones on a GPU."""
    if problem["weights"] != "none":
        return FAST if problem["device"] == "cpu" else STRONG
    return SMALL if problem["device"] == "cpu" else SMALL + LARGE


def suggest(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """Draw the searched fields of a `ClassifyConfig`."""
    return _scratch(trial, problem) if problem["weights"] == "none" else _transfer(trial, problem)


def _transfer(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """Fine-tuning of a pretrained backbone whose head starts as a linear probe."""
    config: dict[str, Any] = {
        "architecture": trial.suggest_categorical("architecture", architectures(problem)),
        "head_init": "probe",
        "schedule": "one_cycle",
        "batch_size": trial.suggest_categorical("batch_size", (16, 32)),
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "sgd")),
        # Nothing, the first half of the layers, or all but the head, which makes it a linear probe.
        "freeze": trial.suggest_categorical("freeze", (0.0, 0.5, 1.0)),
        # From the last layers alone, nearly, to all alike. BEiT and ConvNeXt use 0.65 to 0.9.
        "layer_decay": trial.suggest_float("layer_decay", 0.65, 1),
        # Small batches of few images spoil the statistics of millions.
        "freeze_norm": trial.suggest_categorical("freeze_norm", (True, False)),
    }
    if config["optimizer"] == "sgd":
        config["lr"] = trial.suggest_float("lr_sgd", 1e-3, 3e-2, log=True)
        config["weight_decay"] = trial.suggest_float("weight_decay_l2", 1e-5, 1e-3, log=True)
    else:  # above, features are destroyed; below, an epoch changes nothing
        config["lr"] = trial.suggest_float("lr", 3e-5, 1e-3, log=True)
        config["weight_decay"] = trial.suggest_float("weight_decay", 1e-3, 0.3, log=True)
    # One number for all: from mirrored images alone to crops of a fifth of the area and strong colors.
    strength = trial.suggest_float("augmentation_strength", 0, 1)
    color = 0.4 * max(0.0, strength - 0.5)  # weak ones spare the colors, which often tell the class
    config |= {"hflip": 0.5, "crop_scale": 1 - 0.8 * strength}
    config |= {"brightness": color, "contrast": color, "saturation": color}
    config["loss"] = trial.suggest_categorical("loss", ("bce", "asymmetric"))
    if problem["masks"]:
        config["mask_pooling"] = trial.suggest_categorical("mask_pooling", (True, False))
        if config["mask_pooling"]:
            # Below this range the labels decide, of which small sets have too few; above it the masks alone.
            config["mask_loss"] = trial.suggest_float("mask_loss", 0.3, 30, log=True)
    mixing = trial.suggest_categorical("mixing", ("none", "mixup", "cutmix"))
    if mixing != "none":
        config[mixing] = 0.2
    if trial.suggest_categorical("ema", (False, True)):
        config["ema_memory"] = 0.2  # over the last fifth of the training
    return config


def _scratch(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architecture": trial.suggest_categorical("architecture", architectures(problem)),
        # For small sets: below 8 batch normalization is noisy, above 32 an epoch has too few steps.
        "batch_size": trial.suggest_categorical("batch_size", (8, 16, 32)),
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "adam", "sgd")),
    }
    # From no effect to about the most that training from scratch on few images tolerates.
    if config["optimizer"] == "adamw":
        config["weight_decay"] = trial.suggest_float("weight_decay", 1e-3, 0.3, log=True)
    else:  # an L2 penalty, which the gradients contain
        config["weight_decay"] = trial.suggest_float("weight_decay_l2", 1e-6, 1e-2, log=True)
    if config["optimizer"] == "sgd":  # ten times the adaptive lr
        config["lr"] = trial.suggest_float("lr_sgd", 1e-3, 0.2, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    else:
        config["lr"] = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    if problem["device"] != "cpu" or config["architecture"] in LIGHT:
        # Training from scratch on few images benefits from repeats; each adds the time of one epoch to an epoch.
        config["aug_repeats"] = trial.suggest_int("aug_repeats", 1, 4)
    config |= _schedule(trial, problem) | _augmentation(trial) | _loss(trial, problem) | _regularization(trial)
    return config


def _schedule(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    schedule = trial.suggest_categorical("schedule", ("one_cycle", "cosine", "step", "plateau", "linear"))
    config: dict[str, Any] = {"schedule": schedule}
    if schedule == "one_cycle":  # starts at lr / div_factor
        config["div_factor"] = trial.suggest_float("div_factor", 5, 100, log=True)
    elif schedule == "linear":  # from a decay to nearly 0 to the notebook's slight rise
        config["end_factor"] = trial.suggest_float("end_factor", 0.01, 1.2)
    elif schedule == "step":  # one to five drops
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
    if policy in ("crop", "warp"):  # below a quarter of the area the object is often missing
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
    elif color == "brightness_or_gray":  # as in the notebook: one of the two
        config |= {"brightness": 0.2, "grayscale": 0.25, "one_color": True}
    return config


def _loss(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    loss = trial.suggest_categorical("loss", ("bce", "focal", "asymmetric"))
    config: dict[str, Any] = {"loss": loss}
    if loss == "asymmetric":
        config["gamma_neg"] = trial.suggest_float("gamma_neg", 1, 4)
    else:  # 1: no positive weight; a rare class has 50 negatives per positive
        config["pos_weight_cap"] = trial.suggest_float("pos_weight_cap", 1, 50, log=True)
    if loss == "focal":
        config["focal_gamma"] = trial.suggest_float("focal_gamma", 0.5, 3)
    if problem["masks"] and trial.suggest_categorical("mask_supervision", (True, False)):
        # Below this range it has no effect; above it the labels hardly matter.
        config["mask_loss"] = trial.suggest_float("mask_loss", 0.3, 30, log=True)
    config["sampling"] = trial.suggest_categorical("sampling", ("shuffle", "weighted", "oversample"))
    return config


def _regularization(trial: Any) -> dict[str, Any]:
    mixing = trial.suggest_categorical("mixing", ("none", "mixup", "cutmix"))
    config: dict[str, Any] = {"label_smoothing": trial.suggest_float("label_smoothing", 0, 0.1)}
    if mixing != "none":
        config[mixing] = trial.suggest_float("mixing_alpha", 0.1, 1.0)
    if trial.suggest_categorical("ema", (False, True)):
        config["ema_memory"] = trial.suggest_float("ema_memory", 0.03, 0.3, log=True)
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

_PROBED = {
    "architecture": FAST[0],
    "batch_size": 32,
    "optimizer": "adamw",
    "freeze": 0.0,
    "layer_decay": 0.85,
    "freeze_norm": True,
    "lr": 3e-4,
    "weight_decay": 0.05,
    "augmentation_strength": 0.6,
    "loss": "bce",
    "mixing": "none",
    "mask_pooling": False,
    "ema": False,
}

_LOCATED = {**_PROBED, "batch_size": 16, "lr": 1e-4, "mask_pooling": True, "mask_loss": 10.0}

# Parameters to try first with pretrained weights: LP-FT (Kumar et al., 2022) with small steps and frozen batch
# normalization. Those with masks were tuned on VOC 2009 at 160 pixels; a search found the one with SGD.
TRANSFER: tuple[dict[str, Any], ...] = (
    {**_LOCATED, "architecture": FAST[1]},
    {**_LOCATED, "architecture": FAST[1], "freeze": 0.5, "layer_decay": 0.65},  # in half the time
    {**_LOCATED, "architecture": STRONG[0], "lr": 5e-5},
    {**_LOCATED, "architecture": STRONG[1], "lr": 3e-5, "layer_decay": 0.75},
    _LOCATED,
    {
        **{"architecture": FAST[1], "batch_size": 16, "optimizer": "sgd", "lr_sgd": 3e-3, "weight_decay_l2": 5e-4},
        **{"freeze": 0.5, "layer_decay": 0.7, "freeze_norm": True, "augmentation_strength": 0.3},
        **{"loss": "asymmetric", "mixing": "cutmix", "ema": False, "mask_pooling": False},
    },
    {**_PROBED, "architecture": FAST[1]},
    {**_PROBED, "architecture": STRONG[0], "lr": 1e-4},
    {**_PROBED, "architecture": STRONG[1], "lr": 5e-5, "layer_decay": 0.75},
    _PROBED,
    {**_PROBED, "freeze": 1.0},
)

# From scratch: the best known ones, then the notebook's three recipes, the slowest last. Two faults of the recipes are
# corrected: `weight=` scaled positives and negatives alike, so positive weights replace it; and augmented copies of all
# images do not change the class balance, so plain shuffling replaces them.
SCRATCH: tuple[dict[str, Any], ...] = (
    {  # for few images: a small network, each image often repeated, supervised by the masks as well
        **{**_MODERN, "architecture": "resnet9", "batch_size": 8, "lr": 2e-3, "aug_repeats": 4},
        **{"mask_supervision": True, "mask_loss": 1.0},
    },
    {
        **{**_MODERN, "architecture": "resnet9", "lr": 2e-3, "aug_repeats": 3, "color": "jitter"},
        **{"color_strength": 0.3, "mask_supervision": True, "mask_loss": 10.0},
    },
    {**_MODERN, "architecture": "complex", "mask_supervision": True, "mask_loss": 3.0},
    {  # a modern default: AdamW, one-cycle schedule, random resized crop
        **_MODERN,
        "architecture": "resnet18",
    },
    {  # the notebook's small network
        **_PLAIN,
        "architecture": "complex",
        "batch_size": 32,
        "optimizer": "sgd",
        "lr_sgd": 0.01,
        "momentum": 0.9,
        "weight_decay_l2": 1e-4,
        "schedule": "one_cycle",
        "div_factor": 0.01 / 1.5e-4,
        "augmentation": "random_ops",
        "loss": "bce",
        "pos_weight_cap": 50.0,
    },
    {  # the notebook's resnet34, with a linear schedule from 1.5e-4 to 1.7e-4
        **_PLAIN,
        "architecture": "resnet34",
        "batch_size": 16,
        "optimizer": "adam",
        "lr": 1.5e-4,
        "weight_decay_l2": 1e-4,
        "schedule": "linear",
        "end_factor": 1.7 / 1.5,
        "warmup_epochs": 0,
        "clip": "value",
        "augmentation": "random_ops",
        "loss": "bce",
        "pos_weight_cap": 50.0,
    },
    {  # the notebook's resnet50
        **_PLAIN,
        "architecture": "resnet50",
        "batch_size": 32,
        "optimizer": "sgd",
        "lr_sgd": 1e-3,
        "momentum": 0.9,
        "weight_decay_l2": 1e-4,
        "schedule": "one_cycle",
        "div_factor": 25.0,
        "augmentation": "random_ops",
        "loss": "bce",
        "pos_weight_cap": 50.0,
    },
)

PORTFOLIO = TRANSFER + SCRATCH


def portfolio(problem: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The recipes that a search begins with, if they fit: those for pretrained weights, or those from scratch."""
    if problem["weights"] == "none":
        return SCRATCH
    return tuple(entry for entry in TRANSFER if problem["masks"] or not entry["mask_pooling"])
