"""A victim, configurations of attacks on it, and their training."""

import pytest
import torch

from voctrain import attack, classify
from voctrain.config import AttackConfig, ClassifyConfig


def save_victim(path, data, seed):
    """Train a classifier for a few epochs and save it like a run's best.pt."""
    tiny = {"architecture": "simple", "image_size": 32, "batch_size": 4, "precision": "float32"}
    config = ClassifyConfig(**tiny, epochs=6, lr=3e-3, seed=seed)
    for epoch in classify.train(config, data):
        saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
    torch.save(saved | {"thresholds": [0.4] * len(data.classes)}, path)


@pytest.fixture(scope="session")
def victims(draw_data, tmp_path_factory):
    """A folder with two victims, victim.pt and other.pt."""
    folder = tmp_path_factory.mktemp("victims")
    for seed, name in enumerate(("victim.pt", "other.pt")):
        save_victim(folder / name, draw_data(), seed)
    return folder


@pytest.fixture(scope="session")
def config(victims):
    """A function that makes a small configuration; victim="OTHER" stands for the second victim."""

    def make(**options):
        known = {"image_size": 32, "epochs": 2, "batch_size": 4, "precision": "float32", "lr": 5e-3, "scale": 0.1}
        known |= {"victim": str(victims / "victim.pt"), "architecture": "residual"}
        if options.get("architecture", "residual") in ("residual", "guided"):
            known["width"] = 4
        if options.get("victim") == "OTHER":
            options["victim"] = str(victims / "other.pt")
        return AttackConfig(**(known | options))

    return make


@pytest.fixture(scope="session")
def trained():
    """A function that trains an attack and returns its epochs and copies of the last weights."""

    def run(config, data):
        epochs, weights = [], {}
        for epoch in attack.train(config, data):
            epochs.append(epoch)
            weights = {name: tensor.clone() for name, tensor in epoch.weights.items()}
        return epochs, weights

    return run
