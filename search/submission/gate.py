"""The classifier's word on a segmentation: classes that it does not see in an image are suppressed there."""

import numpy as np

STRENGTHS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
FOLDS = 5


def log_prior(probabilities: np.ndarray, strength: float) -> np.ndarray:
    """What to add to the logits of an image's classes, (N, 1 + C): strength · log p, and nothing to background."""
    logs = strength * np.log(np.clip(probabilities, 1e-6, 1))
    return np.concatenate([np.zeros((len(logs), 1)), logs], axis=1)


def fit_strength(dice: np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """The strength of greatest mean row Dice on held-out images, that mean cross-validated, and the mean without it.

    dice: of each image at each of `STRENGTHS`, (strengths, N). A strength that does not win on images that took no part
    in its choice is 0.
    """
    fold = np.random.default_rng(seed).permutation(dice.shape[1]) % FOLDS
    held_out = np.concatenate([_best(dice[:, fold != k], dice[:, fold == k]) for k in np.unique(fold)])
    without, crossed = float(dice[0].mean()), float(held_out.mean())
    return (STRENGTHS[int(dice.mean(1).argmax())], crossed, without) if crossed > without else (0.0, without, without)


def _best(fit: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    return held_out[fit.mean(1).argmax()] if fit.shape[1] else held_out[0]
