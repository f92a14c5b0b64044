import copy

import numpy as np
import pytest
import torch
from torch import nn

from voctrain.models import build_classifier
from voctrain.models.maps import as_map
from voctrain.models.mask_heads import MaskHeads, MaskPooling


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
    _, logits = heads(model.net.train(), torch.rand(2, 3, size, size))
    assert [tuple(m.shape) for m in logits] == [(2, 6, side, side) for side in sides]


def test_gradient_reaches_the_network():
    model, heads = heads_of("resnet9", 32)
    _, logits = heads(model.net.train(), torch.rand(2, 3, 32, 32))
    sum(m.square().mean() for m in logits).backward()
    assert model.net[0].weight.grad.abs().sum() > 0
    assert model.net[-1].weight.grad is None  # what comes after the maps


@pytest.mark.parametrize("kind", [MaskHeads, MaskPooling])
def test_the_network_stays_as_it_was(kind):
    model = build_classifier("resnet18", num_classes=5, image_size=64)
    before, mode = copy.deepcopy(model.state_dict()), model.training
    heads = kind(model.net, image_size=64, num_classes=5)
    assert model.training == mode
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(RuntimeError, match="size"):
        heads(model.net, torch.rand(1, 4, 64, 64))
    assert not any(module._forward_hooks for module in model.modules())


def test_network_without_maps_raises():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(ValueError, match="mask_loss requires a network with feature maps"):
        MaskHeads(net, image_size=32, num_classes=5)


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("tf_efficientnet_lite0", 64, 16),
        ("resnet18", 75, 18),
        ("test_vit", 64, 16),
        ("vit_b_16", 224, 56),
        ("swin_t", 64, 16),
        ("swin_tiny_patch4_window7_224", 64, 16),
        ("simple", 32, 8),
        ("mnist_model", 28, 7),
    ],
)
def test_the_surest_cells_add_their_log_odds(name, size, cells):
    model = build_classifier(name, num_classes=5, image_size=size).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        alone = model(images).numpy()
        model.mask_heads = MaskPooling(model.net, image_size=model.input_size, num_classes=5)
        (logits,), [maps] = model.with_maps(images)
        assert torch.equal(model(images), logits)
    assert maps.shape == (2, 6, cells, cells)
    odds = np.exp(maps.numpy().reshape(2, 6, -1))
    chances = np.sort((odds / odds.sum(1, keepdims=True))[:, 1:])[..., -max(1, round(0.02 * cells**2)) :].mean(-1)
    np.testing.assert_allclose(logits.numpy(), alone + np.log(chances / (1 - chances)), atol=1e-3)


def test_auxiliary_outputs_stay():
    model = build_classifier("googlenet", num_classes=5, image_size=64).train()
    model.mask_heads = MaskPooling(model.net, image_size=64, num_classes=5)
    assert [tuple(output.shape) for output in model(torch.rand(2, 3, 64, 64))] == [(2, 5)] * 3


@pytest.mark.parametrize("special", [0, 1, 5])
def test_tokens_are_a_map(special):
    places = torch.arange(2.0 * 9 * 7).view(2, 9, 7)  # (B, N, C)
    found = as_map(torch.cat([torch.full((2, special, 7), -1.0), places], 1))
    assert found.shape == (2, 7, 3, 3)
    assert torch.equal(found[1, :, 2, 1], places[1, 7])


def test_maps_are_told_from_other_outputs():
    first, last = torch.rand(2, 7, 3, 3), torch.rand(2, 3, 3, 7)
    assert as_map(first) is first
    assert torch.equal(as_map(last), last.permute(0, 3, 1, 2))
    for other in (
        torch.rand(2, 7),
        torch.rand(2, 7, 1, 1),
        torch.rand(2, 7, 3, 4),
        torch.rand(2, 15, 7),
        (first,),
        None,
    ):
        assert as_map(other) is None
