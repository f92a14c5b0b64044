from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import models

from voctrain.data import Data
from voctrain.models import published


def random_data(seed: int = 0, train: int = 12, val: int = 8, size: int = 32) -> Data:
    """Tiny random sets: noise images in which each class is a bright block of its own color."""
    rng, count = np.random.default_rng(seed), train + val
    labels = (rng.random((count, 3)) < 0.2).astype(np.uint8)
    labels[np.arange(count), np.resize([2, 2, 1, 2, 1, 0], count)] = 1  # each image has a class; the counts differ
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


@pytest.fixture(scope="session")
def draw_data():
    return random_data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "voctrain"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch hub, and no network."""

    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    monkeypatch.setattr(published, "_unreachable", lambda address: None)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def publish(hub):
    """Put a state dict into the cache as torchvision's file of this name; returns its path."""

    def put(name, state):
        path = hub / Path(next(iter(models.get_model_weights(name))).url).name
        torch.save(state, path)
        return path

    return put
