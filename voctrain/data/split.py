"""The train and validation split: stratified over all labels, with groups of images kept together, and deterministic.

This is iterative stratification (Sechidis et al., 2011): starting with the rarest class, each group goes to the part
that still needs most of that class. Written by hand because scikit-learn stratifies groups by a single label only.
"""

from collections.abc import Sequence

import numpy as np


def stratified_split(
    labels: np.ndarray, *, val_fraction: float = 0.2, seed: int = 0, groups: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split images so that each class has about `val_fraction` of its images in validation.

    Unlike in the paper, a class with two or more images is wanted on both sides, however small its share; that fails
    only if images with several rare classes leave no choice. Neither side is empty.

    Args:
        labels: 0/1, (N, C), of at least two images.
        val_fraction: between 0 and 1, both excluded.
        seed: decides the order in which the images of a class are assigned.
        groups: of each image; the images of a group stay together. By default each image is its own group.

    Returns:
        Sorted int64 indices of the training and the validation images.

    Raises:
        ValueError: `val_fraction` is out of range, or there are fewer than two groups.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"0 < val_fraction < 1 must hold, but got {val_fraction}: use a fraction such as 0.2")
    train, val = _parts(labels, np.array([1 - val_fraction, val_fraction]), seed, groups)
    return train, val


def stratified_folds(
    labels: np.ndarray, number: int, *, seed: int = 0, groups: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Divide images into `number` folds with about equal shares of each class; see `stratified_split`."""
    return _parts(labels, np.full(number, 1 / number), seed, groups)


def _parts(labels: np.ndarray, shares: np.ndarray, seed: int, groups: Sequence[str] | None) -> list[np.ndarray]:
    """The sorted indices of the images in each part; `shares` (P,) are what the parts want of everything."""
    labels = np.asarray(labels, bool)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(group, minlength=1)
    if len(sizes) < len(shares):
        raise ValueError(
            f"{len(shares)} parts need as many images, or groups of images, but there are {len(sizes)}: use smaller"
            " groups or fewer parts"
        )
    ordered, starts = labels[np.argsort(group, kind="stable")], np.cumsum(sizes) - sizes
    counts = np.add.reduceat(ordered.astype(int), starts)  # (G, C) images of each class in each group
    part = _assign(counts, sizes, shares, np.random.default_rng(seed))
    _fill_empty(part, counts, sizes, len(shares))
    return [np.flatnonzero(part[group] == p) for p in range(len(shares))]


def _assign(counts: np.ndarray, sizes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The part (G,) of each group with class counts (G, C) and sizes (G,)."""
    total, least = counts.sum(0), np.where(counts > 0, counts, len(counts) * sizes.max()).min(0)
    wanted = shares[:, None] * total  # (P, C) images of each class that each part still needs
    if len(shares) == 2:
        several = (counts > 0).sum(0) >= 2
        wanted[1] = np.where(several, np.clip(wanted[1], least, np.maximum(total - least, least)), wanted[1])
        wanted[0] = total - wanted[1]
    room = sizes.sum() * shares  # (P,) images of any class that they still need
    part, left = np.full(len(sizes), -1), total.copy()  # left: images of each class without a part
    while (free := part < 0).any():
        if left.any():
            rarest = np.where(left > 0, left, sizes.sum() + 1).argmin()
            amount, need = counts[:, rarest], wanted[:, rarest]
        else:
            amount, need = sizes, room
        members = rng.permutation(np.flatnonzero(free & (amount > 0)))
        for i in members[np.argsort(-amount[members], kind="stable")]:  # large groups first: small ones fill the gaps
            has = counts[i] > 0
            part[i] = p = max(range(len(shares)), key=lambda p: (need[p], wanted[p, has].sum(), room[p]))
            left -= counts[i]
            wanted[p] -= counts[i]
            room[p] -= sizes[i]
    return part


def _fill_empty(part: np.ndarray, counts: np.ndarray, sizes: np.ndarray, number: int) -> None:
    """Move a group into each part that got none, which may happen with very few: the one that costs the least.

    It is taken from the part with most groups. Best it has a class, of which the part keeps others, and is small.
    """
    for p in set(range(number)) - set(part.tolist()):
        members = np.flatnonzero(part == np.bincount(part, minlength=number).argmax())
        kept = counts[members].sum(0)
        cost = [(not counts[i].any(), int(((counts[i] > 0) & (kept == counts[i])).sum()), sizes[i]) for i in members]
        part[members[cost.index(min(cost))]] = p
