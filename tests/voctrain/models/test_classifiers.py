import pytest
import torch
from torch import nn
from torchvision import models

from voctrain.models import CLASSIFIERS, build_classifier
from voctrain.models import classifiers as module

CPU_FAST = ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_x_400mf"]


def on_meta(name, **options):
    """The model on the meta device: shapes without memory or computation."""
    with module._ShapesOnly():
        model = build_classifier(name, **options)
    return model.to("meta")


def shapes(output):
    return [tuple(o.shape) for o in (output if isinstance(output, tuple) else (output,))]


@pytest.mark.parametrize(("name", "count"), [("simple", 3_605_108), ("complex", 42_867_476), ("tinyvgg", 82_222_164)])
def test_notebook_networks_have_the_notebooks_parameter_counts(name, count):
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == count
    assert shapes(model(torch.empty(2, 3, 300, 300, device="meta"))) == [(2, 20)]


def test_resnet9_is_small_and_averages_and_maximizes_its_last_maps():
    model = build_classifier("resnet9", image_size=96).eval()
    # Convolutions and their batch normalizations, then the linear layer.
    convs = [(3, 32), (32, 64), (64, 64), (64, 64), (64, 128), (128, 256), (256, 256), (256, 256)]
    assert sum(p.numel() for p in model.parameters()) == sum(9 * a * b + 2 * b for a, b in convs) + 512 * 20 + 20
    maps = torch.rand(2, 256, 6, 6)
    torch.testing.assert_close(model.net[-2](maps), torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))


def kinds(name):
    ignored = (nn.Conv2d, nn.Linear)
    return " ".join(
        f"{type(m).__name__}({m.out_channels if isinstance(m, nn.Conv2d) else m.out_features})"
        if isinstance(m, ignored)
        else type(m).__name__
        for m in on_meta(name).net
    )


def test_layers_have_the_order_of_the_notebook():
    assert kinds("simple") == "Conv2d(16) ReLU MaxPool2d Conv2d(32) ReLU MaxPool2d Flatten Linear(20)"
    assert kinds("complex").startswith("Conv2d(32) BatchNorm2d ReLU MaxPool2d Conv2d(64) BatchNorm2d ReLU MaxPool2d")
    assert kinds("tinyvgg").startswith(
        "Conv2d(32) ReLU BatchNorm2d MaxPool2d Dropout Conv2d(64) ReLU BatchNorm2d Conv2d(64) ReLU BatchNorm2d"
    )
    assert kinds("tinyvgg").endswith("Flatten Linear(1024) ReLU BatchNorm1d Dropout Linear(20)")
    assert [m.p for m in on_meta("tinyvgg").modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25, 0.25, 0.5]
    assert [m.kernel_size for m in on_meta("tinyvgg").modules() if isinstance(m, nn.MaxPool2d)] == [3, 2, 2]


@pytest.mark.parametrize("name", ["simple", "complex", "tinyvgg", "resnet9"])
@pytest.mark.parametrize(("size", "channels"), [(32, 3), (33, 3), (47, 1), (71, 4)])
def test_own_networks_accept_any_size_and_channels(name, size, channels):
    model = build_classifier(name, num_classes=5, image_size=size, in_channels=channels)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 5)
    assert model.input_size == size


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [
        ("resnet18", 32, 32),
        ("mobilenet_v3_small", 33, 33),
        ("alexnet", 32, 63),
        ("alexnet", 64, 64),
        ("squeezenet1_1", 28, 32),
        ("googlenet", 32, 32),
    ],
)
def test_training_step_at_small_sizes(name, size, seen):
    model = build_classifier(name, num_classes=5, image_size=size).train()
    output = model(torch.rand(2, 3, size, size))
    outputs = output if isinstance(output, tuple) else (output,)
    sum(o.square().mean() for o in outputs).backward()
    assert all(o.shape == (2, 5) for o in outputs)
    assert all(p.grad is not None for p in model.parameters())
    assert model.input_size == seen


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [
        ("vit_b_32", 64, 224),
        ("vit_b_16", 300, 224),
        ("maxvit_t", 300, 224),
        ("maxvit_t", 64, 224),
        ("vit_h_14", 96, 518),
        ("inception_v3", 96, 299),
        ("inception_v3", 301, 301),
        ("swin_v2_t", 33, 33),
        ("convnext_tiny", 300, 300),
    ],
)
def test_input_size_is_the_nearest_valid_size(name, size, seen):
    model = on_meta(name, num_classes=5, image_size=size).eval()
    assert model.input_size == seen
    assert shapes(model(torch.empty(2, 3, size, size, device="meta"))) == [(2, 5)]


@pytest.mark.parametrize(("name", "outputs"), [("googlenet", 3), ("inception_v3", 2), ("resnet18", 1)])
def test_auxiliary_outputs_in_train_mode_only(name, outputs):
    model, images = on_meta(name, num_classes=5, image_size=96), torch.empty(2, 3, 96, 96, device="meta")
    trained = model.train()(images)
    assert shapes(trained) == [(2, 5)] * outputs
    assert type(trained) is (tuple if outputs > 1 else torch.Tensor)
    assert type(model.eval()(images)) is torch.Tensor


def test_names_include_all_torchvision_classifiers():
    assert CLASSIFIERS[:5] == ("simple", "complex", "tinyvgg", "resnet9", "mnist_model")
    assert set(CLASSIFIERS[5:]) == set(models.list_models(module=models))
    assert len(CLASSIFIERS) >= 85


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_trains_at_its_smallest_size(name):
    model = on_meta(name, num_classes=7, image_size=32).train()
    with torch.no_grad():
        output = model(torch.empty(2, 3, 32, 32, device="meta"))
    assert set(shapes(output)) == {(2, 7)}


def test_model_normalizes_its_input():
    model = build_classifier("simple", num_classes=2, image_size=32).eval()
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(model(images), model.net(images))
    assert model.own_normalization is False

    model.set_normalization([0.5, 0.25, 0.0], [0.5, 0.25, 2.0])
    by_hand = torch.stack([images[:, 0] * 2 - 1, images[:, 1] * 4 - 1, images[:, 2] / 2], dim=1)
    assert torch.allclose(model(images), model.net(by_hand), atol=1e-6)
    assert {"mean", "std"} <= model.state_dict().keys()

    model.set_normalization([0.5, 0.5, 0.5], [0.5, 0.0, 0.5])
    assert model(torch.full((1, 3, 32, 32), 0.5)).isfinite().all()


def test_other_sizes_are_resized_and_constant_images_stay_constant():
    model = build_classifier("simple", num_classes=2, image_size=32).eval()
    flat = torch.full((1, 3, 1, 1), 0.3)
    expected = model(flat.expand(1, 3, 32, 32))
    assert torch.allclose(model(flat.expand(1, 3, 80, 50)), expected, atol=1e-6)


@pytest.mark.parametrize("name", CPU_FAST)
def test_plain_dict_of_tensors_restores_a_model(name):
    """The dict of a checkpoint is a plain one, without torch's record of versions."""
    model = build_classifier(name, num_classes=3, image_size=32).eval()
    model.set_normalization([0.4] * 3, [0.2] * 3)
    other = build_classifier(name, num_classes=3, image_size=32).eval()
    other.load_state_dict({key: tensor.clone() for key, tensor in model.state_dict().items()})
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet43"}, "unknown classifier 'resnet43': did you mean resnet"),
        (
            {"name": "q"},
            "unknown classifier 'q': use a name of torchvision or timm",
        ),
        ({"name": "fcn_resnet50"}, "unknown classifier 'fcn_resnet50'"),
        ({"name": "resnet18", "in_channels": 1}, "resnet18 requires 3 channels, but got in_channels=1"),
        ({"name": "simple", "image_size": 8}, "image_size must be at least 16 pixels, but got 8"),
        ({"name": "simple", "weights": "imagenet"}, "simple has no published weights"),
    ],
)
def test_error_messages_are_one_line(options, message):
    with pytest.raises(ValueError, match="^" + message) as error:
        build_classifier(**options)
    assert "\n" not in str(error.value)
