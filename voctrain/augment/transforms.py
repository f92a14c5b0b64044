"""Augmentation of whole batches on their device: one warp, then color transforms.

Random numbers come from torch's CPU generator, so that all devices draw the same. The matrices are computed on the CPU,
too: each of their many small operations takes less time there than a GPU needs to launch its kernel.

Written by hand rather than taken from torchvision v2 or kornia because all geometric transforms of a batch become one
homography and one sampling per image, parameters are drawn per image, and masks are warped alongside.
"""

import functools
import math
from collections.abc import Callable
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
    if focus is not None and "crop_scale" in amounts:
        amounts = {name: _send(amount, images) for name, amount in amounts.items()}  # the CPU would wait for the focus
        amounts["crop_scale"] = torch.cat([amounts["crop_scale"], focus])
    geometry = {name: amounts[name] for name in GEOMETRY if name in amounts}
    memory_format = torch.channels_last if images.stride(1) == 1 else torch.contiguous_format
    with torch.autocast(images.device.type, enabled=False):  # coordinates need all of float32
        if geometry.keys() <= FLIPS.keys() and size in (None, images.shape[-1]):
            images, masks = _flip(images, masks, geometry)
        else:
            images, masks = _warp(images, masks, geometry, size or images.shape[-1])
        if amounts.keys() & COLORS.keys():
            images = images.contiguous()  # one plane per channel: several times faster on a CPU
        for name in COLORS:
            if name in amounts:
                images = COLORS[name](images, _send(amounts[name], images))
    images = images.contiguous(memory_format=memory_format)
    return images if masks is None else (images, masks)


def _send(amount: Tensor, images: Tensor) -> Tensor:
    return amount.to(images.device, non_blocking=True)


def _draw(names: list[str], config: TrainConfig, size: int) -> dict[str, Tensor]:
    """The amounts (draws, B) of each augmentation for `size` images; 0 leaves an image unchanged."""
    amounts = {}
    for name in names:
        uniform, value = torch.rand(DRAWS.get(name, 1), size), getattr(config, name)
        if name in EVENTS:
            amounts[name] = (uniform < value).float()
        elif name == "perspective":
            amounts[name] = uniform * value
        elif name == "crop_scale":
            amounts[name] = torch.cat([uniform[:1] * (1 - value), uniform[1:] * 2 - 1])
        else:
            amounts[name] = (uniform * 2 - 1) * value
    if config.num_ops is not None:
        places = torch.rand(len(names), size).argsort(0)  # a random order of the augmentations
        for name, place in zip(names, places, strict=True):
            amounts[name] = amounts[name] * (place < config.num_ops)
    if config.one_color:
        coin = torch.rand(size) < 0.5
        amounts |= {"brightness": amounts["brightness"] * coin, "grayscale": amounts["grayscale"] * ~coin}
    return amounts


def _flip(images: Tensor, masks: Tensor | None, geometry: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The warp of flips alone: exact, and much cheaper."""
    for name, amount in geometry.items():
        dim, amount = FLIPS[name], _send(amount, images)
        images = images.lerp(images.flip(dim), amount[0].view(-1, 1, 1, 1))  # a weight of 0 or 1: exact
        masks = None if masks is None else torch.where(amount[0, :, None, None] > 0, masks.flip(dim), masks)
    return images, masks


def _warp(images: Tensor, masks: Tensor | None, geometry: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor | None]:
    """All geometric transforms as one homography and one sampling."""
    unchanged = torch.eye(3).expand(len(images), 3, 3)
    matrix = functools.reduce(torch.matmul, (GEOMETRY[name](amount) for name, amount in geometry.items()), unchanged)
    grid = _grid(_send(matrix, images), size, size)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).clamp_(0, 1)
    if masks is not None:
        known = masks[:, None].float() - VOID  # beyond the border, grid_sample can only pad with zeros
        known = F.grid_sample(known, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        masks = (known[:, 0] + VOID).to(masks.dtype)
    return images, masks


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Sampling positions of the output pixels, (B, H, W, 2), under homographies (B, 3, 3) in [-1, 1] coordinates."""
    y, x = (((torch.arange(n, device=matrix.device) * 2 + 1) / n - 1) for n in (height, width))
    columns = matrix[:, :, 1, None] * y + matrix[:, :, 2, None]  # (B, 3, H)
    points = matrix[:, :, 0, None, None] * x + columns[..., None]  # (B, 3, H, W)
    return (points[:, :2] / points[:, 2:].clamp(min=1e-3)).permute(0, 2, 3, 1)  # beyond the horizon: far outside


# Each maps amounts (draws, B) to homographies (B, 3, 3) from output to input coordinates, both in [-1, 1].


def _matrix(*entries: Tensor | float) -> Tensor:
    """Matrices (B, 3, 3) from nine entries, row by row, each (B,) or a number."""
    batch = next(entry for entry in entries if isinstance(entry, Tensor))
    columns = [entry if isinstance(entry, Tensor) else torch.full_like(batch, entry) for entry in entries]
    return torch.stack(columns, dim=1).view(-1, 3, 3)


def _crop(amount: Tensor) -> Tensor:
    """Amounts: the fraction of the area that is lost; aspect ratio, x and y of the crop in [-1, 1].

    Two further amounts are a point that the crop must contain: the position is then drawn among those that do.
    """
    (lost, aspect, x, y), point = amount[:4], amount[4:]
    area = 1 - lost
    ratio = (aspect * (-area.log()).clamp(max=math.log(MAX_ASPECT))).exp()  # never wider or taller than the image
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    if len(point):
        x, y = (_around(*each) for each in zip(point, (x, y), (width, height), strict=True))
    return _matrix(width, 0, (1 - width) * x, 0, height, (1 - height) * y, 0, 0, 1)


def _around(point: Tensor, position: Tensor, size: Tensor) -> Tensor:
    """The position in [-1, 1] of a crop of this size in (0, 1] along one side, moved to contain `point` unless NaN."""
    room = (1 - size).clamp(min=1e-6)
    low, high = ((point - size) / room).clamp(min=-1), ((point + size) / room).clamp(max=1)
    return torch.where(point.isnan(), position, low + (position + 1) / 2 * (high - low))


def _perspective(amount: Tensor) -> Tensor:
    """Amounts: how far each of the four corners moves inward, x and y, in units of half the side."""
    ends = torch.arange(-1, 2, 2, device=amount.device)
    corners = torch.cartesian_prod(ends, ends).float()  # (4, 2)
    moved = corners * (1 - amount.T.reshape(-1, 4, 2))
    matrix = _basis(corners[None]) @ _adjugate(_basis(moved))
    return matrix / matrix[:, 2:, 2:]


def _basis(points: Tensor) -> Tensor:
    """The homography (B, 3, 3) that maps the unit vectors to the first three points and their sum to the fourth."""
    points = F.pad(points, (0, 1), value=1.0).mT  # (B, 3, 4), one column per point
    return points[..., :3] * (_adjugate(points[..., :3]) @ points[..., 3:]).mT


def _adjugate(matrix: Tensor) -> Tensor:
    """The inverse times the determinant, (B, 3, 3): equivalent as a homography, and defined for singular matrices."""
    a, b, c = matrix.unbind(1)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=2)


def _zoom(amount: Tensor) -> Tensor:
    return _matrix(1 / (1 + amount[0]), 0, 0, 0, 1 / (1 + amount[0]), 0, 0, 0, 1)


def _shear(amount: Tensor) -> Tensor:
    return _matrix(1.0, amount[0].deg2rad().tan(), 0, 0, 1, 0, 0, 0, 1)


def _rotation(amount: Tensor) -> Tensor:
    """Amounts: degrees, counterclockwise."""
    sin, cos = amount[0].deg2rad().sin(), amount[0].deg2rad().cos()
    return _matrix(cos, -sin, 0, sin, cos, 0, 0, 0, 1)


GEOMETRY: dict[str, Callable[[Tensor], Tensor]] = {  # in the order in which they are applied to the image
    "crop_scale": _crop,
    "perspective": _perspective,
    "hflip": lambda amount: _matrix(1 - 2 * amount[0], 0, 0, 0, 1, 0, 0, 0, 1),
    "vflip": lambda amount: _matrix(1, 0, 0, 0, 1 - 2 * amount[0], 0, 0, 0, 1),
    "shear": _shear,
    "zoom": _zoom,
    "rotation": _rotation,
    "translate": lambda amount: _matrix(1, 0, -2 * amount[0], 0, 1, -2 * amount[1], 0, 0, 1),
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
