import copy

import pytest
import torch
from torch import nn

from voctrain.models import build_classifier
from voctrain.models.mask_heads import MaskHeads


def heads_of(name, size):
    model = build_classifier(name, num_classes=5, image_size=size)
    return model, MaskHeads(model.net, image_size=size, num_classes=5)


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        ("complex", 96, [12, 6]),
        ("resnet9", 64, [8, 4]),
        ("resnet18", 96, [12, 6, 3]),
        ("resnet18", 300, [38, 19, 10]),
        ("mobilenet_v3_small", 96, [12, 6, 3]),
        ("simple", 96, [24]),  # no map with a stride of 8 to 32: the last one
    ],
)
def test_last_map_of_each_size_gets_a_head(name, size, sides):
    model, heads = heads_of(name, size)
    with heads.watch(model.net) as logits:
        model.train()(torch.rand(2, 3, size, size))
    assert [tuple(m.shape) for m in logits] == [(2, 6, side, side) for side in sides]


def test_gradient_reaches_the_network():
    model, heads = heads_of("resnet9", 32)
    with heads.watch(model.net) as logits:
        model.train()(torch.rand(2, 3, 32, 32))
    sum(m.square().mean() for m in logits).backward()
    assert model.net[0].weight.grad.abs().sum() > 0
    assert model.net[-1].weight.grad is None  # what comes after the maps


def test_network_is_unchanged_outside_watch():
    model, heads = heads_of("resnet18", 64)
    before, mode = copy.deepcopy(model.state_dict()), model.training
    MaskHeads(model.net, image_size=64, num_classes=5)
    assert model.training == mode
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(RuntimeError, match="stop"), heads.watch(model.net):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in model.modules())


def test_network_without_maps_raises():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(ValueError, match="mask_loss requires a network with feature maps"):
        MaskHeads(net, image_size=32, num_classes=5)
