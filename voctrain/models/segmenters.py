"""Segmenters: a U-Net, a feature pyramid on the classifiers, torchvision's, and those of `decoders`.

U-Net and feature pyramid are written by hand because the U-Net must be that of the course notebook, and the pyramid
must build on the classifiers, with the same weights files, that this project trains.
"""

import difflib
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from voctrain.models.classifiers import CLASSIFIERS, build_classifier, tensor_names
from voctrain.models.decoders import DECODERS, Linear, build_decoder, input_size, load_features, split_name
from voctrain.models.heads import Head
from voctrain.models.maps import channels_first, map_shapes
from voctrain.models.normalized import Normalized
from voctrain.models.weights import is_named, is_of_encoder, load_encoder, load_into

TORCHVISION = tuple(models.list_models(module=models.segmentation))
SEGMENTERS: tuple[str, ...] = ("unet", *TORCHVISION, *(f"fpn_{name}" for name in CLASSIFIERS))
TRACED_SIZE = 64  # pixels; the image size at which a classifier is traced to find its feature maps
STRIDES = (2, 4, 8, 16, 32)  # input pixels per cell of the maps of a pyramid, if the classifier has them


class Segmenter(Normalized):
    """A network with its normalization: images (B, 3, H, W) in [0, 1] of any size → logits (B, num_classes, H, W).

    In train mode, a network with an auxiliary output returns (logits, auxiliary logits).
    input_size: the side of the only images that the network takes; None if it takes any whose sides are multiples of
    `stride`. Images of other sizes are resized to the former, or padded for the latter.
    """

    def __init__(self, net: nn.Module, *, input_size: int | None = None, stride: int = 1):
        super().__init__(net)
        self.input_size, self.stride = input_size, stride

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output = self.net(self.prepared(images))
        if self.input_size is not None:
            return _resized(output, images)
        if isinstance(output, Tensor):
            return output[..., : images.shape[-2], : images.shape[-1]]
        return (output["out"], output["aux"]) if self.training and "aux" in output else output["out"]

    def prepared(self, images: Tensor) -> Tensor:
        """The input of `net`: normalized, and resized or padded."""
        images = self.normalized(images)
        if self.input_size is not None:
            return F.interpolate(images, (self.input_size, self.input_size), mode="bilinear", antialias=True)
        height, width = (-side % self.stride for side in images.shape[-2:])
        return F.pad(images, (0, width, 0, height), mode="replicate") if height or width else images


def build_segmenter(
    name: str,
    *,
    num_classes: int = 21,
    image_size: int = 300,
    width: int | None = None,
    depth: int | None = None,
    weights: str = "none",
    classes: Sequence[str] | None = None,
) -> Segmenter:
    """The segmenter `name`, one of `SEGMENTERS` or `DECODER/ENCODER`; num_classes includes background.

    image_size: the side of the images, in pixels, for encoders that are built for one size.
    width: of `UNet` or `FPN`, by default 64. depth: of `UNet`, by default 4.
    weights: "none", "imagenet" (torchvision's default weights for the encoder), "published" (torchvision's weights for
    the whole segmenter, trained on COCO's masks of VOC's classes), or the path of a weights file of a segmenter or of
    the encoder's classifier. A last layer that does not fit `num_classes`, or that a checkpoint has for other classes
    than `classes`, is initialized anew; `Segmenter.loaded` tells what was loaded.
    classes: the names of the classes without background, if they are known.
    Raises `ValueError` for an unknown name, and for weights that are unavailable or belong to another model.
    """
    check_name(name)
    encoder = name.partition("_")[2]
    decoded = split_name(name)
    if decoded is not None:
        net = build_decoder(*decoded, num_classes=num_classes, image_size=image_size)
        model = Segmenter(net, input_size=input_size(decoded[1], image_size), stride=32)
    elif name == "unet":
        model = Segmenter(UNet(num_classes, width=width or 64, depth=depth or 4))
    elif name.startswith("fpn_"):
        model = Segmenter(FPN(encoder, num_classes, width=width or 64))
    else:
        auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
        options = {"weights": None, "weights_backbone": None, "num_classes": num_classes, **auxiliary}
        model = Segmenter(models.get_model(name, **options))
    part = None if name == "unet" else "encoder" if decoded or name.startswith("fpn_") else "backbone"
    model.backbone = () if part is None else (f"net.{part}.",)
    head = Head(_last_tensors(model.net), None if classes is None else tuple(classes), background=1)
    model.last_layers = head.layers
    if weights != "none":
        of_encoder = weights != "published" if is_named(weights) else is_of_encoder(weights, model.net, part, head)
        if of_encoder:
            if part is None:
                raise ValueError(f"unet has no pretrained encoder for weights={weights}: use --weights none")
            if decoded is not None:
                load_features(model, decoded[1], weights, image_size=image_size)
                return model
            load_encoder(model, model.net.get_submodule(part), encoder, weights, tensor_names(encoder))
        else:
            load_into(model, name, weights, head)
    return model


def check_name(name: str) -> None:
    """Raise `ValueError` unless `name` is one of `SEGMENTERS` or `DECODER/ENCODER`."""
    if name not in SEGMENTERS and split_name(name) is None:
        close = difflib.get_close_matches(name, SEGMENTERS, 3)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"use unet, fpn_CLASSIFIER, a torchvision name, or DECODER/ENCODER with {', '.join(DECODERS)} and a"
            " timm name"
        )
        raise ValueError(f"unknown segmenter {name!r}: {hint}")


def _last_tensors(net: nn.Module) -> frozenset[str]:
    """The names of the tensors whose shape depends on the number of classes: those of the last layers."""
    if isinstance(net, UNet | FPN):
        layers = ["head"]
    elif isinstance(net, Linear):
        layers = [f"heads.{i}" for i in range(len(net.heads))]
    elif isinstance(net, SegmentationModel):
        layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)][-1:]
    else:  # torchvision's: sequences that end with it, or two such layers
        sequences = [
            name for name in ("classifier", "aux_classifier") if isinstance(getattr(net, name, None), nn.Sequential)
        ]
        layers = [f"{name}.{len(net.get_submodule(name)._modules) - 1}" for name in sequences]
        layers = layers or ["classifier.low_classifier", "classifier.high_classifier"]
    return frozenset(f"{layer}.{key}" for layer in layers for key, _ in net.get_submodule(layer).named_parameters())


def double_convolution(c_in: int, c_out: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with batch normalization and ReLU."""
    return nn.Sequential(*convolution(c_in, c_out, 3), *convolution(c_out, c_out, 3))


def convolution(c_in: int, c_out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, kernel, padding="same", bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with padding, as in the course notebook.

    It has `width` channels, doubled at each of `depth` halvings of the image. Odd sides are rounded up on the way down
    and cropped again on the way up.
    """

    def __init__(self, num_classes: int, *, width: int = 64, depth: int = 4):
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList(double_convolution(*pair) for pair in pairwise((3, *widths)))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        steps = [(2 * w, w) for w in reversed(widths[:-1])]
        self.up = nn.ModuleList(nn.ConvTranspose2d(*step, 2, stride=2) for step in steps)
        self.merge = nn.ModuleList(double_convolution(*step) for step in steps)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(self.pool(x) if skips else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            skip = skips.pop()
            x = merge(torch.cat([skip, up(x)[..., : skip.shape[-2], : skip.shape[-1]]], dim=1))
        return self.head(x)


class FPN(nn.Module):
    """A semantic feature pyramid (Kirillov et al., 2019) on the deepest feature map of each stride of a classifier.

    From coarse to fine, each map is projected to `width` channels, added to the up-sampled coarser result, and smoothed
    by a 3×3 convolution. Raises `ValueError` for a classifier that cannot be traced or has no such maps.
    """

    def __init__(self, classifier: str, num_classes: int, *, width: int = 64):
        super().__init__()
        net = build_classifier(classifier, num_classes=1, image_size=TRACED_SIZE).net
        sizes = {TRACED_SIZE // stride for stride in STRIDES}
        try:
            shapes = map_shapes(net, torch.zeros(1, 3, TRACED_SIZE, TRACED_SIZE), channels_first)
            deepest = {shape[-1]: name for name, shape in shapes.items() if shape[-1] in sizes}
            names = list(deepest.values())
            with warnings.catch_warnings(action="ignore"):  # dropout makes the graphs of train and eval mode differ
                self.encoder = create_feature_extractor(net, names)
        except Exception as error:  # tracing fails in many ways
            raise ValueError(f"no feature pyramid can be built on {classifier} ({error}): use a ResNet") from None
        if len(names) < 2:
            raise ValueError(f"no feature pyramid can be built on {classifier} (fewer than two maps): use a ResNet")
        names.sort(key=lambda name: -shapes[name][-1])  # the finest first
        self.names = names
        self.lateral = nn.ModuleList(nn.Sequential(*convolution(shapes[name][1], width, 1)) for name in names)
        self.smooth = nn.ModuleList(nn.Sequential(*convolution(width, width, 3)) for _ in names)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps, y = self.encoder(x), None
        for name, lateral, smooth in zip(*map(reversed, (self.names, self.lateral, self.smooth)), strict=True):
            here = lateral(maps[name])
            y = smooth(here if y is None else here + _resized(y, here))
        return _resized(self.head(y), x)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)
