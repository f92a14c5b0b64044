"""Self-training: what trained models say of unlabeled images, as labels to train on.

Lee, "Pseudo-label", 2013; Xie et al., "Self-training with Noisy Student improves ImageNet classification", 2020.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voctrain.data import OWN_VAL, Data, load
from voctrain.data.class_names import VOID
from voctrain.data.image_files import image_files, read_image
from voctrain.data.resizing import resize_square

PRECISION = 0.8  # of the pixels whose class is believed, on the validation images
CONFIDENCES = np.linspace(0.5, 0.95, 10)  # lowest probabilities of a class that a pixel is believed with


@dataclass(frozen=True, eq=False)
class Unlabeled:
    """M images without labels, at the two sizes of a `Data`."""

    ids: tuple[str, ...]
    images: np.ndarray  # uint8 (M, S, S, 3)
    detail: np.ndarray | None  # uint8 (M, D, D, 3)
    sizes: np.ndarray  # int32 (M, 2), original height and width


def unlabeled_of(data: Data) -> Unlabeled:
    """The unlabeled images of a set."""
    detail, source = None, data.source
    if data.detail is not None and source is not None:
        detail = load(
            source.path,
            image_size=data.detail.shape[1],
            resize=data.resize,
            use_val=source.use_val,
            val=OWN_VAL if source.own_val else (),
            classes=source.classes,
            mask_values=source.mask_values,
            skip_bad=source.skip_bad,
        ).test_images
    return Unlabeled(data.test_ids, data.test_images, detail, data.test_sizes)


def read_unlabeled(
    folder: Path, data: Data, progress: Callable[[int, int], None] = lambda done, total: None
) -> Unlabeled:
    """All images in a folder and its subfolders, at the sizes of `data`.

    `progress` is called with the number of images read and the total, first with 0.
    Raises `ValueError` if there are none, or one cannot be read.
    """
    files = image_files(folder)
    if not files:
        raise ValueError(f"no images in {folder}: give a folder of image files")
    sides = [part.shape[1] for part in (data.images, data.detail) if part is not None]

    def read(file: Path) -> tuple[tuple[int, int], list[np.ndarray]]:
        image = read_image(file)
        return image.shape[:2], [resize_square(image, side, resize=data.resize) for side in sides]

    found: list[tuple[tuple[int, int], list[np.ndarray]]] = []
    with ThreadPoolExecutor() as pool:
        read_files = pool.map(read, files)
        progress(0, len(files))
        for done, each in enumerate(read_files, 1):
            found += [each]
            progress(done, len(files))
    images, *detail = (np.stack([squares[i] for _, squares in found]) for i in range(len(sides)))
    sizes = np.array([size for size, _ in found], np.int32)
    names = tuple(file.relative_to(folder).with_suffix("").as_posix() for file in files)
    return Unlabeled(names, images, detail[0] if detail else None, sizes)


def with_pseudo_labels(
    data: Data,
    unlabeled: Unlabeled,
    labels: np.ndarray,
    *,
    soft: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    detail_masks: np.ndarray | None = None,
) -> Data:
    """`data` with the unlabeled images in its training part.

    labels: uint8 (M, C). soft: float32 (M, C) in [0, 1], to train on in their place. masks, detail_masks: uint8
    (M, S, S) and (M, D, D); without them, what these images show is unknown.
    """
    count, first = len(unlabeled.ids), len(data.ids)

    def void(side: int) -> np.ndarray:
        return np.full((count, side, side), VOID, np.uint8)

    def joined(known: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
        return None if known is None else np.concatenate([known, void(known.shape[1]) if new is None else new])

    return dataclasses.replace(
        data,
        ids=data.ids + tuple(f"unlabeled/{name}" for name in unlabeled.ids),
        images=np.concatenate([data.images, unlabeled.images]),
        labels=np.concatenate([data.labels, labels]),
        soft_labels=None if soft is None else np.concatenate([data.labels.astype(np.float32), soft]),
        masks=joined(data.masks, masks),
        detail=None if unlabeled.detail is None else joined(data.detail, unlabeled.detail),
        detail_masks=joined(data.detail_masks, detail_masks),
        sizes=np.concatenate([data.sizes, unlabeled.sizes]),
        train=np.concatenate([data.train, np.arange(first, first + count)]),
        groups=None,
        file=None,
    )


def least_confidence(maps: Iterable[Tensor], truths: Iterable[np.ndarray], num_classes: int) -> Tensor:
    """The probability (C,) from which on a pixel's class is believed: from there on, `PRECISION` are right.

    maps: probabilities (C, S, S) of each image. truths: uint8 (S, S). A class of which no such pixels are right that
    often is believed from the highest of `CONFIDENCES` on.
    """
    seen, right = np.zeros((2, len(CONFIDENCES), num_classes))
    for probabilities, truth in zip(maps, truths, strict=True):
        confidence, predicted = (part.cpu().numpy() for part in probabilities.max(0))
        known = truth != VOID
        for i, least in enumerate(CONFIDENCES):
            believed = known & (confidence >= least)
            seen[i] += np.bincount(predicted[believed], minlength=num_classes)
            right[i] += np.bincount(predicted[believed & (predicted == truth)], minlength=num_classes)
    enough = right >= PRECISION * np.maximum(seen, 1)
    first = np.where(enough.any(0), enough.argmax(0), len(CONFIDENCES) - 1)
    return torch.from_numpy(CONFIDENCES[first].astype(np.float32))


def believed_maps(maps: Iterable[Tensor], least: Tensor, side: int) -> Iterator[np.ndarray]:
    """Yield label maps uint8 (side, side) of probabilities (C, S, S), void where the class is not believed."""
    for probabilities in maps:
        sized = F.interpolate(probabilities[None], (side, side), mode="bilinear", align_corners=False)[0]
        confidence, predicted = sized.max(0)
        unsure = confidence < least.to(predicted.device)[predicted]
        yield predicted.masked_fill(unsure, VOID).to(torch.uint8).cpu().numpy()


def mean_probabilities(predicted: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    """The mean of several models' class probabilities, from the logits (C, S, S) that each yields."""
    for logits in zip(*predicted, strict=True):
        yield torch.stack([each.softmax(0) for each in logits]).mean(0)
