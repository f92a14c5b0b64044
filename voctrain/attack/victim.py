"""The victim of an attack: a trained classifier as a frozen function of images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import Data, cache_dir
from voctrain.images import EVAL_BATCH
from voctrain.models.weights_file import load_file
from voctrain.precision import autocast


class Victim(nn.Module):
    """A voc-search classifier, frozen and always in eval mode: [0, 1] images (B, channels, S, S) → logits (B, C).

    It resizes and normalizes the images itself. Gradients flow to the images, but not to its parameters.
    """

    def __init__(self, saved: dict[str, Any], device: str | torch.device = "cpu"):
        super().__init__()
        self.model, self.config = classify.restore(saved, device=device)
        self.requires_grad_(False)
        self.train(False)
        self.classes = tuple(saved["classes"])
        self.thresholds = torch.tensor(saved["thresholds"], device=device)  # (C,), for its decisions
        self.exclusive = bool(self.thresholds.isinf().all())

    def train(self, mode: bool = True) -> "Victim":
        """Do nothing: a victim stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> np.ndarray:
        """Probabilities (N, C) float32 of any number of [0, 1] images."""
        with autocast(self.config, images.device):
            return torch.cat([self(batch).float() for batch in images.split(EVAL_BATCH)]).sigmoid().cpu().numpy()

    def decide(self, probabilities: Tensor) -> Tensor:
        """Decisions, bool (B, C). An image may get no class; with exclusive classes it gets the most probable."""
        if self.exclusive:
            return F.one_hot(probabilities.argmax(1), len(self.classes)).bool()
        return probabilities >= self.thresholds.to(probabilities.device)


def load_victim(path: str | Path, device: str | torch.device = "cpu") -> Victim:
    """Load the victim from a checkpoint of a classification run. Raises `ValueError` for any other file."""
    saved = load_file(path)
    if saved.get("task") != "classify":
        raise ValueError(f"a victim must be a voc-search classifier, but {path} is not: use a classify run's best.pt")
    if "thresholds" not in saved:
        raise ValueError(f"a victim must have decision thresholds, but {path} has none: use a classify run's best.pt")
    return Victim(saved, device)


def digits_victim(data: Data, image_size: int) -> Path:
    """The path of a checkpoint of the course notebook's classifier for digits, which is trained on first use.

    Its classes are exclusive: infinite thresholds mark that only the most probable class is chosen.
    """
    path = cache_dir() / "victims" / f"{data.fingerprint}-{image_size}.pt"
    if path.exists():
        return path
    config = ClassifyConfig(
        architecture="mnist_model", image_size=image_size, epochs=15, lr=3e-3, hflip=0.0, precision="float32"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    for epoch in classify.train(config, data):
        if epoch.number == config.epochs:
            saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
            saved["thresholds"] = [np.inf] * len(data.classes)
            unfinished = path.with_suffix(".tmp")
            torch.save(saved, unfinished)
            unfinished.replace(path)
    return path
