"""Objects in a batch's masks: where to crop, and what to copy. Random numbers come from the device's global generator.

Masks are (B, H, W) uint8 of 0..C and void. They have classes, not instances: all pixels of a class count as one object.

Written by hand because libraries copy and paste instances, one image at a time; this works on whole batches on the
device.
"""

import torch
from torch import Tensor

from voctrain.data.class_names import VOID


def draw_objects(masks: Tensor, weights: Tensor) -> Tensor:
    """The pixels, bool (B, H, W), of one class of each mask, drawn with `weights` (C,); empty if it has no class."""
    present = torch.zeros(len(masks), VOID + 1, device=masks.device).scatter_(1, masks.flatten(1).long(), 1.0)
    chances = present[:, 1 : 1 + len(weights)] * weights
    without = chances.sum(1, keepdim=True) == 0
    # Draws like torch.multinomial, which would wait for the GPU.
    drawn = ((chances + without) / torch.empty_like(chances).exponential_()).argmax(1, keepdim=True) + 1  # (B, 1)
    return (masks == drawn[..., None]) & ~without[..., None]


def draw_points(masks: Tensor, weights: Tensor, probability: float) -> Tensor:
    """Points (2, B), x and y in [-1, 1], each within an object of its mask.

    NaN with probability 1 - `probability`, and for masks without objects.
    """
    objects = draw_objects(masks, weights)
    noise = torch.rand(objects.shape, device=masks.device) * objects
    place = noise.flatten(1).argmax(1)
    rows, columns = masks.shape[1:]
    points = torch.stack([(place % columns * 2 + 1) / columns, (place // columns * 2 + 1) / rows]) - 1
    drawn = objects.flatten(1).any(1) & (torch.rand(len(masks), device=masks.device) < probability)
    return torch.where(drawn, points, torch.nan)


def copy_paste(images: Tensor, masks: Tensor, weights: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Paste an object of its neighbor in the batch onto each image with this probability (Ghiasi et al., 2021).

    images (B, 3, H, W) and masks keep their shapes; the inputs are not modified.
    """
    objects = draw_objects(masks, weights) & (torch.rand(len(masks), 1, 1, device=masks.device) < probability)
    pasted = objects.roll(1, 0)
    return torch.where(pasted[:, None], images.roll(1, 0), images), torch.where(pasted, masks.roll(1, 0), masks)
