"""Pictures of attacks: what they look like, what the victim answers, and success against visibility."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial
from PIL import Image

from search.run_folder.files import replace
from search.study.trials import Attr
from voctrain.contact_sheet import Tile, sheet
from voctrain.data.resizing import place, window

SHOWN = 8  # images
ANSWERS = 5  # most changed classes of an image


def triptychs(
    ids: Sequence[str],
    classes: Sequence[str],
    images: np.ndarray,
    attacked: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> Image.Image:
    """The images whose answers changed most: as they are, the perturbation stretched to the full range, and attacked.

    images, attacked: uint8 (N, S, S, channels). before, after: the victim's probabilities for them, (N, C).
    """
    change = after - before
    order = np.argsort(-np.abs(change).max(1), kind="stable")[:SHOWN]
    tiles = []
    for i in order:
        difference = attacked[i].astype(int) - images[i]
        low, high = int(difference.min()), int(difference.max())
        stretched = ((difference - low) * (255 / max(high - low, 1))).astype(np.uint8)
        title = f"{ids[i]}: image, perturbation ({low} to {high} of 255, stretched), attacked image"
        changed = np.argsort(-np.abs(change[i]), kind="stable")[:ANSWERS]
        answers = (f"{classes[c]} {before[i, c]:.2f} to {after[i, c]:.2f}" for c in changed)
        tiles.append(Tile((images[i], stretched, attacked[i]), (title, ", ".join(answers))))
    return sheet(tiles, across=2)


def write_attacked(path: Path, image: np.ndarray, change: np.ndarray, resize: str) -> None:
    """Write an image, uint8 (H, W, 3), as a PNG with a perturbation that was made at the size of a model.

    change: (S, S, 3) or (S, S, 1), integers in units of 1/255, of the window of `resize`. It is enlarged by Lanczos'
    filter, which keeps most of it when the attacked image is reduced to S again.
    """
    height, width = image.shape[:2]
    part, attacked = window(height, width, resize), np.empty_like(image)
    for channel in range(3):
        layer = Image.fromarray(change[..., channel % change.shape[-1]].astype(np.float32))
        whole = np.asarray(layer.resize((part.width, part.height), Image.Resampling.LANCZOS)).round().astype(np.int16)
        attacked[..., channel] = np.clip(image[..., channel] + place(whole, (height, width), resize), 0, 255)
    replace(path, lambda file: Image.fromarray(attacked).save(file, format="png"))


def front(path: Path, trials: Sequence[FrozenTrial], min_ssim: float) -> None:
    """Success against similarity of all trials before they are scaled, and the Pareto front."""
    metrics = [t.user_attrs[Attr.METRICS] for t in trials if Attr.METRICS in t.user_attrs]
    points = np.array([(m["val_unscaled_ssim"], m["val_unscaled_score"]) for m in metrics]).reshape(-1, 2)
    order = points[np.lexsort((-points[:, 1], -points[:, 0]))]  # most similar first
    best = order[order[:, 1] >= np.maximum.accumulate(order[:, 1])] if len(order) else order
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*points.T, "o", alpha=0.5, label="trials, before scaling")
    axes.step(*best.T, where="post", label="front")
    axes.axvline(min_ssim, color="black", linestyle=":", label="where they are judged")
    axes.set(xlabel="mean SSIM to the images", ylabel="success")
    axes.legend()
    replace(path, lambda file: figure.savefig(file, format="png", dpi=120))
