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
from voctrain.models.ensemble import ClassifierEnsemble


class Deployed(nn.Module):
    """A model behind the resizing that it was trained with, in float32; subclasses define `forward`.

    model: takes square images of side `image_size`, float32 (B, C, S, S) in [0, 1]. resize: how images of other shapes
    become squares.
    """

    places: Tensor
    channels = 3
    output: str  # what `forward` returns, for a reader
    needed: str | None = None  # a file that it needs beside its own weights

    def __init__(self, model: nn.Module, *, image_size: int, resize: str = "squash"):
        super().__init__()
        assert resize in RESIZE
        self.model, self.image_size, self.resize = model, image_size, resize
        self.register_buffer("places", torch.arange(image_size, dtype=torch.float32), persistent=False)

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
        return to_squares(images, self.places, self.resize)

    def restored(self, squares: Tensor, images: Tensor, *, lanczos: bool = False) -> Tensor:
        """Maps of the squares of these images, (B, K, S, S), at the size of the images; 0 where a crop left out."""
        height, width = _sides(images)
        rows = from_square(height, width, self.places, self.resize, lanczos=lanczos)
        columns = from_square(width, height, self.places, self.resize, lanczos=lanczos)
        return rows @ squares @ columns.mT


class DeployedClassifier(Deployed):
    """Images (B, C, H, W) → probabilities (B, classes)."""

    inner: Tensor  # numbers the rows of the network's input: some networks need squares of another size
    output = "the probability of each class, float32 (batch, classes)"

    def __init__(self, model: Classifier | ClassifierEnsemble, *, image_size: int, resize: str = "squash"):
        super().__init__(model, image_size=image_size, resize=resize)
        self.register_buffer("inner", torch.arange(model.input_size, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        squares = self.squares(images)
        if len(self.inner) != self.image_size:
            squares = to_squares(squares, self.inner, "squash")
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


def to_squares(images: Tensor, places: Tensor, resize: str) -> Tensor:
    """(B, C, H, W) → (B, C, S, S), where `places` are the numbers from 0 to S - 1."""
    height, width = _sides(images)
    rows, columns = to_square(height, width, places, resize), to_square(width, height, places, resize)
    return rows @ images @ columns.mT


def to_square(here: Tensor, there: Tensor, places: Tensor, resize: str) -> Tensor:
    """The matrix (S, length) that resizes one axis of an image to the square, as Pillow's bilinear filter does.

    here, there: ones, as many as the image has pixels along this axis and the other one. When shrinking, the filter
    averages over the area that each pixel covers. Pixels of a padding count as 0.
    """
    start, side = _window(here, there, resize)
    scale = side / len(places)
    centers = ((places + 0.5) * scale)[:, None]

    def weights(pixels: Tensor) -> Tensor:
        inside = (pixels >= 0) & (pixels < side)
        return torch.where(inside, _triangle((pixels + 0.5 - centers) / scale.clamp(min=1)), 0.0)

    total = weights(_numbered(torch.cat([here, there]))).sum(1, keepdim=True)  # no window is longer
    return weights(_numbered(here) - start) / total


def from_square(here: Tensor, there: Tensor, places: Tensor, resize: str, *, lanczos: bool = False) -> Tensor:
    """The matrix (length, S) that resizes one axis of the square back to the image; rows outside a crop are 0.

    By Lanczos' filter, or else as `F.interpolate(…, mode="bilinear")` does, which does not average when shrinking.
    """
    start, side = _window(here, there, resize)
    scale = len(places) / side
    pixels = (_numbered(here) - start)[:, None]
    distances = places + 0.5 - (pixels + 0.5) * scale
    weights = _lanczos(distances / scale.clamp(min=1)) if lanczos else _triangle(distances)
    inside = (pixels >= 0) & (pixels < side)
    return torch.where(inside, weights / weights.sum(1, keepdim=True), 0.0)


def _sides(images: Tensor) -> tuple[Tensor, Tensor]:
    """Ones, as many as the images have rows and columns: sizes in this form are dynamic in every kind of trace.

    They also name no device, so that what was traced on the CPU can be moved to a GPU.
    """
    return torch.ones_like(images[0, 0, :, 0]), torch.ones_like(images[0, 0, 0])


def _numbered(ones: Tensor) -> Tensor:
    return ones.cumsum(0) - 1


def _window(here: Tensor, there: Tensor, resize: str) -> tuple[Tensor, Tensor]:
    """The first pixel along an axis, and the side, of `voctrain.data.resizing.window`."""
    length, other = here.sum(), there.sum()
    if resize == "squash":
        return torch.zeros_like(length), length
    side = torch.maximum(length, other) if resize == "pad" else torch.minimum(length, other)
    return ((length - side) / 2).floor(), side


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Tensor) -> Tensor:
    """As `torch.sinc`, which some exporters lack."""
    x = math.pi * x
    return torch.where(x == 0, 1.0, x.sin() / torch.where(x == 0, 1.0, x))
