import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from voctrain.models import build_classifier
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
    with pytest.raises(ValueError, match="require a network with square feature maps: use another, or omit them"):
        MaskHeads(net, image_size=32, num_classes=5)


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("tf_efficientnet_lite0", 64, 16),
        ("resnet18", 75, 19),
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


def test_a_class_without_masks_gets_nothing():
    model = build_classifier("resnet18", num_classes=5, image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        alone = model(images)
        model.mask_heads = MaskPooling(model.net, image_size=64, num_classes=5)
        model.mask_heads.located[2] = 0
        same = (model(images) - alone).abs() < 1e-6
    assert same.tolist() == [[False, False, True, False, False]] * 2


def test_an_improbable_class_still_learns():
    model = build_classifier("resnet18", num_classes=2, image_size=64).eval()
    model.mask_heads = heads = MaskPooling(model.net, image_size=64, num_classes=2)
    with torch.no_grad():
        heads.layers[-1].bias[:] = torch.tensor([0.0, -40.0, 40.0])
    logits = model(torch.rand(1, 3, 64, 64))
    assert logits.isfinite().all()
    logits[0, 0].backward()
    assert heads.layers[-1].bias.grad[1] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "size", "widths"),
    [
        ("tf_efficientnet_lite0", 96, [24, 40, 112, 320]),  # not the 1280 channels that the head starts from
        ("test_vit", 64, [64]),
        ("swin_tiny_patch4_window7_224", 384, [96, 192, 384, 768]),
        ("resnet18", 75, [64, 128, 256, 512]),
        ("inception_v3", 299, [80, 192, 288, 768, 2048]),
        ("swin_t", 64, [96, 192, 384, 768]),
        ("vit_b_16", 224, [768]),
    ],
)
def test_stages_end_in_maps(name, size, widths):
    net = build_classifier(name, num_classes=2, image_size=size).net
    heads = MaskPooling(net, image_size=size, num_classes=2)
    assert heads.maps.widths == widths


@pytest.mark.parametrize("name", ["swin_t", "vit_b_16", "swin_tiny_patch4_window7_224", "test_vit", "resnet18"])
def test_maps_show_where_an_image_changes(name):
    """Also where a map has as many channels as rows, as Swin's first one here."""
    size = 224 if name == "vit_b_16" else 384 if name.startswith("swin") else 96
    net = build_classifier(name, num_classes=2, image_size=size).net.eval()
    heads = MaskPooling(net, image_size=size, num_classes=2)
    images = torch.zeros(2, 3, size, size)
    images[1, :, : size // 4, -size // 4 :] = 1  # top right
    with torch.no_grad():
        for each in heads.maps.of(net, images)[1]:
            change = (each[1] - each[0]).abs().sum(0)
            half = -(-change.shape[0] // 2)
            assert change[:half, -half:].mean() > change[-half:, :half].mean()


def test_threads_do_not_see_each_others_maps():
    model = build_classifier("resnet18", num_classes=5, image_size=64).eval()
    model.mask_heads = MaskPooling(model.net, image_size=64, num_classes=5)
    batches = torch.rand(40, 2, 3, 64, 64)

    def answer(images):
        with torch.inference_mode():
            return model(images)

    expected = [answer(images) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(*pair) for pair in zip(pool.map(answer, batches), expected, strict=True))
