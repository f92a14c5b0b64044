"""Networks by name. A classifier takes images in [0, 1] and has its normalisation inside."""

import difflib
import functools

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from voctrain.models import weights as weight_files
from voctrain.models.classifiers import NOTEBOOK

TORCHVISION = tuple(torchvision.models.list_models(module=torchvision.models))
CLASSIFIERS = (*NOTEBOOK, *TORCHVISION)
WITH_AUXILIARY = ("googlenet", "inception_v3")
MIN_IMAGE_SIZE = 32


class Classifier(nn.Module):
    """A network behind its normalisation: images (B, C, S, S) in [0, 1] to logits (B, num_classes).

    In training, networks with auxiliary outputs return a tuple: logits, then the auxiliary logits. Where the network
    cannot take images of their size, they are resized to `input_size` first.
    """

    def __init__(self, net: nn.Module, input_size: int, in_channels: int = 3):
        super().__init__()
        self.net, self.input_size = net, input_size
        self.own_normalisation = False  # whether it came with the weights
        self.register_buffer("mean", torch.zeros(1, in_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, in_channels, 1, 1))

    def set_normalisation(self, mean: list[float], std: list[float]) -> None:
        """Subtract `mean` and divide by `std`, a channel each, of pixels in [0, 1]."""
        self.mean.copy_(torch.tensor(mean).view_as(self.mean))
        self.std.copy_(torch.tensor(std).view_as(self.std))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        if images.shape[-1] != self.input_size:
            images = F.interpolate(images, (self.input_size,) * 2, mode="bilinear", antialias=True)
        output = self.net((images - self.mean) / self.std)
        if not isinstance(output, tuple):
            return output
        # torchvision's named tuples: GoogLeNet's with two auxiliary outputs, Inception's with one; logits first.
        return tuple(o for o in output if o is not None)


def build_classifier(
    name: str, *, num_classes: int = 20, image_size: int = 300, weights: str = "none", in_channels: int = 3
) -> Classifier:
    """A classifier of the notebook (SEED.md §2) or of torchvision, by name, for square images of `image_size` px.

    weights: none, imagenet (torchvision's own), or a weights file: see `voctrain.models.weights`. What they cannot fill,
    a head for other classes, stays freshly initialised. Raises `ValueError` for an unknown name, an image_size below 32,
    channels that the network cannot take, and weights that do not fit.
    """
    check_name(name)
    if image_size < MIN_IMAGE_SIZE:
        raise ValueError(f"image_size must be at least {MIN_IMAGE_SIZE} for a classifier, but got {image_size}")
    if name in NOTEBOOK:
        model = Classifier(NOTEBOOK[name](num_classes, image_size, in_channels), image_size, in_channels)
    elif in_channels != 3:
        raise ValueError(f"{name} takes 3 channels only, but got in_channels={in_channels}: use {' or '.join(NOTEBOOK)}")
    else:
        model = Classifier(_torchvision(name, num_classes, weights), _input_size(name, image_size))
    if weights != "none":
        with torch.device("meta"):
            other = build_network(name, num_classes + 1, image_size, weights)
        head = {k for k, v in other.state_dict().items() if v.shape != model.net.state_dict()[k].shape}
        weight_files.fill(model, weights, name, head)
    return model


def check_name(name: str) -> None:
    """Raises `ValueError` for a name that is no classifier's."""
    if name not in CLASSIFIERS:
        close = difflib.get_close_matches(name, CLASSIFIERS, 3) or CLASSIFIERS[:6]
        raise ValueError(f"unknown architecture {name!r}: try {', '.join(close)} or another classifier of torchvision")


def build_network(name: str, num_classes: int, image_size: int, weights: str) -> nn.Module:
    """The bare network."""
    return NOTEBOOK[name](num_classes, image_size) if name in NOTEBOOK else _torchvision(name, num_classes, weights)


def _torchvision(name: str, num_classes: int, weights: str = "none") -> nn.Module:
    options = {}
    if name in WITH_AUXILIARY:  # their published weights expect inputs normalised in another way
        options = {"aux_logits": True, "init_weights": weights == "none", "transform_input": weights != "none"}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)


@functools.cache
def _input_size(name: str, image_size: int) -> int:
    """`image_size`, or the nearest size that the network takes where it cannot take that."""
    own = weight_files.published(name).transforms().crop_size[0]
    with torch.device("meta"):
        network = _torchvision(name, 2, "imagenet")  # training is the stricter test: auxiliary outputs need more pixels

    @functools.cache
    def takes(size: int) -> bool:
        try:
            network(torch.empty(2, 3, size, size, device="meta"))
        except Exception:
            return False
        return True

    if takes(image_size):
        return image_size
    if not takes(own + 1):  # made for one size
        return own
    low, high = image_size, own  # the smallest that it takes is above low, at most high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(middle) else (middle, high)
    return high
