import dataclasses
import warnings

import numpy as np
import pytest
import torch

from voctrain.config import SegmentConfig
from voctrain.data.class_names import VOID
from voctrain.metrics.segmentation import all_background
from voctrain.models import build_segmenter
from voctrain.pixel_probe import pixel_probe_metrics

LITE = {"architecture": "fpn/tf_efficientnet_lite0", "weights": "imagenet"}


@pytest.fixture
def blocks():
    """Images whose left or right half has the color of its class."""

    def make(data, size):
        count = len(data.ids)
        images = np.full((count, size, size, 3), 128, np.uint8)
        masks = np.zeros((count, size, size), np.uint8)
        for i in range(count):
            half = slice(0, size // 2) if i % 2 else slice(size // 2, size)
            images[i, :, half] = np.eye(3, dtype=np.uint8)[i % 3] * 255
            masks[i, :, half] = 1 + i % 3
        return dataclasses.replace(data, images=images, masks=masks)

    return make


@pytest.mark.parametrize("size", [64, 72])
def test_features_of_imagenet_tell_colors_apart(size, blocks, draw_data):
    """Images are padded to a multiple of 32 pixels, and the maps stay aligned with them."""
    data = blocks(draw_data(size=32), size)
    with warnings.catch_warnings(action="error"):
        found = pixel_probe_metrics(SegmentConfig(**LITE, image_size=size), data)
    assert found["val_mIoU"] > 0.7
    assert found["val_mIoU"] > 2 * all_background((data.masks[i] for i in data.val), 4)["val_mIoU"]


def test_void_and_missing_classes_do_not_matter(blocks, draw_data):
    data = blocks(draw_data(size=32), 64)
    masks = np.where(data.masks == 3, VOID, data.masks)
    found = pixel_probe_metrics(SegmentConfig(**LITE, image_size=64), dataclasses.replace(data, masks=masks))
    assert 0.7 < found["val_mIoU"] <= 1


def test_weights_may_be_a_file(blocks, draw_data, tmp_path):
    data = blocks(draw_data(size=32), 40)
    name = "fpn/test_convnext"
    torch.save(build_segmenter(name, num_classes=4).state_dict(), tmp_path / "weights.pt")
    config = SegmentConfig(architecture=name, weights=str(tmp_path / "weights.pt"), image_size=40)
    assert 0 <= pixel_probe_metrics(config, data)["val_mIoU"] <= 1


def test_other_segmenters_are_refused(draw_data):
    for name in ("unet", "fpn_resnet18", "dpt/test_vit"):
        with pytest.raises(ValueError, match="a probe requires a pyramid"):
            pixel_probe_metrics(SegmentConfig(architecture=name), draw_data())
