import numpy as np
import pandas as pd
import pytest
from PIL import Image

from voctrain.data.class_names import VOC_CLASSES
from voctrain.data.palette import voc_palette


def draw_scene(i, rng, *, size=None):
    """Image, mask and label vector i: a square of class i mod 20 with a void border, on background."""
    height, width = size or (12 + i % 3, 16 - i % 2)
    mask = np.zeros((height, width), np.uint8)
    mask[2:9, 2:9], mask[3:8, 3:8] = 255, i % 20 + 1
    return rng.integers(0, 256, (height, width, 3), np.uint8), mask, np.eye(20, dtype=int)[i % 20]


def save_mask(path, mask, palette=None):
    """Write a palette PNG, by default in VOC's colors."""
    image = Image.fromarray(mask)
    image.putpalette((voc_palette() if palette is None else palette).tobytes())
    image.save(path)


@pytest.fixture
def kaggle(tmp_path):
    """44 labeled images, two or three per class, and 3 test images in the Kaggle layout."""
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
    """22 images in train.txt and 21 in val.txt, without test.txt, in the devkit layout."""
    root, rng = tmp_path / "VOCdevkit" / "VOC2009", np.random.default_rng(0)
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for i in range(43):
        image, mask, _ = draw_scene(i, rng)
        Image.fromarray(image).save(root / f"JPEGImages/a_{i:02}.jpg")
        save_mask(root / f"SegmentationClass/a_{i:02}.png", mask)
    for name, ids in (("train", range(22)), ("val", range(22, 43))):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("".join(f"a_{i:02}\n" for i in ids))
    return root


@pytest.fixture
def scene():
    return draw_scene
