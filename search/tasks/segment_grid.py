"""What a segmenter says of a grid of pixels: enough to tell models apart, and small enough to keep of each one."""

import numpy as np

from search.run_folder.records import Checkpoint
from search.tasks import Predictions
from search.trial.device import pick_device
from voctrain import segment
from voctrain.data import Data

GRID = 48  # rows and columns


def held_out(saved: Checkpoint, data: Data) -> Predictions:
    """See `Task.held_out`: truth uint8 (n, P), probabilities uint8 (n, 1 + C, P) in steps of 1/255, for P pixels."""
    device = pick_device()
    model, config = segment.restore(saved, device=device)
    data = segment.with_masks(data)
    assert data.masks is not None
    images, masks = data.images[data.val], data.masks[data.val]
    side = min(GRID, masks.shape[1])
    places = ((np.arange(side) + 0.5) * masks.shape[1] / side).astype(int)
    grid = np.s_[..., places[:, None], places]

    def said(images: np.ndarray, *flips: int) -> np.ndarray:
        maps = segment.predict_logits(model, images, config, device=device)
        pixels = [(each.flip(flips).softmax(0)[grid] * 255).round().byte().flatten(1).cpu().numpy() for each in maps]
        return np.stack(pixels)

    return {
        "ids": np.array(data.ids)[data.val],
        "truth": masks[grid].reshape(len(masks), -1),
        "plain": said(images),
        "mirrored": said(images[:, :, ::-1].copy(), -1),
    }
