"""Labels that are probably wrong: those that models contradict which have not seen the image.

This is the ranking by self-confidence of confident learning (Northcutt, Jiang and Chuang, "Confident learning:
estimating uncertainty in dataset labels", 2021), with each class a problem of its own, and with the mean of several
models. For labels it equals cleanlab's `get_label_quality_scores_per_class`. With 5 % of the labels of 472 images of
VOC 2009 flipped, the first tenth of the ranking has 95 % of them; with cleanlab's adjustment for the mean confidence of
each class it has 75 %. tests/benchmarks/label_audit.py measures both.
"""

from typing import NamedTuple

import numpy as np


class Doubts(NamedTuple):
    """Pairs of an image and a class whose label models contradict, most doubtful first; arrays (R,)."""

    image: np.ndarray  # index
    label: np.ndarray  # index of the class, from 0
    given: np.ndarray  # bool, whether the image is labeled with the class
    doubt: np.ndarray  # float in (0, 1]
    agreement: np.ndarray  # float in [0, 1], the part of the models that contradict the label


def doubtful_labels(y_true: np.ndarray, y_prob: np.ndarray) -> Doubts:
    """The labels of images, (N, C) of 0/1, by out-of-fold probabilities of K models, (K, N, C).

    doubt: the mean probability that the label is wrong. A model contradicts a label whose probability is below 0.5.
    """
    wrong = np.abs(np.asarray(y_true, np.float32) - y_prob)
    return _ranked(np.asarray(y_true, bool), wrong.mean(0), (wrong > 0.5).mean(0))


def doubtful_masks(confusion: np.ndarray) -> Doubts:
    """The classes of masks, by pixels of K models' out-of-fold maps: int (K, N, 1 + C, 1 + C), true classes in rows.

    doubt: the part of the image in which mask and map disagree about the class, times 1 - Dice, so that a whole object
    counts more than the outline of a larger one; mean over the models. A model whose Dice is below 0.5 contradicts.
    """
    hits = np.diagonal(confusion, axis1=2, axis2=3)[..., 1:]  # (K, N, C)
    true, predicted = confusion.sum(3)[..., 1:], confusion.sum(2)[..., 1:]
    disputed = true + predicted - 2 * hits
    off = disputed / np.maximum(true + predicted, 1)  # 1 - Dice
    pixels = np.maximum(confusion.sum((2, 3)), 1)[..., None]
    return _ranked(true[0] > 0, (off * disputed / pixels).mean(0), (off > 0.5).mean(0))


def _ranked(given: np.ndarray, doubt: np.ndarray, agreement: np.ndarray) -> Doubts:
    order = np.argsort(-doubt, axis=None, kind="stable")
    order = order[doubt.flat[order] > 0]
    image, label = np.unravel_index(order, doubt.shape)
    return Doubts(image, label, given.flat[order], doubt.flat[order], agreement.flat[order])
