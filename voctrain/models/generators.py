"""Generators of perturbations: the course notebook's autoencoders, and residual, guided and universal ones.

Written by hand because libraries of attacks such as torchattacks contain gradient attacks but no trained generators.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voctrain.models.classifiers import Residual

# Minimum image size in pixels; 64 for all others: below it, the kernels of the notebook's networks vanish.
MIN_SIZES: dict[str, int] = dict.fromkeys(("residual", "guided", "universal", "mnist_adversarial"), 28)
BLOCKS = 6  # of the residual generator, as in its paper for small images

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,  # what the notebook's leaky ReLU with slope 1 amounted to
}


@dataclass(frozen=True)
class Autoencoder:
    """The layers of one of the course notebook's autoencoders."""

    down: tuple[int, ...]  # kernel sizes of the encoder, at the image size `reference`
    up: tuple[int, ...]  # kernel sizes of the decoder
    channels: tuple[int, ...]  # of the encoder's maps, without the images; mirrored by the decoder
    pool: int = 1  # factor of max pooling in the encoder and up-sampling in the decoder
    pool_each: bool = False  # pool before each convolution, not just the first
    bias: bool = False
    middle: int = 50  # width of the fully connected bottleneck, if there is one
    has_middle: bool = False  # by default
    reference: int = 300  # pixels
    up_channels: tuple[int, ...] | None = None  # of the decoder's maps without the last; None: mirrored


NOTEBOOK = {
    "voc_adversarial": Autoencoder(
        (20, 20, 40, 60, 80, 20, 20, 20), (20, 20, 80, 60, 40, 20, 20, 20), (16,) + 7 * (32,)
    ),
    "voc_adversarial2": Autoencoder((20, 20, 40), (40, 20, 20), (16, 32, 64), pool=3),
    "voc_adversarial3": Autoencoder(
        (3, 5, 10),
        (10, 5, 3),
        (64, 32, 16),
        2,
        pool_each=True,
        bias=True,
        middle=200,
        has_middle=True,
        up_channels=(32, 64),
    ),
    "mnist_adversarial": Autoencoder((4, 8, 8), (10, 9), (16, 32, 32), reference=28, up_channels=(16,)),
}
GENERATORS = (*NOTEBOOK, "residual", "guided", "universal")


class Generator(nn.Module):
    """A network whose output is resized to the size of its input: (B, C, S, S) → (B, C, S, S)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        output = self.net(images)
        if output.shape[-2:] != images.shape[-2:]:
            output = F.interpolate(output, images.shape[-2:], mode="bilinear", align_corners=False)
        return output


def build_generator(
    name: str,
    *,
    image_size: int = 300,
    in_channels: int = 3,
    activation: str | None = "relu",
    middle: bool | None = None,
    width: int | None = None,
    descent: Callable[[Tensor], Tensor] | None = None,
) -> Generator:
    """The generator `name`, one of `GENERATORS`, for square images of side `image_size` >= 64 (mnist_…: 28) pixels.

    activation: one of `ACTIVATIONS`; universal has none.
    middle: whether a notebook network has a fully connected bottleneck; by default, only voc_adversarial3 has one.
    width: channels of the first maps of `residual`, by default 16 below 128 pixels and 64 otherwise; channels of all
    maps of `guided`, by default 16.
    descent: required by `guided`; maps images to the direction that fools the victim, both (B, in_channels, S, S).
    Raises `ValueError` for an unknown name or activation, and for an image size that is too small.
    """
    check_name(name, image_size)
    if name == "universal":
        return Generator(Universal(in_channels, image_size))
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, but got {activation!r}")
    act = ACTIVATIONS[activation]
    if name == "residual":
        return Generator(residual(in_channels, width or (16 if image_size < 128 else 64), act))
    if name == "guided":
        if descent is None:
            raise ValueError("guided requires descent: pass a function from images to the direction to fool the victim")
        return Generator(Guided(in_channels, width or 16, act, descent))
    plan = NOTEBOOK[name]
    return Generator(autoencoder(plan, image_size, in_channels, act, plan.has_middle if middle is None else middle))


def check_name(name: str, image_size: int) -> None:
    """Raise `ValueError` unless `name` is one of `GENERATORS` and works at this image size."""
    if name not in GENERATORS:
        close = difflib.get_close_matches(name, GENERATORS, 2)
        hint = f"did you mean {' or '.join(close)}?" if close else f"use {', '.join(GENERATORS)}"
        raise ValueError(f"unknown generator {name!r}: {hint}")
    if image_size < (least := MIN_SIZES.get(name, 64)):
        raise ValueError(f"{name} requires image_size of at least {least} pixels, but got {image_size}")


def autoencoder(
    plan: Autoencoder, image_size: int, in_channels: int, act: Callable[[], nn.Module], middle: bool
) -> nn.Sequential:
    """A notebook network with its kernels scaled to the image size; no activation follows the last layer."""

    def scaled(kernel: int) -> int:
        return max(1, round(kernel * image_size / plan.reference))

    layers: list[nn.Module] = []
    channels, side = (in_channels, *plan.channels), image_size
    for i, (kernel, pair) in enumerate(zip(map(scaled, plan.down), pairwise(channels), strict=True)):
        if plan.pool > 1 and (i == 0 or plan.pool_each):
            layers.append(nn.MaxPool2d(plan.pool))
            side //= plan.pool
        layers += [nn.Conv2d(*pair, kernel, bias=plan.bias), act()]
        side -= kernel - 1
    if middle:
        size = channels[-1] * side**2
        layers += [nn.Flatten(), nn.Linear(size, plan.middle), act(), nn.Linear(plan.middle, size), act()]
        layers += [nn.Unflatten(1, (channels[-1], side, side))]
    back = (channels[-1], *(plan.up_channels or channels[-2:0:-1]), in_channels)
    for kernel, pair in zip(map(scaled, plan.up), pairwise(back), strict=True):
        layers += [nn.ConvTranspose2d(*pair, kernel, bias=plan.bias), act()]
        if plan.pool_each:
            layers.append(nn.Upsample(scale_factor=plan.pool))
    if plan.pool > 1 and not plan.pool_each:
        layers.append(nn.Upsample(scale_factor=plan.pool))
    last = next(i for i in reversed(range(len(layers))) if isinstance(layers[i], nn.ConvTranspose2d))
    del layers[last + 1]
    return nn.Sequential(*layers)


def residual(in_channels: int, width: int, act: Callable[[], nn.Module]) -> nn.Sequential:
    """The ResNet generator of Generative Adversarial Perturbations (Poursaeed et al., 2018), instance-normalized."""

    def up(c_in: int, c_out: int) -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), *_conv(c_in, c_out, 3), act()]

    w1, w2, w4 = width, 2 * width, 4 * width
    return nn.Sequential(
        *[*_conv(in_channels, w1, 7), act(), *_conv(w1, w2, 3, 2), act(), *_conv(w2, w4, 3, 2), act()],
        *[Residual(*_conv(w4, w4, 3), act(), *_conv(w4, w4, 3)) for _ in range(BLOCKS)],
        *[*up(w4, w2), *up(w2, w1)],
        _last(w1, in_channels, 7),
    )


class Guided(nn.Module):
    """A small network that sees the image and, like FGSM, the descent direction of the victim (Jiang et al., 2021).

    `descent` is a function, not a module: the state dict contains no weights of the victim.
    """

    def __init__(self, in_channels: int, width: int, act: Callable[[], nn.Module], descent: Callable[[Tensor], Tensor]):
        super().__init__()
        self.descent = descent
        self.net = nn.Sequential(
            *[*_conv(2 * in_channels, width, 3), act()],
            *[Residual(*_conv(width, width, 3), act(), *_conv(width, width, 3)) for _ in range(2)],
            _last(width, in_channels, 3),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net(torch.cat([images, self.descent(images)], 1))


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [
        nn.Conv2d(c_in, c_out, kernel, stride, padding, padding_mode="reflect"),
        nn.InstanceNorm2d(c_out, affine=True),
    ]


def _last(c_in: int, c_out: int, kernel: int) -> nn.Conv2d:
    """The last convolution. Its small weights start with hardly any perturbation: a saturated tanh learns nothing."""
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, padding_mode="reflect")
    nn.init.normal_(conv.weight, std=1e-3)
    return conv


class Universal(nn.Module):
    """One perturbation for all images (Moosavi-Dezfooli et al., 2017), learned as a parameter."""

    def __init__(self, in_channels: int, image_size: int):
        super().__init__()
        self.perturbation = nn.Parameter(0.01 * torch.randn(1, in_channels, image_size, image_size))

    def forward(self, images: Tensor) -> Tensor:
        return self.perturbation.expand_as(images)
