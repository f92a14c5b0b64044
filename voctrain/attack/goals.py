"""Goals of an attack: the loss that a generator is trained with, and the metrics of its success."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voctrain.config import given
from voctrain.data.class_names import fold, in_short
from voctrain.metrics.classification import average_precision, row_dice

# For hide and add:
OTHERS = 2.0  # weight of the other classes in the loss, relative to the target class
MAX_DELTA = 0.05  # maximum mean change of the other classes' probabilities
GOALS = ("fake", "invert", "hide:CLASS", "add:CLASS", "privacy")


@dataclass(frozen=True)
class Goal:
    """kind: fake, invert, hide, add or privacy. target: the index of the class, for hide and add."""

    kind: str
    target: int | None = None


def parse_goal(text: str, classes: Sequence[str]) -> Goal:
    """Parse the value of `--goal`. Raises `ValueError` for an unknown goal or class."""
    kind, colon, name = text.partition(":")
    if kind in ("fake", "invert", "privacy") and not colon:
        return Goal(kind)
    if kind in ("hide", "add"):
        target = next((i for i, own in enumerate(classes) if fold(own) == fold(name)), None)
        if target is None:
            known = in_short(classes, 20)
            raise ValueError(f"CLASS in goal {kind}:CLASS must be one of {known}, but got {name!r}")
        return Goal(kind, target)
    raise ValueError(f"goal must be one of {', '.join(GOALS)}, but got {text!r}")


def goal_losses(goal: Goal, logits: Tensor, clean: Tensor, decided: Tensor, fake_label: float | None) -> Tensor:
    """The distance (B,) of the victim's logits on perturbed images, (B, C), from the goal. It needs no labels.

    clean: the victim's logits on the unperturbed images. decided: its decisions on them, 0 or 1. Both (B, C), and
    unused for goal fake.
    """
    if goal.kind == "fake":
        return _bce(logits, torch.full_like(logits, given(fake_label))).mean(1)
    if goal.kind == "invert":
        return _bce(logits, 1 - decided).mean(1)
    if goal.target is None:
        return _bce(logits, clean.sigmoid()).mean(1)
    is_target = torch.arange(clean.shape[1], device=clean.device) == goal.target  # assignments cannot be exported
    wanted = torch.where(is_target, float(goal.kind == "add"), clean.sigmoid())
    return (torch.where(is_target, 1 / OTHERS, 1.0) * _bce(logits, wanted)).mean(1)


def goal_metrics(
    goal: Goal,
    y_true: np.ndarray,
    probabilities: tuple[np.ndarray, np.ndarray],
    decisions: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """The `score` of an attack and its details.

    y_true (N, C) of 0/1; probabilities and decisions: the victim's, (N, C), before and after the attack.

    score: for fake and invert, the drop of macro-F1; for hide and add, flip_rate - collateral; for privacy, agreement.
    The last three also have a constraint, see `shortfall`.
    f1_macro, f1_micro, mAP: over the classes in y_true, each also as clean_… for the unperturbed images.
    flip_rate: for hide (add), the fraction of the images in which the victim saw (did not see) the class and now does
    not (does); otherwise the fraction of all decisions that changed.
    collateral: the fraction of the decisions on other classes that changed. delta: mean |Δp| of those classes. Both are
    0 if there are no others.
    agreement: mean Dice of the decisions before and after, 1 if both are empty.
    empty: the fraction of images without any label left. labels: labels per image. confidence: mean |p - 0.5|.
    """
    y_true, (clean, attacked), (before, after) = np.asarray(y_true, bool), probabilities, decisions
    others = np.arange(y_true.shape[1]) != (-1 if goal.target is None else goal.target)
    changed = before != after
    values = {
        **quality(y_true, after, attacked),
        **{f"clean_{name}": value for name, value in quality(y_true, before, clean).items()},
        "flip_rate": changed.mean(),
        "collateral": changed[:, others].mean() if others.any() else 0.0,
        "delta": np.abs(attacked - clean)[:, others].mean() if others.any() else 0.0,
        "agreement": row_dice(before, after).mean(),
        "empty": (~after.any(1)).mean(),
        "labels": after.sum(1).mean(),
        "confidence": np.abs(attacked - 0.5).mean(),
    }
    if goal.target is not None:
        concerned = before[:, goal.target] == (goal.kind == "hide")
        values["flip_rate"] = changed[concerned, goal.target].mean() if concerned.any() else 0.0
    match goal.kind:
        case "fake" | "invert":
            score = values["clean_f1_macro"] - values["f1_macro"]
        case "hide" | "add":
            score = values["flip_rate"] - values["collateral"]
        case _:  # privacy
            score = values["agreement"]
    return {name: float(value) for name, value in ({"score": score} | values).items()}


def shortfall(goal: Goal, delta: float, ssim: float, max_ssim: float | None) -> float:
    """How far an attack violates the constraint of its goal, in [0, 1]; 0 if it satisfies it.

    hide and add: the other classes' probabilities change by at most `MAX_DELTA` on average (`delta`).
    privacy: the mean similarity to the images is at most max_ssim.
    """
    if goal.kind == "privacy":
        max_ssim = given(max_ssim)
        return max(0.0, (ssim - max_ssim) / (1 - max_ssim))
    return max(0.0, delta - MAX_DELTA) if goal.target is not None else 0.0


def quality(y_true: np.ndarray, y_pred: np.ndarray, y_prob: np.ndarray) -> dict[str, float]:
    """Macro- and micro-F1 and mAP over the classes in y_true, bool (N, C)."""
    present = y_true.any(0)
    hits, total = (y_true & y_pred).sum(0), y_true.sum(0) + y_pred.sum(0)
    return {
        "f1_macro": float((2 * hits[present] / total[present]).mean()) if present.any() else 0.0,
        "f1_micro": float(2 * hits.sum() / max(total.sum(), 1)),
        "mAP": float(average_precision(y_true, y_prob)[present].mean()) if present.any() else 0.0,
    }


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
