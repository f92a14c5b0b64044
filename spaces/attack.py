"""The search space for adversarial attacks.

`suggest(trial, problem)` draws a configuration from an Optuna trial. `problem` contains the run's fixed values:
image_size, epochs, device, goal, and channels (of the images). The name of a parameter is, or begins with, the name of
the configuration field that it sets.

The generators other than "residual", "guided" and "universal" come from the course notebook this project grew from, and
so do the recipes at the end of the portfolio.
"""

from typing import Any

BUDGET = 3e9  # FLOP per image that a CPU can afford for a generator's forward pass, in addition to the victim
# FLOP per image, scaled from one size. Where kernels grow with the image, the cost grows with the fourth power.
COSTS = {
    "residual": lambda size, width: 0.81e9 * (size / 96) ** 2 * (width / 16) ** 2,
    "guided": lambda size, width: 0.19e9 * (size / 96) ** 2 * (width / 16) ** 2,
    "universal": lambda size, width: 0.0,
    "voc_adversarial": lambda size, width: 924e9 * (size / 300) ** 4,
    "voc_adversarial2": lambda size, width: 10.6e9 * (size / 300) ** 4,
    "voc_adversarial3": lambda size, width: 1.3e9 * (size / 300) ** 2,
}
WIDTHS = (8, 16, 24, 32, 64)  # of the residual and guided generators


def architectures(problem: dict[str, Any]) -> tuple[str, ...]:
    """The generators that work at this image size and, on a CPU, are affordable."""
    if problem["image_size"] < 64:
        names = ("residual", "guided", "universal", "mnist_adversarial")
    else:
        names = tuple(name for name in COSTS if _affordable(name, WIDTHS[0], problem))
    # "guided" also sees the objective's gradient at the original image. With goal "privacy" the victim's answer should
    # stay the same, so that gradient is zero.
    return tuple(name for name in names if name != "guided" or problem["goal"] != "privacy")


def widths(architecture: str, problem: dict[str, Any]) -> tuple[int, ...]:
    """The widths of the residual or guided generator that the device can afford."""
    return tuple(width for width in WIDTHS if _affordable(architecture, width, problem))


def _affordable(architecture: str, width: int, problem: dict[str, Any]) -> bool:
    return problem["device"] != "cpu" or COSTS[architecture](problem["image_size"], width) <= BUDGET


def suggest(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """Draw the searched fields of an `AttackConfig`."""
    architecture = trial.suggest_categorical("architecture", architectures(problem))
    config: dict[str, Any] = {
        "architecture": architecture,
        "batch_size": trial.suggest_categorical("batch_size", (1, 4, 8, 16, 32)),
        # Strength in training. Attacks are evaluated at one visibility, and what is learned far from that strength does
        # not transfer: below 2/255 rounding to 8 bits erases it, above 64/255 it is plainly visible. With goal
        # "privacy" the image should be hidden, so the strength may reach 1.
        "scale": trial.suggest_float("scale", 2 / 255, 1.0 if problem["goal"] == "privacy" else 64 / 255, log=True),
        # At scale 16/255 and 96 pixels the perturbation's squared norm is about 30, while the loss is about 1.
        "l2_penalty": trial.suggest_float("l2_penalty", 1e-6, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-7, 1e-2, log=True),
        # A mirrored dog is still a dog, but a mirrored 2 is not a 2.
        "hflip": 0.5 if problem["channels"] == 3 else 0.0,
    }
    if problem["goal"] == "fake":  # 0: no class is present; 1: all are
        config["fake_label"] = trial.suggest_float("fake_label", 0, 1)
    if problem["goal"] != "privacy":  # from no effect to an invisible perturbation
        config["ssim_penalty"] = trial.suggest_float("ssim_penalty", 0.1, 100, log=True)
        # 0: equally strong everywhere; 1: in proportion to the local texture, which hides it.
        config["contrast_masking"] = trial.suggest_float("contrast_masking", 0, 1)
    if architecture != "universal":
        config["activation"] = trial.suggest_categorical("activation", ("relu", "leaky_relu", "gelu", "sigmoid"))
    if architecture in ("residual", "guided"):
        config["width"] = trial.suggest_categorical(f"width_{architecture}", widths(architecture, problem))
    elif architecture != "universal":
        config["middle"] = trial.suggest_categorical("middle", (False, True))
    return config | _optimizer(trial, universal=architecture == "universal") | _schedule(trial)


def _optimizer(trial: Any, *, universal: bool) -> dict[str, Any]:
    optimizer = trial.suggest_categorical("optimizer", ("adam", "adamw", "adagrad", "sgd"))
    config: dict[str, Any] = {"optimizer": optimizer}
    if optimizer == "sgd":  # ten times the adaptive lr; gradients of single pixels are small
        name, low, high = ("lr_sgd_universal", 3, 1000) if universal else ("lr_sgd", 1e-3, 0.3)
        config["lr"] = trial.suggest_float(name, low, high, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    elif optimizer == "adagrad":  # its steps shrink over time
        config["lr"] = trial.suggest_float("lr_adagrad", 1e-3, 0.1, log=True)
    elif universal:
        config["lr"] = trial.suggest_float("lr_universal", 1e-3, 0.1, log=True)
    else:  # large steps saturate the tanh, whose gradient then vanishes
        config["lr"] = trial.suggest_float("lr", 3e-5, 3e-3, log=True)
    return config


def _schedule(trial: Any) -> dict[str, Any]:
    schedule = trial.suggest_categorical("schedule", ("one_cycle", "cosine", "constant"))
    if schedule == "one_cycle":  # starts at lr / div_factor
        return {"schedule": schedule, "div_factor": trial.suggest_float("div_factor", 3, 50, log=True)}
    return {"schedule": schedule}


# Generative adversarial perturbations (Poursaeed et al., 2018).
_GAP = {
    "architecture": "residual",
    "batch_size": 8,
    "scale": 16 / 255,
    "l2_penalty": 1e-4,
    "ssim_penalty": 3.0,
    "contrast_masking": 0.0,
    "weight_decay": 1e-7,
    "fake_label": 0.0,
    "activation": "relu",
    "width_residual": 16,
    "optimizer": "adam",
    "lr": 5e-4,
    "schedule": "one_cycle",
    "div_factor": 10.0,
}
# Where texture hides it, a perturbation may be several times as strong.
_MASKED = {**_GAP, "contrast_masking": 0.5, "scale": 64 / 255, "l2_penalty": 1e-6, "ssim_penalty": 5.0}
_GUIDED = {**_MASKED, "architecture": "guided", "width_guided": 16, "lr": 1e-3, "ssim_penalty": 3.0}
# The notebook's attack on VOC images. Its scales of 0.66 and 0.1 in normalized units are about 38/255 and 6/255 in
# pixel space. Its leaky ReLU had slope 1, which is the identity; here the slope is the usual one.
_NOTEBOOK = {
    **_GAP,
    "architecture": "voc_adversarial3",
    "activation": "leaky_relu",
    "middle": True,
    "batch_size": 1,
    "scale": 38 / 255,
    "ssim_penalty": 0.1,
    "optimizer": "adagrad",
    "lr_adagrad": 0.01,
    "schedule": "constant",
}
# The notebook's attack on digits.
_DIGITS = {
    **_GAP,
    "architecture": "mnist_adversarial",
    "middle": False,
    "scale": 64 / 255,
    "fake_label": 0.1,
    "optimizer": "sgd",
    "lr_sgd": 1e-3,
    "momentum": 0.9,
    "schedule": "constant",
}

# Parameters to try first: the best known ones, then the notebook's recipes.
PORTFOLIO: tuple[dict[str, Any], ...] = (
    _GUIDED,
    _MASKED,
    {**_GUIDED, "fake_label": 0.5},
    _GAP,
    {**_MASKED, "architecture": "universal", "lr_universal": 0.02},
    _NOTEBOOK,
    {**_NOTEBOOK, "fake_label": 0.5},
    {**_NOTEBOOK, "fake_label": 1.0},
    {**_NOTEBOOK, "scale": 6 / 255},
    _DIGITS,
)
