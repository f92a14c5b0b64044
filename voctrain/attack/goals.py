"""What an attack is to make of the victim's answers: how that is taught, and how its success is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voctrain.metrics.classification import average_precision, row_dice

# Of hide and add:
OTHERS = 2.0  # what the answer to another class weighs against that to the class aimed at
MOST_DELTA = 0.05  # mean change of the other classes' probabilities above which they have not been kept
GOALS = ("fake", "invert", "hide:CLASS", "add:CLASS", "privacy")


@dataclass(frozen=True)
class Goal:
    """fake, invert, hide, add or privacy; of hide and add, the index of the class."""

    kind: str
    target: int | None = None


def parse_goal(text: str, classes: Sequence[str]) -> Goal:
    """The goal that `--goal` names. Raises `ValueError` for an unknown goal or class."""
    kind, colon, name = text.partition(":")
    if kind in ("fake", "invert", "privacy") and not colon:
        return Goal(kind)
    if kind in ("hide", "add"):
        if name not in classes:
            raise ValueError(f"goal {kind}:CLASS takes one of {', '.join(classes)}, but got {name!r}")
        return Goal(kind, list(classes).index(name))
    raise ValueError(f"goal must be one of {', '.join(GOALS)}, but got {text!r}")


def goal_losses(goal: Goal, logits: Tensor, clean: Tensor, decided: Tensor, fake_label: float | None) -> Tensor:
    """How far the victim's logits on perturbed images, (B, C), are from the goal, (B,); no truth is needed.

    clean: its logits on the images themselves; decided: its decisions there, 0 or 1.
    """
    if goal.kind == "fake":
        return _bce(logits, torch.full_like(logits, fake_label)).mean(1)
    if goal.kind == "invert":
        return _bce(logits, 1 - decided).mean(1)
    wanted, weights = clean.sigmoid(), torch.ones_like(clean[:1])
    if goal.target is not None:
        wanted[:, goal.target] = float(goal.kind == "add")
        weights[:, goal.target] = 1 / OTHERS
    return (weights * _bce(logits, wanted)).mean(1)


def goal_metrics(
    goal: Goal,
    y_true: np.ndarray,
    probabilities: tuple[np.ndarray, np.ndarray],
    decisions: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """Success `score` and its details; y_true (N, C) of 0/1, the victim's answers (N, C) before and after the attack.

    score: of fake and invert, macro-F1 before - after; of hide and add, flip_rate - collateral; of privacy, agreement.
    What else the last three must keep to: see `shortfall`.

    f1_macro, f1_micro and mAP are over the classes in y_true, each also as clean_…. flip_rate: of hide (add), the part
    of the images in which the victim saw (did not see) the class and now does not (does); else the part of all
    decisions that changed. collateral: the part of the decisions on other classes that changed; delta: mean |Δp| of
    those classes. agreement: mean Dice of the classes before and after (1 where both are empty). empty: part of the
    images with no label left; labels: labels an image; confidence: mean |p - 0.5|.
    """
    y_true, (clean, attacked), (before, after) = np.asarray(y_true, bool), probabilities, decisions
    others = np.arange(y_true.shape[1]) != (-1 if goal.target is None else goal.target)
    changed = before != after
    values = {
        **quality(y_true, after, attacked),
        **{f"clean_{name}": value for name, value in quality(y_true, before, clean).items()},
        "flip_rate": changed.mean(),
        "collateral": changed[:, others].mean(),
        "delta": np.abs(attacked - clean)[:, others].mean(),
        "agreement": (row_dice(before, after) + ~(before | after).any(1)).mean(),
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
        case "privacy":
            score = values["agreement"]
    return {name: float(value) for name, value in ({"score": score} | values).items()}


def shortfall(goal: Goal, delta: float, ssim: float, max_ssim: float | None) -> float:
    """By how much an attack misses what its goal must keep to, in [0, 1]; 0: it keeps to it.

    hide and add: the other classes' probabilities change by at most 0.05 on average (`delta`). privacy: the mean
    similarity to the images is at most max_ssim.
    """
    if goal.kind == "privacy":
        return max(0.0, (ssim - max_ssim) / (1 - max_ssim))
    return max(0.0, delta - MOST_DELTA) if goal.target is not None else 0.0


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
