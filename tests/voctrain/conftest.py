from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import models

from voctrain.data import Data
from voctrain.data.layouts import VOC_CLASSES


@pytest.fixture(scope="session")
def draw_data():
    """Tiny sets that a seed draws: noise, in which each class of an image is a bright block of its own color."""

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


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "voctrain"


def draw_scene(i, rng, *, size=None):
    """Image, mask and label i: a square of class i mod 20, with a void border, on background."""
    height, width = size or (12 + i % 3, 16 - i % 2)
    mask = np.zeros((height, width), np.uint8)
    mask[2:9, 2:9], mask[3:8, 3:8] = 255, i % 20 + 1
    return rng.integers(0, 256, (height, width, 3), np.uint8), mask, np.eye(20, dtype=int)[i % 20]


@pytest.fixture
def kaggle(tmp_path):
    """44 labeled images, two or three a class, and 3 test images in the Kaggle layout."""
    root, rng = tmp_path / "kaggle", np.random.default_rng(0)
    for part in ("train/img", "train/seg", "test/img"):
        (root / part).mkdir(parents=True)
    labels = []
    for i in range(44):
        image, mask, label = draw_scene(i, rng)
        np.save(root / f"train/img/train_{i}.npy", image)
        np.save(root / f"train/seg/train_{i}.npy", mask)
        labels.append(label)
    for i in range(3):
        np.save(root / f"test/img/test_{i}.npy", rng.integers(0, 256, (9, 11 + i, 3), np.uint8))
    pd.DataFrame(labels, columns=VOC_CLASSES).rename_axis("Id").to_csv(root / "train/train_set.csv")
    pd.DataFrame(np.full((3, 20), -1), columns=VOC_CLASSES).rename_axis("Id").to_csv(root / "test/test_set.csv")
    return root


@pytest.fixture
def devkit(tmp_path):
    """22 images in train.txt, 21 in val.txt and no test.txt in the devkit layout."""
    root, rng = tmp_path / "VOCdevkit" / "VOC2009", np.random.default_rng(0)
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for i in range(43):
        image, mask, _ = draw_scene(i, rng)
        Image.fromarray(image).save(root / f"JPEGImages/a_{i:02}.jpg")
        Image.fromarray(mask).save(root / f"SegmentationClass/a_{i:02}.png")
    for name, ids in (("train", range(22)), ("val", range(22, 43))):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("".join(f"a_{i:02}\n" for i in ids))
    return root


@pytest.fixture
def scene():
    return draw_scene


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch hub, and no network."""

    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def publish(hub):
    """Put a state dict into the cache as torchvision's file of this name; returns its path."""

    def put(name, state):
        path = hub / Path(models.get_model_weights(name).DEFAULT.url).name
        torch.save(state, path)
        return path

    return put
