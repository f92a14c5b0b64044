import pytest
import torch

from voctrain.models import GENERATORS, build_generator


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("voc_adversarial", 26_662_400), ("voc_adversarial2", 7_001_600), ("voc_adversarial3", 4_545_883)],
)
def test_notebook_generators_have_known_parameter_counts(name, parameters):
    assert count(build_generator(name)) == parameters


def test_digits_generator_has_known_parameter_count_and_size():
    generator = build_generator("mnist_adversarial", image_size=28, in_channels=1)
    assert count(generator) == 151_056
    assert generator.net(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)  # without resizing


@pytest.mark.parametrize("size", [64, 75, 97])
@pytest.mark.parametrize("name", GENERATORS)
def test_any_size_and_batch(name, size):
    generator = build_generator(name, image_size=size, descent=lambda images: -images)
    for batch in (1, 3):
        assert generator(torch.rand(batch, 3, size, size)).shape == (batch, 3, size, size)


@pytest.mark.parametrize(("name", "width"), [("voc_adversarial2", 50), ("voc_adversarial3", 200)])
def test_fully_connected_bottleneck_is_optional(name, width):
    with_middle, without = (build_generator(name, image_size=64, middle=middle) for middle in (True, False))
    linear = [m for m in with_middle.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.out_features == width for m in linear] == [True, False]
    assert count(with_middle) - count(without) == sum(count(m) for m in linear)
    assert with_middle(torch.rand(2, 3, 64, 64)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu", "gelu", "sigmoid"])
def test_only_identity_is_linear(activation):
    """With `identity` and without biases and pooling, the network is linear."""
    images = torch.rand(2, 3, 64, 64)
    generator = build_generator("voc_adversarial", image_size=64, activation=activation).double()
    plus, minus = generator(images.double()), generator(-images.double())
    assert ((plus + minus).norm() <= 1e-6 * plus.norm()) == (activation == "identity")


def test_universal_perturbation_is_independent_of_the_image():
    generator = build_generator("universal", image_size=64)
    first, second = generator(torch.rand(2, 3, 64, 64))
    assert torch.equal(first, second)
    assert count(generator) == 3 * 64 * 64


def test_guided_generator_uses_the_descent_but_stores_no_victim_weights():
    """Its first convolution sees both, and `descent` is not part of its state."""
    victim = torch.nn.Conv2d(3, 3, 1)
    generator = build_generator("guided", image_size=64, descent=victim.forward)
    assert next(p.shape for p in generator.parameters()) == (16, 6, 3, 3)
    assert count(generator) == 16 * 6 * 9 + 16 + 4 * (16 * 16 * 9 + 16) + 5 * 2 * 16 + 3 * 16 * 9 + 3
    images = torch.rand(2, 3, 64, 64)
    before = generator(images)
    torch.nn.init.constant_(victim.weight, 0.5)
    assert not torch.allclose(generator(images), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "voc_adversarial4"}, "did you mean voc_adversarial"),
        ({"name": "voc_adversarial", "image_size": 63}, "at least 64 pixels, but got 63"),
        ({"name": "mnist_adversarial", "image_size": 27}, "at least 28 pixels"),
        ({"name": "residual", "activation": "tanh"}, "activation must be one of relu"),
        ({"name": "guided"}, "guided requires descent"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        build_generator(**options)
