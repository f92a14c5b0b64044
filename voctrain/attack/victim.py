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
from voctrain.models.weights import load_file
from voctrain.precision import autocast


class Victim(nn.Module):
    """[0, 1] images (B, channels, S, S) → logits (B, C), by a classifier of ours: frozen, always in eval mode.

    Its image size and normalization are inside. Gradients flow to the images, none to its parameters.
    """

    def __init__(self, saved: dict[str, Any], device: str | torch.device = "cpu"):
        super().__init__()
        self.model, self.config = classify.restore(saved, device=device)
        self.requires_grad_(False)
        self.train(False)
        self.classes = tuple(saved["classes"])
        self.thresholds = torch.tensor(saved["thresholds"], device=device)  # (C,), of its decisions
        self.exclusive = bool(self.thresholds.isinf().all())

    def train(self, mode: bool = True) -> "Victim":
        """Nothing changes: it stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> np.ndarray:
        """(N, C) float32 of [0, 1] images, as many as there are."""
        with autocast(self.config, images.device):
            return torch.cat([self(batch).float() for batch in images.split(EVAL_BATCH)]).sigmoid().cpu().numpy()

    def decide(self, probabilities: Tensor) -> Tensor:
        """Its decisions, bool (B, C); an image may get none. Of exclusive classes it is the most probable one."""
        if self.exclusive:
            return F.one_hot(probabilities.argmax(1), len(self.classes)).bool()
        return probabilities >= self.thresholds.to(probabilities.device)


def load_victim(path: str | Path, device: str | torch.device = "cpu") -> Victim:
    """The victim in a checkpoint of a classification run. Raises `ValueError` for any other file."""
    saved = load_file(path)
    if saved.get("task") != "classify":
        raise ValueError(f"a victim is a classifier of ours, but {path} is none: give a classify run or its best.pt")
    if "thresholds" not in saved:
        raise ValueError(f"a victim decides by its thresholds, but {path} has none: give a classify run or its best.pt")
    return Victim(saved, device)


def digits_victim(data: Data, image_size: int) -> Path:
    """A checkpoint of the notebook's two-convolution classifier for digits (SEED.md §4), trained on first use.

    Its classes are exclusive: its thresholds are infinite, so that only the most probable one is answered.
    """
    path = cache_dir() / "victims" / f"{data.fingerprint}-{image_size}.pt"
    if path.exists():
        return path
    config = ClassifyConfig(
        architecture="mnist_model", image_size=image_size, epochs=15, lr=3e-3, hflip=0.0, precision="float32"
    )
    for epoch in classify.train(config, data):
        if epoch.number == config.epochs:
            saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
            saved["thresholds"] = [np.inf] * len(data.classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save(saved, unfinished)
    unfinished.replace(path)
    return path
