"""One split a data set: multi-label stratified, the same each time."""

import numpy as np


def stratified_split(labels: np.ndarray, *, val_fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images so that each class has about `val_fraction` of its images in validation.

    Iterative stratification (Sechidis et al., 2011): the rarest class first, each of its images to the side that still
    wants most of that class. Unlike there, a class of two images or more is wanted on both sides, however small its
    part; that fails only where images of several rare classes leave no choice.

    `labels` is 0/1 (N, C); returns sorted int64 indices (train, val). Raises `ValueError` unless 0 < val_fraction < 1.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"0 < val_fraction < 1 must hold, but got {val_fraction}: give a part such as 0.2")
    labels, rng = np.asarray(labels, bool), np.random.default_rng(seed)
    count = labels.sum(0)
    val = np.where(count >= 2, np.clip(count * val_fraction, 1, count - 1), count * val_fraction)
    wanted = np.array([count - val, val])  # (2, C) images of each class that train and validation still want
    room = len(labels) * np.array([1 - val_fraction, val_fraction])  # (2,) images of any kind that they still want
    side = np.full(len(labels), -1)
    while (free := side < 0).any():
        left = labels[free].sum(0)
        if left.any():
            rarest = np.where(left > 0, left, len(labels) + 1).argmin()
            members, wish = free & labels[:, rarest], wanted[:, rarest]
        else:
            members, wish = free, room
        for i in rng.permutation(np.flatnonzero(members)):
            side[i] = s = max((0, 1), key=lambda s: (wish[s], wanted[s, labels[i]].sum(), room[s]))
            wanted[s] -= labels[i]
            room[s] -= 1
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)
