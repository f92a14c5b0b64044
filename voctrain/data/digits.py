"""Handwritten digits: grayscale images of ten exclusive classes, on which an attack can be tried in seconds."""

import hashlib

import numpy as np

from voctrain.data.cache import cache_dir
from voctrain.data.dataset import Data, DataSource
from voctrain.data.resizing import resize_square
from voctrain.data.split import stratified_split

CLASSES = tuple("0123456789")


def load(name: str, image_size: int) -> Data:
    """Load "digits" (1,797 images of 8 × 8 pixels, part of scikit-learn) or "mnist" (downloaded), images (N, S, S, 1).

    Raises `ValueError` if the download fails.
    """
    images, numbers, test_images = _digits() if name == "digits" else _mnist()
    labels = np.eye(10, dtype=np.uint8)[numbers]
    train, val = stratified_split(labels)
    return Data(
        ids=tuple(f"{name}-{i}" for i in range(len(images))),
        images=_squares(images, image_size),
        labels=labels,
        masks=None,
        train=train,
        val=val,
        test_ids=tuple(f"{name}-test-{i}" for i in range(len(test_images))),
        test_images=_squares(test_images, image_size),
        sizes=np.full((len(images), 2), images.shape[1], np.int32),
        test_sizes=np.full((len(test_images), 2), images.shape[1], np.int32),
        classes=CLASSES,
        fingerprint=hashlib.blake2b(images.tobytes() + numbers.tobytes(), digest_size=16).hexdigest(),
        warnings=(),
        source=DataSource(name),
        class_source="the set",
    )


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, numbers = load_digits(return_X_y=True)  # (N, 64), 0..16
    images = (np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    return images, np.asarray(numbers), images[:0]


def _mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from torchvision.datasets import MNIST

    try:
        train, test = (MNIST(cache_dir(), train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"mnist could not be downloaded ({error}): connect to a network, or use digits") from None
    return train.data.numpy(), train.targets.numpy(), test.data.numpy()


def _squares(images: np.ndarray, size: int) -> np.ndarray:
    squares = [resize_square(image, size) for image in images]
    return np.stack(squares)[..., None] if squares else np.empty((0, size, size, 1), np.uint8)
