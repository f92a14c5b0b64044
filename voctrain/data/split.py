"""The train and validation split: stratified over all labels and deterministic."""

import numpy as np


def stratified_split(labels: np.ndarray, *, val_fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images so that each class has about `val_fraction` of its images in validation.

    This is iterative stratification (Sechidis et al., 2011): starting with the rarest class, each image goes to the
    side that still needs most of that class. Unlike in the paper, a class with two or more images is wanted on both
    sides, however small its share; that fails only if images with several rare classes leave no choice.

    Args:
        labels: 0/1, (N, C).
        val_fraction: between 0 and 1, both excluded.
        seed: decides the order in which the images of a class are assigned.

    Returns:
        Sorted int64 indices of the training and the validation images.

    Raises:
        ValueError: `val_fraction` is out of range.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"0 < val_fraction < 1 must hold, but got {val_fraction}: use a fraction such as 0.2")
    labels, rng = np.asarray(labels, bool), np.random.default_rng(seed)
    count = labels.sum(0)
    val = np.where(count >= 2, np.clip(count * val_fraction, 1, count - 1), count * val_fraction)
    wanted = np.array([count - val, val])  # (2, C) images of each class that train and validation still need
    room = len(labels) * np.array([1 - val_fraction, val_fraction])  # (2,) images of any class that they still need
    side = np.full(len(labels), -1)
    while (free := side < 0).any():
        left = labels[free].sum(0)
        if left.any():
            rarest = np.where(left > 0, left, len(labels) + 1).argmin()
            members, need = free & labels[:, rarest], wanted[:, rarest]
        else:
            members, need = free, room
        for i in rng.permutation(np.flatnonzero(members)):
            side[i] = s = max((0, 1), key=lambda s: (need[s], wanted[s, labels[i]].sum(), room[s]))
            wanted[s] -= labels[i]
            room[s] -= 1
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)
