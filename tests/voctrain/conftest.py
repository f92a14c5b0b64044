import numpy as np
import pytest

from voctrain.data import Data


@pytest.fixture(scope="session")
def draw_data():
    """Tiny sets that a seed draws: noise, in which each class of an image is a bright block of its own colour."""

    def draw(seed: int = 0, train: int = 12, val: int = 8, size: int = 32) -> Data:
        rng, count = np.random.default_rng(seed), train + val
        labels = (rng.random((count, 3)) < 0.2).astype(np.uint8)
        labels[np.arange(count), np.resize([2, 2, 1, 2, 1, 0], count)] = 1  # none without a class, and unequal numbers
        images = rng.integers(0, 128, (count, size, size, 3)).astype(np.uint8)
        masks = np.zeros((count, size, size), np.uint8)
        for c in range(3):
            images[labels[:, c] == 1, 2 + 10 * c : 10 + 10 * c, 4:20, c] += 60
            masks[labels[:, c] == 1, 2 + 10 * c : 10 + 10 * c, 4:20] = 1 + c
        return Data(
            ids=tuple(f"image {i}" for i in range(count)),
            images=images,
            labels=labels,
            masks=masks,
            train=np.arange(val, count),
            val=np.arange(val),
            test_ids=(),
            test_images=np.zeros((0, size, size, 3), np.uint8),
            sizes=np.full((count, 2), size, np.int32),
            test_sizes=np.zeros((0, 2), np.int32),
            classes=("cat", "dog", "person"),
            fingerprint="0",
            warnings=(),
        )

    return draw
