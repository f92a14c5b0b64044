"""Classifiers: those of the course notebook, a small ResNet, and torchvision's, each with its normalization inside."""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from voctrain.models import timm_networks
from voctrain.models.auxiliary import outputs_of
from voctrain.models.heads import Head
from voctrain.models.mask_heads import MaskHeads, MaskPooling
from voctrain.models.normalized import Normalized
from voctrain.models.weights import load_into

# Minimum sizes above 32: alexnet's last pooling, and the 17 × 17 map that inception_v3's auxiliary output needs.
MIN_SIZES = {"alexnet": 63, "inception_v3": 299}
FIXED_SIZE = ("vit_", "maxvit_")  # only work at the size of their published weights
AUXILIARY = ("googlenet", "inception_v3")


class Classifier(Normalized):
    """A network with its normalization: images (B, C, H, W) in [0, 1] → logits (B, num_classes).

    In train mode, a network with auxiliary outputs returns (logits, *auxiliary logits), each (B, num_classes).
    input_size: the side of the network's input in pixels; images of another size are resized to it.
    mask_heads: heads that training with `mask_loss` needs; with `mask_pooling` they stay.
    """

    def __init__(self, net: nn.Module, *, input_size: int, in_channels: int = 3):
        super().__init__(net, in_channels=in_channels)
        self.input_size = input_size
        self.mask_heads: MaskHeads | MaskPooling | None = None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        pooled = isinstance(self.mask_heads, MaskPooling)
        outputs = self.with_maps(images)[0] if pooled else outputs_of(self.net(self.prepared(images)))
        return outputs[0] if len(outputs) == 1 else outputs

    def with_maps(self, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The outputs for images, and the mask heads' logits of maps (B, 1 + num_classes, h, w), background first."""
        prepared = self.prepared(images)
        return (outputs_of(self.net(prepared)), []) if self.mask_heads is None else self.mask_heads(self.net, prepared)

    def prepared(self, images: Tensor) -> Tensor:
        """The input of `net`: resized and normalized."""
        if images.shape[-2:] != (self.input_size, self.input_size):
            images = F.interpolate(images, (self.input_size, self.input_size), mode="bilinear", antialias=True)
        return self.normalized(images)


def build_classifier(
    name: str,
    *,
    num_classes: int = 20,
    image_size: int = 300,
    weights: str = "none",
    in_channels: int = 3,
    classes: Sequence[str] | None = None,
) -> Classifier:
    """The classifier `name`, one of `CLASSIFIERS`, for square images of side `image_size` >= 16 pixels.

    weights: "none", "imagenet" (torchvision's default weights, from torch hub's cache or downloaded) or the path of a
    weights file (see `weights_file.read_file`). A last layer that does not fit `num_classes`, or that a checkpoint has
    for other classes than `classes`, is initialized anew; `Classifier.loaded` tells what was loaded.
    classes: the names of the classes, if they are known.
    Raises `ValueError` for an unknown name, and for weights that are unavailable or belong to another model.
    """
    check_name(name)
    if image_size < 16:
        raise ValueError(f"image_size must be at least 16 pixels, but got {image_size}")
    if in_channels != 3 and name in TORCHVISION:
        raise ValueError(
            f"{name} requires 3 channels, but got in_channels={in_channels}: use {', '.join(OWN_NETWORKS)}"
        )
    net = _build_net(name, num_classes, image_size, in_channels)
    model = Classifier(net, input_size=input_size(name, image_size), in_channels=in_channels)
    head = Head(_last_tensors(name), None if classes is None else tuple(classes))
    model.backbone = tuple(f"net.{part}." for part, _ in net.named_children() if part not in head.parts)
    model.backbone += tuple(f"net.{name}" for name, _ in net.named_parameters(recurse=False))  # such as cls_token
    model.last_layers = head.layers
    if weights != "none":
        load_into(model, name, weights, head, image_size=image_size)
    return model


def check_name(name: str) -> None:
    """Raise `ValueError` unless `name` is one of `CLASSIFIERS` or timm's."""
    if name not in CLASSIFIERS and timm_networks.name_of(name) is None:
        close = difflib.get_close_matches(name, {*CLASSIFIERS, *timm_networks.names()}, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "use a name of torchvision or timm"
        raise ValueError(f"unknown classifier {name!r}: {hint}")


def simple(num_classes: int, image_size: int, in_channels: int) -> nn.Sequential:
    """Two convolutions and a linear layer, from the course notebook."""
    return nn.Sequential(
        *[nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
        nn.Flatten(),
        nn.Linear(32 * (image_size // 4) ** 2, num_classes),
    )


def complex_(num_classes: int, image_size: int, in_channels: int) -> nn.Sequential:
    """Four convolutions with batch normalization and two linear layers, from the course notebook."""
    layers: list[nn.Module] = []
    for c_in, c_out in [(in_channels, 32), (32, 64), (64, 128), (128, 256)]:
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(256 * (image_size // 16) ** 2, 512), nn.ReLU(), nn.Linear(512, num_classes)]
    return nn.Sequential(*layers)


def tinyvgg(num_classes: int, image_size: int, in_channels: int) -> nn.Sequential:
    """Five convolutions, with ReLU before batch normalization and dropout, and two linear layers (course notebook)."""

    def conv(c_in: int, c_out: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(c_out)]

    return nn.Sequential(
        *[*conv(in_channels, 32), nn.MaxPool2d(3), nn.Dropout(0.25)],
        *[*conv(32, 64), *conv(64, 64), nn.MaxPool2d(2), nn.Dropout(0.25)],
        *[*conv(64, 128), *conv(128, 128), nn.MaxPool2d(2), nn.Dropout(0.25)],
        nn.Flatten(),
        *[nn.Linear(128 * (image_size // 12) ** 2, 1024), nn.ReLU(), nn.BatchNorm1d(1024), nn.Dropout(0.5)],
        nn.Linear(1024, num_classes),
    )


def resnet9(num_classes: int, image_size: int, in_channels: int) -> nn.Sequential:
    """ResNet-9 (Page, "How to train your ResNet", 2018) with half the width, for small sets of small images.

    Unlike the original, it also pools after the first convolution and concatenates average and maximum pooling at the
    end.
    """

    def conv(c_in: int, c_out: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]

    return nn.Sequential(
        *[*conv(in_channels, 32), nn.MaxPool2d(2)],
        *[*conv(32, 64), nn.MaxPool2d(2), Residual(*conv(64, 64), *conv(64, 64))],
        *[*conv(64, 128), nn.MaxPool2d(2)],
        *[*conv(128, 256), nn.MaxPool2d(2), Residual(*conv(256, 256), *conv(256, 256))],
        *[AverageAndMaximum(), nn.Linear(2 * 256, num_classes)],
    )


def mnist_model(num_classes: int, image_size: int, in_channels: int) -> nn.Sequential:
    """Two convolutions without padding and two linear layers, for digits, from the course notebook."""
    side = ((image_size - 4) // 2 - 4) // 2
    return nn.Sequential(
        *[nn.Conv2d(in_channels, 10, 5), nn.MaxPool2d(2), nn.ReLU()],
        *[nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()],
        *[nn.Flatten(), nn.Linear(20 * side**2, 50), nn.ReLU(), nn.Linear(50, num_classes)],
    )


class Residual(nn.Sequential):
    """Adds the input to the output of its layers."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch calls it input
        return x + super().forward(x)


class AverageAndMaximum(nn.Module):
    """(B, C, H, W) → (B, 2 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


OWN_NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "simple": simple,
    "complex": complex_,
    "tinyvgg": tinyvgg,
    "resnet9": resnet9,
    "mnist_model": mnist_model,
}
TORCHVISION = tuple(models.list_models(module=models))
CLASSIFIERS: tuple[str, ...] = (*OWN_NETWORKS, *TORCHVISION)


def input_size(name: str, image_size: int) -> int:
    """The size nearest to `image_size` at which the network works, in eval and in train mode."""
    if name in OWN_NETWORKS:
        return image_size
    if timm_name := timm_networks.name_of(name):
        return timm_networks.input_size(timm_name, image_size)
    if name.startswith(FIXED_SIZE):
        return next(iter(models.get_model_weights(name))).transforms().crop_size[0]
    return max(image_size, MIN_SIZES.get(name, 32))


def _build_net(name: str, num_classes: int, image_size: int, in_channels: int = 3) -> nn.Module:
    if name in OWN_NETWORKS:
        return OWN_NETWORKS[name](num_classes, image_size, in_channels)
    if timm_name := timm_networks.name_of(name):
        return timm_networks.build(timm_name, image_size=image_size, num_classes=num_classes, in_chans=in_channels)
    options: dict[str, Any] = {}
    if name in AUXILIARY:
        # torchvision's own initialization of these two takes seconds, and it warns that this will change.
        options = {"aux_logits": True, "init_weights": False}
    if name.startswith("vit_"):
        options = {"image_size": input_size(name, image_size)}
    return models.get_model(name, weights=None, num_classes=num_classes, **options)


class _ShapesOnly(TorchFunctionMode):
    """Modules built in this mode use no memory. Not `torch.device("meta")`: regnets compute with small tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        on_meta = {"device": "meta"} if func in (torch.empty, torch.zeros, torch.ones) else {}
        return func(*args, **{**(kwargs or {}), **on_meta})


@functools.cache
def tensor_names(name: str) -> frozenset[str]:
    """The names of the tensors of a classifier's network."""
    with _ShapesOnly():
        return frozenset(_build_net(name, 2, 32).state_dict())


@functools.cache
def _last_tensors(name: str) -> frozenset[str]:
    """The names of those whose shape depends on the number of classes."""
    with _ShapesOnly():
        one, other = (_build_net(name, num_classes, 32).state_dict() for num_classes in (2, 3))
    return frozenset(key for key in one if one[key].shape != other[key].shape)
