import pytest
import torch

from voctrain.images import to_unit


def test_to_unit():
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8).repeat(2, 5, 4, 1)
    unit = to_unit(images)
    assert unit.shape == (2, 3, 5, 4)
    assert unit[1, :, 2, 2].tolist() == pytest.approx([0, 0.2, 1])
    assert unit.is_contiguous(memory_format=torch.channels_last)
