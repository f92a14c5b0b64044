"""Trained models as functions of images of any size, with resizing and normalization inside.

The geometry is that of `voctrain.data.resizing`, as products with matrices that are computed from height and width:
they can be traced and exported for any size, and multiplying matrices is what every runtime can do. Many lack
antialiased resizing.
"""

import math

import torch
from torch import Tensor, nn

from voctrain.data.resizing import RESIZE
from voctrain.models.auxiliary import outputs_of
from voctrain.models.classifiers import Classifier


class Deployed(nn.Module):
    """A model behind the resizing that it was trained with, in float32; subclasses define `forward`.

    model: takes square images of side `image_size`, float32 (B, C, S, S) in [0, 1]. resize: how images of other shapes
    become squares.
    """

    channels = 3
    output: str  # what `forward` returns, for a reader
    needed: str | None = None  # a file that it needs beside its own weights

    def __init__(self, model: nn.Module, *, image_size: int, resize: str = "squash"):
        super().__init__()
        assert resize in RESIZE
        self.model, self.image_size, self.resize = model, image_size, resize

    @property
    def input(self) -> str:
        """What `forward` takes, for a reader."""
        color = "RGB" if self.channels == 3 else "gray"
        return f"images, float32 (batch, {self.channels}, height, width), {color} in [0, 1], of any size"

    def exportable(self) -> "Deployed":
        """This model, or one with the same outputs that exporters understand."""
        return self

    def squares(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) as the squares that the model takes, (B, C, S, S)."""
        return to_squares(images, self.image_size, self.resize)

    def restored(self, squares: Tensor, images: Tensor, *, lanczos: bool = False) -> Tensor:
        """Maps of the squares of these images, (B, K, S, S), at the size of the images; 0 where a crop left out."""
        height, width = images.shape[-2:]
        rows = from_square(height, width, self.image_size, self.resize, images.device, lanczos)
        columns = from_square(width, height, self.image_size, self.resize, images.device, lanczos)
        return rows @ squares @ columns.mT


class DeployedClassifier(Deployed):
    """Images (B, C, H, W) → probabilities (B, classes)."""

    output = "the probability of each class, float32 (batch, classes)"

    def __init__(self, model: Classifier, *, image_size: int, resize: str = "squash"):
        super().__init__(model, image_size=image_size, resize=resize)
        self.input_size = model.input_size  # some networks need squares of another size

    def forward(self, images: Tensor) -> Tensor:
        squares = self.squares(images)
        if self.input_size != self.image_size:
            squares = to_squares(squares, self.input_size, "squash")
        return self.model(squares).sigmoid()


class DeployedSegmenter(Deployed):
    """Images (B, C, H, W) → probabilities (B, 1 + classes, H, W) of background and classes, which sum to 1.

    Logits are enlarged, not probabilities, so that the most probable class is that of `voctrain.segment.predict`.
    """

    output = "the probability of background and each class, float32 (batch, 1 + classes, height, width)"

    def forward(self, images: Tensor) -> Tensor:
        logits = outputs_of(self.model(self.squares(images)))[0]
        probabilities = self.restored(logits, images).softmax(1)
        if self.resize != "crop":
            return probabilities
        seen = self.restored(torch.ones_like(logits[:1, :1]), images)  # 1 in the window, 0 outside: background there
        probabilities = probabilities * seen
        return torch.cat([probabilities[:, :1] + (1 - seen), probabilities[:, 1:]], 1)


class DeployedGenerator(Deployed):
    """Images (B, C, H, W) → attacked images (B, C, H, W) in [0, 1], not yet rounded to 8 bits.

    model: maps squares to their perturbations. factor: by which these are scaled, see `AttackEvaluator`.
    """

    output = "the attacked images, float32 (batch, channels, height, width) in [0, 1]; round them to 8 bits"

    def __init__(self, model: nn.Module, *, factor: float, channels: int, image_size: int, resize: str = "squash"):
        super().__init__(model, image_size=image_size, resize=resize)
        self.factor, self.channels = factor, channels

    def forward(self, images: Tensor) -> Tensor:
        squares = self.squares(images)
        change = (squares + self.factor * self.model(squares)).clamp(0, 1) - squares
        # Lanczos' filter keeps most of a perturbation when the attacked image is reduced again.
        return (images + self.restored(change, images, lanczos=True)).clamp(0, 1)


def to_squares(images: Tensor, size: int, resize: str) -> Tensor:
    """(B, C, H, W) → (B, C, size, size)."""
    height, width = images.shape[-2:]
    rows = to_square(height, width, size, resize, images.device)
    columns = to_square(width, height, size, resize, images.device)
    return rows @ images @ columns.mT


def to_square(length: int, other: int, size: int, resize: str, device: torch.device) -> Tensor:
    """The matrix (size, length) that resizes one axis of an image to the square, as Pillow's bilinear filter does.

    length, other: the image's extent along this axis and the other one. When shrinking, the filter averages over the
    area that each pixel covers. Pixels of a padding count as 0.
    """
    start, side = _window(length, other, resize, device)
    scale = side / size
    centers = ((torch.arange(size, device=device) + 0.5) * scale)[:, None]

    def weights(pixels: Tensor) -> Tensor:
        inside = (pixels >= 0) & (pixels < side)
        return torch.where(inside, _triangle((pixels + 0.5 - centers) / scale.clamp(min=1)), 0.0)

    total = weights(torch.arange(length + other, device=device)).sum(1, keepdim=True)  # the window is not longer
    return weights(torch.arange(length, device=device) - start) / total


def from_square(length: int, other: int, size: int, resize: str, device: torch.device, lanczos: bool) -> Tensor:
    """The matrix (length, size) that resizes one axis of the square back to the image; rows outside a crop are 0.

    By Lanczos' filter, or else as `F.interpolate(…, mode="bilinear")` does, which does not average when shrinking.
    """
    start, side = _window(length, other, resize, device)
    scale = size / side
    pixels = (torch.arange(length, device=device) - start)[:, None]
    distances = torch.arange(size, device=device) + 0.5 - (pixels + 0.5) * scale
    weights = _lanczos(distances / scale.clamp(min=1)) if lanczos else _triangle(distances)
    inside = (pixels >= 0) & (pixels < side)
    return torch.where(inside, weights / weights.sum(1, keepdim=True), 0.0)


def _window(length: int, other: int, resize: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first pixel along an axis, and the side, of `voctrain.data.resizing.window`, as float32 scalars.

    `torch.full` keeps the sizes symbols in an export, and is recorded in a trace.
    """
    here, there = (torch.full((), n, dtype=torch.float32, device=device) for n in (length, other))
    if resize == "squash":
        return torch.zeros_like(here), here
    side = torch.maximum(here, there) if resize == "pad" else torch.minimum(here, there)
    return ((here - side) / 2).floor(), side


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Tensor) -> Tensor:
    """As `torch.sinc`, which some exporters lack."""
    x = math.pi * x
    return torch.where(x == 0, 1.0, x.sin() / torch.where(x == 0, 1.0, x))
