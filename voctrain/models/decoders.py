"""Segmenters `DECODER/ENCODER`: decoders of segmentation_models_pytorch, or a linear one, on networks of timm."""

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from torch import Tensor, nn

from voctrain.models import timm_networks
from voctrain.models.classifiers import build_classifier
from voctrain.models.linear_maps import LinearMaps
from voctrain.models.normalized import Normalized

LINEAR = "linear"
# `dpt` is for plain vision transformers, whose maps all have one size; the next six need maps of several.
DECODERS = (LINEAR, "unet", "unetplusplus", "fpn", "deeplabv3plus", "upernet", "segformer", "dpt")


def split_name(name: str) -> tuple[str, str] | None:
    """The decoder and timm's name of the encoder; None for the name of another segmenter.

    An encoder is always timm's, even if torchvision has one of the same name.
    """
    decoder, _, encoder = name.partition("/")
    timm_name = timm_networks.name_of(timm_networks.PREFIX + encoder.removeprefix(timm_networks.PREFIX))
    return (decoder, timm_name) if decoder in DECODERS and timm_name is not None else None


def input_size(encoder: str, image_size: int) -> int | None:
    """The side of the only images that a segmenter with this encoder takes; None if it takes any."""
    return timm_networks.size_options(encoder, image_size).get("img_size")


def build_decoder(decoder: str, encoder: str, *, num_classes: int, image_size: int) -> nn.Module:
    """The network, for images whose sides are multiples of 32. Raises `ValueError` if the two do not go together."""
    size = timm_networks.size_options(encoder, image_size)
    try:
        with warnings.catch_warnings(action="ignore"):  # of what timm has moved, and advice on transformers
            if decoder == LINEAR:
                return Linear(encoder, num_classes, image_size)
            return smp.create_model(decoder, f"tu-{encoder}", None, classes=num_classes, **size)
    except (ValueError, TypeError, RuntimeError, AttributeError, AssertionError) as error:
        other = LINEAR if decoder == "dpt" else "dpt"
        raise ValueError(
            f"no {decoder} can be built on {encoder} ({error}): use another encoder, or a decoder such as {other}"
        ) from None


class Linear(nn.Module):
    """Linear layers on an encoder's maps, with no context beyond these maps; good features need none."""

    def __init__(self, encoder: str, num_classes: int, image_size: int):
        super().__init__()
        self.encoder = Maps(encoder, image_size)
        self.heads = LinearMaps(self.encoder.widths, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.heads(self.encoder(images), images)
        return F.interpolate(cells, images.shape[-2:], mode="bilinear", align_corners=False)


class Maps(nn.Module):
    """The maps of a network, from fine to coarse, or of its last blocks."""

    def __init__(self, encoder: str, image_size: int):
        super().__init__()
        net = timm_networks.build(encoder, image_size=image_size, features_only=True)
        info: Any = net.feature_info
        self.model, self.widths = net, info.channels()
        self.channels_last = getattr(net, "output_fmt", None) == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        return [each.permute(0, 3, 1, 2) if self.channels_last else each for each in self.model(images)]


def load_features(model: Normalized, encoder: str, weights: str, *, image_size: int) -> None:
    """Load the published weights or a file of the classifier `encoder` into the encoder of `model.net`.

    `model.loaded` tells what was loaded. Raises `ValueError` as `build_classifier` does.
    """
    classifier = build_classifier(timm_networks.PREFIX + encoder, image_size=image_size, weights=weights)
    features = model.net.get_submodule("encoder.model")
    # timm renames the tensors of a network from which only maps are taken.
    options = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": classifier.net.state_dict()}}
    with _without_log("timm.models._builder"):  # of the head, which is not needed
        whole = timm_networks.build(encoder, image_size=image_size, features_only=True, **options).state_dict()
    features.load_state_dict({key: whole[key] for key in features.state_dict()})
    assert classifier.loaded is not None
    model.loaded = dataclasses.replace(
        classifier.loaded, network=f"the encoder {encoder}", rest="all but the encoder is initialized anew"
    )
    model.set_normalization(classifier.mean, classifier.std)
    model.own_normalization = classifier.own_normalization


@contextlib.contextmanager
def _without_log(name: str) -> Iterator[None]:
    """Keep a library's warnings off the terminal."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
