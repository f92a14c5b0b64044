"""The search space of adversarial attack. Source of the choices: SEED.md §4 and §5.

`suggest(trial, problem)` draws a configuration from an Optuna trial; `problem` holds the run's plain facts: image_size,
epochs, device, goal, channels (of the images). A parameter is called as the configuration field that it
sets, or begins so.
"""

from typing import Any

BUDGET = 3e9  # multiplications and additions an image that a CPU bears, of a generator beside its victim
# Of each generator at its size, by how they grow: a kernel that scales with the image costs as its fourth power.
COSTS = {
    "residual": lambda size, width: 0.81e9 * (size / 96) ** 2 * (width / 16) ** 2,
    "guided": lambda size, width: 0.19e9 * (size / 96) ** 2 * (width / 16) ** 2,
    "universal": lambda size, width: 0.0,
    "voc_adversarial": lambda size, width: 924e9 * (size / 300) ** 4,
    "voc_adversarial2": lambda size, width: 10.6e9 * (size / 300) ** 4,
    "voc_adversarial3": lambda size, width: 1.3e9 * (size / 300) ** 2,
}
WIDTHS = (8, 16, 24, 32, 64)  # of the residual and the guided generator


def architectures(problem: dict[str, Any]) -> tuple[str, ...]:
    """The generators that take the images; on a CPU, those that it bears."""
    if problem["image_size"] < 64:
        names = ("residual", "guided", "universal", "mnist_adversarial")
    else:
        names = tuple(name for name in COSTS if _bearable(name, WIDTHS[0], problem))
    # At an image itself the victim's answer is as wished: nothing there says which way to go.
    return tuple(name for name in names if name != "guided" or problem["goal"] != "privacy")


def widths(architecture: str, problem: dict[str, Any]) -> tuple[int, ...]:
    """Of the residual or the guided generator, those that the device bears."""
    return tuple(width for width in WIDTHS if _bearable(architecture, width, problem))


def _bearable(architecture: str, width: int, problem: dict[str, Any]) -> bool:
    return problem["device"] != "cpu" or COSTS[architecture](problem["image_size"], width) <= BUDGET


def suggest(trial: Any, problem: dict[str, Any]) -> dict[str, Any]:
    """A configuration's searched fields, as AttackConfig takes them."""
    architecture = trial.suggest_categorical("architecture", architectures(problem))
    config: dict[str, Any] = {
        "architecture": architecture,
        "batch_size": trial.suggest_categorical("batch_size", (1, 4, 8, 16, 32)),
        # In training; attacks are then judged at one visibility. Far from that strength, what is learned does not
        # carry over: below 2/255 rounding would erase it, above 64/255 everybody would see it. Without a picture to
        # keep, up to all.
        "scale": trial.suggest_float("scale", 2 / 255, 1.0 if problem["goal"] == "privacy" else 64 / 255, log=True),
        # The perturbation's squared norm is about 30 at scale 16/255 and 96 pixels, a loss about 1.
        "l2_penalty": trial.suggest_float("l2_penalty", 1e-6, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-7, 1e-2, log=True),
        # A dog mirrored is a dog, a 2 is none.
        "hflip": 0.5 if problem["channels"] == 3 else 0.0,
    }
    if problem["goal"] == "fake":  # 0: nothing is there; 1: everything is
        config["fake_label"] = trial.suggest_float("fake_label", 0, 1)
    if problem["goal"] != "privacy":  # from no effect to no visible perturbation
        config["ssim_penalty"] = trial.suggest_float("ssim_penalty", 0.1, 100, log=True)
        # 0: anywhere; 1: as much as the texture hides.
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
    if optimizer == "sgd":  # ten times the steps of the adaptive ones; of single pixels the gradients are small
        name, low, high = ("lr_sgd_universal", 3, 1000) if universal else ("lr_sgd", 1e-3, 0.3)
        config["lr"] = trial.suggest_float(name, low, high, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    elif optimizer == "adagrad":  # its steps shrink by themselves
        config["lr"] = trial.suggest_float("lr_adagrad", 1e-3, 0.1, log=True)
    elif universal:
        config["lr"] = trial.suggest_float("lr_universal", 1e-3, 0.1, log=True)
    else:  # large steps saturate the tanh, which then learns nothing
        config["lr"] = trial.suggest_float("lr", 3e-5, 3e-3, log=True)
    return config


def _schedule(trial: Any) -> dict[str, Any]:
    schedule = trial.suggest_categorical("schedule", ("one_cycle", "cosine", "constant"))
    if schedule == "one_cycle":  # it starts at lr / div_factor
        return {"schedule": schedule, "div_factor": trial.suggest_float("div_factor", 3, 50, log=True)}
    return {"schedule": schedule}


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
# Where texture hides it, a perturbation may be many times as strong.
_MASKED = {**_GAP, "contrast_masking": 0.5, "scale": 64 / 255, "l2_penalty": 1e-6, "ssim_penalty": 5.0}
_GUIDED = {**_MASKED, "architecture": "guided", "width_guided": 16, "lr": 1e-3, "ssim_penalty": 3.0}
# R5 in sound form: its scales, 0.66 and 0.1 of normalized units, are about 38 and 6 of 255.
_R5 = {
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
# R6: the digits' generator, against its own classifier.
_R6 = {
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

# Parameters to try first: the best known, then the notebook's recipes.
PORTFOLIO: tuple[dict[str, Any], ...] = (
    _GUIDED,
    _MASKED,
    {**_GUIDED, "fake_label": 0.5},
    _GAP,
    {**_MASKED, "architecture": "universal", "lr_universal": 0.02},
    _R5,
    {**_R5, "fake_label": 0.5},
    {**_R5, "fake_label": 1.0},
    {**_R5, "scale": 6 / 255},
    _R6,
)
