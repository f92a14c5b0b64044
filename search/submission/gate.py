"""The gate: classes that the classifier does not see in an image are suppressed in its mask."""

from typing import NamedTuple

import numpy as np

STRENGTHS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
FOLDS = 5


class Gate(NamedTuple):
    """A fitted gate, and the mean Dice of held-out masks with and without it."""

    strength: float
    dice: float
    dice_without: float


def log_prior(probabilities: np.ndarray, strength: float) -> np.ndarray:
    """What to add to the logits of each image, (N, 1 + C): strength · log p for a class, 0 for the background."""
    logs = strength * np.log(np.clip(probabilities, 1e-6, 1))
    return np.concatenate([np.zeros((len(logs), 1)), logs], axis=1)


def fit_gate(dice: np.ndarray, *, seed: int = 0) -> Gate:
    """The strength with the greatest mean Dice on held-out images; its Dice is cross-validated.

    dice: of each image at each of `STRENGTHS`, (strengths, N). A strength that does not win on images that took no part
    in its choice becomes 0.
    """
    fold = np.random.default_rng(seed).permutation(dice.shape[1]) % FOLDS
    held_out = np.concatenate([_best(dice[:, fold != k], dice[:, fold == k]) for k in np.unique(fold)])
    without, crossed = float(dice[0].mean()), float(held_out.mean())
    if crossed > without:
        return Gate(STRENGTHS[int(dice.mean(1).argmax())], crossed, without)
    return Gate(0.0, without, without)


def _best(fit: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    return held_out[fit.mean(1).argmax()] if fit.shape[1] else held_out[0]
