"""Augmentation of whole batches on their device: one warp, then color transforms.

Random numbers come from torch's CPU generator, so that all devices draw the same. The matrices are computed on the CPU,
too: each of their small operations takes less time there than a GPU needs to launch its kernel. They are sent with all
other amounts in a single copy.

Written by hand rather than taken from torchvision v2 or kornia because all geometric transforms of a batch become one
homography and one sampling per image, parameters are drawn per image, and masks are warped alongside.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from voctrain.config import TrainConfig
from voctrain.data.class_names import VOID

FLIPS = {"hflip": -1, "vflip": -2}  # the dimension of each
NEED_COLOR = ("saturation", "hue", "grayscale")
EVENTS = (*FLIPS, "grayscale")  # applied with a probability; all others vary by an amount
DRAWS = {"translate": 2, "perspective": 8, "crop_scale": 4}  # random numbers per image; 1 for all others
CORNERS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))  # of the image
BASIS = ((1.0, -1.0, 1.0), (1.0, 1.0, -1.0), (-1.0, 1.0, 1.0))  # of these corners, see `_basis`
MAX_ASPECT = 4 / 3  # of a random crop (Szegedy et al., 2015)


@overload
def augment(images: Tensor, config: TrainConfig, *, size: int | None = None) -> Tensor: ...
@overload
def augment(
    images: Tensor, config: TrainConfig, masks: Tensor, focus: Tensor | None = None, *, size: int | None = None
) -> tuple[Tensor, Tensor]: ...
def augment(
    images: Tensor,
    config: TrainConfig,
    masks: Tensor | None = None,
    focus: Tensor | None = None,
    *,
    size: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Augment images (B, 3, S, S) float32 in [0, 1], and masks (B, S, S) of any integer type with them.

    focus: points (2, B), x and y in [-1, 1], that random crops must contain; NaN: no constraint.
    size: the side of the output, if it is not that of the input.
    Beyond the border, images are reflected and masks are 255. Memory format and value range are preserved; the inputs
    are not modified, and are returned unchanged if `config` augments nothing.
    """
    names = [name for name in (*GEOMETRY, *COLORS) if getattr(config, name) != (1.0 if name == "crop_scale" else 0.0)]
    amounts = _draw(names, config, len(images))
    geometry = {name: amounts.pop(name) for name in GEOMETRY if name in amounts}
    memory_format = torch.channels_last if images.stride(1) == 1 else torch.contiguous_format
    with torch.autocast(images.device.type, enabled=False):  # coordinates need all of float32
        if geometry.keys() <= FLIPS.keys() and size in (None, images.shape[-1]):
            amounts = _send(geometry | amounts, images)
            images, masks = _flip(images, masks, amounts)
        else:
            crop = {"crop_scale": geometry.pop("crop_scale")} if focus is not None and "crop_scale" in geometry else {}
            matrix = _homography(geometry, len(images))
            amounts = _send({"matrix": matrix.view(-1, 9).T} | crop | amounts, images)
            matrix = amounts["matrix"].T.view(-1, 3, 3)
            if crop and focus is not None:  # only the device knows the focus
                matrix = _homography({"crop_scale": torch.cat([amounts["crop_scale"], focus])}, len(images)) @ matrix
            images, masks = _warp(images, masks, matrix, size or images.shape[-1])
        if amounts.keys() & COLORS.keys():
            images = images.contiguous()  # one plane per channel: several times faster on a CPU
        for name in COLORS:
            if name in amounts:
                images = COLORS[name](images, amounts[name])
    images = images.contiguous(memory_format=memory_format)
    return images if masks is None else (images, masks)


def _send(amounts: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """These amounts, (draws, B) each, on the device of the images."""
    if not amounts:
        return amounts
    joined = torch.cat(list(amounts.values())).to(images.device, non_blocking=True)
    return dict(zip(amounts, joined.split([len(amount) for amount in amounts.values()]), strict=True))


def _draw(names: list[str], config: TrainConfig, size: int) -> dict[str, Tensor]:
    """The amounts (draws, B) of each augmentation for `size` images; 0 leaves an image unchanged."""
    if not names:
        return {}
    counts = [DRAWS.get(name, 1) for name in names]
    forms = torch.tensor([form for name in names for form in _forms(name, getattr(config, name))])
    scale, shift, value, event = forms.T[..., None]
    uniform = torch.rand(sum(counts), size)
    drawn = torch.where(event > 0, (uniform < value).float(), (uniform * scale + shift) * value)
    if config.num_ops is not None:
        places = torch.rand(len(names), size).argsort(0)  # a random order of the augmentations
        drawn = drawn * (places < config.num_ops).repeat_interleave(torch.tensor(counts), 0)
    amounts = dict(zip(names, drawn.split(counts), strict=True))
    if config.one_color:
        coin = torch.rand(size) < 0.5
        amounts |= {"brightness": amounts["brightness"] * coin, "grayscale": amounts["grayscale"] * ~coin}
    return amounts


def _forms(name: str, value: float) -> Sequence[tuple[float, float, float, float]]:
    """How each random number u in [0, 1) of an augmentation becomes an amount: (u · scale + shift) · value.

    Returns scale, shift and value of each, and whether the amount is instead 1 if u < value, and 0 otherwise.
    """
    if name in EVENTS:
        return [(0, 0, value, 1)]
    if name == "perspective":
        return [(1, 0, value, 0)] * DRAWS[name]
    if name == "crop_scale":
        return [(1, 0, 1 - value, 0)] + [(2, -1, 1, 0)] * 3
    return [(2, -1, value, 0)] * DRAWS.get(name, 1)


def _flip(images: Tensor, masks: Tensor | None, amounts: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The warp of flips alone: exact, and much cheaper."""
    for name in [name for name in FLIPS if name in amounts]:
        dim, amount = FLIPS[name], amounts[name]
        images = images.lerp(images.flip(dim), amount[0].view(-1, 1, 1, 1))  # a weight of 0 or 1: exact
        masks = None if masks is None else torch.where(amount[0, :, None, None] > 0, masks.flip(dim), masks)
    return images, masks


def _homography(geometry: dict[str, Tensor], batch: int) -> Tensor:
    """All geometric transforms as one homography per image, (B, 3, 3)."""
    if not geometry:
        return torch.eye(3).repeat(batch, 1, 1)
    entries = [entry for name, amount in geometry.items() for entry in GEOMETRY[name](amount)]
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    numbers = {0: torch.zeros_like(like), 1: torch.ones_like(like)}
    filled = [entry if isinstance(entry, Tensor) else numbers[entry] for entry in entries]
    matrices = torch.stack(filled, 1).view(batch, -1, 3, 3)
    return functools.reduce(torch.matmul, matrices.unbind(1))


def _warp(images: Tensor, masks: Tensor | None, matrix: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Sample images and masks once, under homographies (B, 3, 3)."""
    grid = _grid(matrix, size, size)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).clamp_(0, 1)
    if masks is not None:
        known = masks[:, None].float() - VOID  # beyond the border, grid_sample can only pad with zeros
        known = F.grid_sample(known, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        masks = (known[:, 0] + VOID).to(masks.dtype)
    return images, masks


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Sampling positions of the output pixels, (B, H, W, 2), under homographies (B, 3, 3) in [-1, 1] coordinates."""
    y, x = (torch.linspace(1 / n - 1, 1 - 1 / n, n, device=matrix.device) for n in (height, width))  # centers
    columns = matrix[:, :, 1, None] * y + matrix[:, :, 2, None]  # (B, 3, H)
    points = matrix[:, :, 0, None, None] * x + columns[..., None]  # (B, 3, H, W)
    return (points[:, :2] / points[:, 2:].clamp(min=1e-3)).permute(0, 2, 3, 1)  # beyond the horizon: far outside


# Each maps amounts (draws, B) to homographies from output to input coordinates, both in [-1, 1]: nine entries, row by
# row, each (B,) or 0 or 1.
Entries = Sequence[Tensor | int]


def _crop(amount: Tensor) -> Entries:
    """Amounts: the fraction of the area that is lost; aspect ratio, x and y of the crop in [-1, 1].

    Two further amounts are a point that the crop must contain: the position is then drawn among those that do.
    """
    lost, aspect = amount[:2]
    area = 1 - lost
    ratio = (aspect * (-area.log()).clamp(max=math.log(MAX_ASPECT))).exp()  # never wider or taller than the image
    sides = torch.stack([area * ratio, area / ratio]).sqrt()
    position, point = amount[2:4], amount[4:]
    if len(point):
        position = _around(point, position, sides)
    (width, height), (x, y) = sides, (1 - sides) * position
    return width, 0, x, 0, height, y, 0, 0, 1


def _around(point: Tensor, position: Tensor, size: Tensor) -> Tensor:
    """The positions in [-1, 1] of crops of these sizes in (0, 1], moved to contain `point` unless NaN; all (2, B)."""
    room = (1 - size).clamp(min=1e-6)
    low, high = ((point - size) / room).clamp(min=-1), ((point + size) / room).clamp(max=1)
    return torch.where(point.isnan(), position, low + (position + 1) / 2 * (high - low))


def _perspective(amount: Tensor) -> Entries:
    """Amounts: how far each of the four corners moves inward, x and y, in units of half the side."""
    moved = torch.tensor(CORNERS) * (1 - amount.T.reshape(-1, 4, 2))
    matrix = torch.tensor(BASIS) @ _adjugate(_basis(moved))
    return (matrix / matrix[:, 2:, 2:]).view(-1, 9).unbind(1)


def _basis(points: Tensor) -> Tensor:
    """The homography (B, 3, 3) that maps the unit vectors to the first three points and their sum to the fourth."""
    points = F.pad(points, (0, 1), value=1.0).mT  # (B, 3, 4), one column per point
    return points[..., :3] * (_adjugate(points[..., :3]) @ points[..., 3:]).mT


def _adjugate(matrix: Tensor) -> Tensor:
    """The inverse times the determinant, (B, 3, 3): equivalent as a homography, and defined for singular matrices."""
    return torch.linalg.cross(matrix.roll(-1, 1), matrix.roll(-2, 1)).mT


def _zoom(amount: Tensor) -> Entries:
    size = 1 / (1 + amount[0])
    return size, 0, 0, 0, size, 0, 0, 0, 1


def _rotation(amount: Tensor) -> Entries:
    """Amounts: degrees, counterclockwise."""
    angle = amount[0].deg2rad()
    sin, cos = angle.sin(), angle.cos()
    return cos, -sin, 0, sin, cos, 0, 0, 0, 1


GEOMETRY: dict[str, Callable[[Tensor], Entries]] = {  # in the order in which they are applied to the image
    "crop_scale": _crop,
    "perspective": _perspective,
    "hflip": lambda amount: (1 - 2 * amount[0], 0, 0, 0, 1, 0, 0, 0, 1),
    "vflip": lambda amount: (1, 0, 0, 0, 1 - 2 * amount[0], 0, 0, 0, 1),
    "shear": lambda amount: (1, amount[0].deg2rad().tan(), 0, 0, 1, 0, 0, 0, 1),  # degrees
    "zoom": _zoom,
    "rotation": _rotation,
    "translate": lambda amount: (1, 0, -2 * amount[0], 0, 1, -2 * amount[1], 0, 0, 1),
}


# Each takes images (B, 3, H, W) (or (B, 1, H, W), unless in NEED_COLOR) and amounts (1, B), and preserves [0, 1].
# A factor is 1 + amount.


def _blend(base: Tensor, images: Tensor, amount: Tensor) -> Tensor:
    """base + (images - base) · factor."""
    return torch.lerp(base, images, 1 + amount.view(-1, 1, 1, 1)).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue  # (B, 1, H, W); ITU-R BT.601


def _brightness(images: Tensor, amount: Tensor) -> Tensor:
    return (images * (1 + amount.view(-1, 1, 1, 1))).clamp_(0, 1)


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    return _blend(_gray(images).mean((2, 3), keepdim=True), images, amount)


def _saturation(images: Tensor, amount: Tensor) -> Tensor:
    return _blend(_gray(images), images, amount)


def _hue(images: Tensor, amount: Tensor) -> Tensor:
    """Amounts: fractions of the color circle. A rotation of the hue in HSV (Smith, 1978); value and chroma are kept."""
    red, green, blue = images.split(1, dim=1)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    hue = (red - green + 4 * chroma).lerp(blue - red + 2 * chroma, (green == value).float())  # lerp is a fast where
    hue = hue.lerp(green - blue, (red == value).float()) / chroma.clamp(min=1e-6)  # (B, 1, H, W), 6 to the circle
    offsets = torch.arange(11, 6, -2, device=images.device).view(3, 1, 1) / 6  # 5, 3, 1, plus a turn to stay positive
    turned = hue / 6 + (amount.view(-1, 1, 1, 1) + offsets)
    turned.frac_().mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)  # (B, 3, H, W); in place: bound by memory
    return torch.addcmul(value, chroma, turned, value=-1)


COLORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
    "grayscale": lambda images, amount: _saturation(images, -amount),
}
