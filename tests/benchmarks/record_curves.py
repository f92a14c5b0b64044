"""Tables of learning curves from real trainings, for search_efficiency.py.

python tests/benchmarks/record_curves.py [TABLE …] [--data DIR] makes the tables in the cache folder, in a few minutes
each, and prints how well the score after each rung agrees with the end.

Each table has every configuration of a grid, trained for 27 epochs on each of SPLITS × SEEDS: a split draws the
training and validation images anew, a seed the initial weights and batches. Its curves are the validation mAP after
each epoch, as a search sees it. `quality` is what a configuration is truly worth: the mean over all splits and seeds of
the mAP at the best validation epoch, on test images that no search sees.

digits    networks with a hidden layer on scikit-learn's digits; a quarter of the training labels are wrong.
crossing  the same, but all learning rates are below the best one and most schedules start slowly, so that the
          configurations which end best are behind at first.
voc       heads on frozen features of EfficientNet-Lite0, of the labeled images of a VOC devkit (`--data`, or VOC_ROOT).

The runs of a network size are trained together, as one batched matrix product.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor

from search.study.trials import asha_rungs
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.data.cache import cache_dir
from voctrain.features import features

EPOCHS, BATCH = 27, 32
SPLITS, SEEDS = 6, 3
TOGETHER = 1_000_000  # weights that are trained at once: they fit into a processor's cache
Grid = Mapping[str, Sequence[float]]
SCHEDULES = {0: "constant", 1: "cosine", 2: "peak after a third", 3: "peak after two thirds"}


class Problem(NamedTuple):
    inputs: np.ndarray  # (N, F)
    labels: np.ndarray  # (N, C), 0 or 1
    test: int  # number of test images, which are the last rows
    train: int  # of each split; the others are validation images
    wrong: float  # part of the training labels that are drawn at random
    grid: Grid


class Table(NamedTuple):
    grid: dict[str, list[float]]
    curves: np.ndarray  # (configurations, SPLITS, SEEDS, EPOCHS)
    quality: np.ndarray  # (configurations,)


GRID: Grid = {
    "lr": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "weight_decay": (0, 0.03, 0.3),
    "dropout": (0, 0.25, 0.5),
    "label_smoothing": (0, 0.2),
    "schedule": (0, 1),
    "width": (16, 32),
}
WARMING: Grid = {**GRID, "label_smoothing": (0,), "schedule": tuple(SCHEDULES)}
SLOW: Grid = {**WARMING, "lr": (1e-4, 4e-4, 1.6e-3, 6.4e-3, 2.6e-2)}


def digits(grid: Grid, train: int) -> Problem:
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return Problem(images[order] / 16, np.eye(10)[classes[order]], test=1300, train=train, wrong=0.25, grid=grid)


def voc(root: str) -> Problem:
    data = load(root, image_size=160)
    config = ClassifyConfig(architecture="tf_efficientnet_lite0", weights="imagenet", image_size=160)
    seen = features(config, data)[0][0]
    seen = (seen - seen.mean(0)) / (seen.std(0) + 1e-6)
    left, scale, _ = np.linalg.svd(seen, full_matrices=False)  # principal components, of all images
    inputs = (left * scale)[:, :128] / scale[0] * math.sqrt(len(seen))
    order = np.random.default_rng(0).permutation(len(inputs))
    return Problem(inputs[order], data.labels[order], test=172, train=206, wrong=0, grid=WARMING)


def configurations(grid: Grid) -> list[dict[str, float]]:
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def record(problem: Problem) -> Table:
    configs = configurations(problem.grid)
    shape = (len(configs), SPLITS, SEEDS)
    curves, reached = np.empty((*shape, EPOCHS), np.float32), np.empty(shape)
    for width in problem.grid["width"]:
        rows = [i for i, config in enumerate(configs) if config["width"] == width]
        weights = problem.inputs.shape[1] * int(width)
        for some in np.array_split(rows, math.ceil(len(rows) * SEEDS * weights / TOGETHER)):
            for split in range(SPLITS):
                part = train(problem, [configs[i] for i in some], int(width), split)
                curves[some, split], reached[some, split] = part
    return Table({name: list(values) for name, values in problem.grid.items()}, curves, reached.mean((1, 2)))


def train(problem: Problem, configs: Sequence[dict[str, float]], width: int, split: int) -> tuple[np.ndarray, ...]:
    """Validation scores (configurations, SEEDS, EPOCHS), and test scores of the best epoch (configurations, SEEDS)."""
    inputs, labels = (torch.as_tensor(rows, dtype=torch.float32) for rows in (problem.inputs, problem.labels))
    rng = np.random.default_rng(split)
    order = rng.permutation(len(inputs) - problem.test)
    fit, val, test = order[: problem.train], order[problem.train :], np.arange(len(inputs))[-problem.test :]
    targets = labels[fit].clone()
    wrong = rng.random(len(fit)) < problem.wrong
    targets[wrong] = targets[rng.permutation(len(fit))][wrong]

    def per_run(name: str) -> Tensor:
        return torch.tensor([config[name] for config in configs]).repeat_interleave(SEEDS)[:, None, None]

    lr, decay, keep = per_run("lr"), per_run("weight_decay"), 1 - per_run("dropout")
    smoothing = per_run("label_smoothing")
    steps = math.ceil(len(fit) / BATCH)
    rates = (
        lr
        * torch.tensor(
            [
                [rate(int(c["schedule"]), s / (EPOCHS * steps)) for c in configs for _ in range(SEEDS)]
                for s in range(EPOCHS * steps)
            ]
        )[..., None, None]
    )
    generator = torch.Generator().manual_seed(split)
    sizes = [(inputs.shape[1], width), (1, width), (width, labels.shape[1]), (1, labels.shape[1])]
    weights = []
    for size in sizes:  # the same for all configurations
        start = torch.randn(SEEDS, *size, generator=generator) / math.sqrt(size[0]) * (size[0] > 1)
        weights.append(start.repeat(len(configs), 1, 1).requires_grad_())
    means, squares = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    curves, best, kept = [], torch.full((len(lr),), -1.0), [w.detach().clone() for w in weights]
    for epoch in range(EPOCHS):
        shuffled = torch.randperm(len(fit), generator=generator)
        for number, rows in enumerate(shuffled.split(BATCH), epoch * steps):
            hidden = forward(weights, inputs[fit[rows]])
            mask = torch.rand(SEEDS, *hidden.shape[1:], generator=generator).repeat(len(configs), 1, 1) < keep
            logits = torch.baddbmm(weights[3], hidden * mask / keep, weights[2])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, targets[rows] * (1 - smoothing) + smoothing / 2, reduction="sum"
            ) / len(rows)
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for w, g, m, v in zip(weights, gradients, means, squares, strict=True):  # AdamW
                    m.lerp_(g, 0.1)
                    v.lerp_(g * g, 0.01)
                    step = m / (1 - 0.9 ** (number + 1)) / ((v / (1 - 0.99 ** (number + 1))).sqrt_() + 1e-8)
                    w.sub_(rates[number] * step.add_(decay * w))
        with torch.no_grad():
            score = mean_ap(predict(weights, inputs[val]), labels[val])
            better = score > best
            best = torch.where(better, score, best)
            kept = [torch.where(better[:, None, None], w, k) for w, k in zip(weights, kept, strict=True)]
        curves.append(score)
    reached = mean_ap(predict(kept, inputs[test]), labels[test])
    return torch.stack(curves, 1).view(len(configs), SEEDS, EPOCHS).numpy(), reached.view(-1, SEEDS).numpy()


def rate(schedule: int, progress: float) -> float:
    """The learning rate at a part of the training, relative to its maximum."""
    peak = {0: 0.0, 1: 0.0, 2: 1 / 3, 3: 2 / 3}[schedule]
    if schedule == 0:
        return 1.0
    if progress < peak:
        return 0.01 + 0.99 * (progress / peak) ** 2
    return 0.5 + 0.5 * math.cos(math.pi * (progress - peak) / (1 - peak))


def forward(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    return torch.relu_(torch.baddbmm(weights[1], inputs.expand(len(weights[0]), -1, -1), weights[0]))


def predict(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    return torch.baddbmm(weights[3], forward(weights, inputs), weights[2])


def mean_ap(logits: Tensor, labels: Tensor) -> Tensor:
    """Macro average precision of each run (R, N, C) over the classes that are present."""
    present = labels.any(0)
    labels, found = labels[:, present], []
    for each in logits[..., present].split(256):
        hits = labels.expand_as(each).gather(1, each.argsort(1, descending=True))
        precision = hits.cumsum(1) / torch.arange(1, 1 + hits.shape[1])[:, None]
        found.append(((precision * hits).sum(1) / hits.sum(1)).mean(1))
    return torch.cat(found)


def path_of(name: str) -> Path:
    return cache_dir() / "learning_curves" / f"{name}.npz"


def read_table(name: str) -> Table:
    """A table that has been made. Raises `FileNotFoundError` with the command that makes it."""
    if not path_of(name).exists():
        raise FileNotFoundError(
            f"there is no table {name}: make it with python tests/benchmarks/record_curves.py {name}"
        )
    saved = np.load(path_of(name))
    return Table(json.loads(str(saved["grid"])), saved["curves"], saved["quality"])


def agreement(table: Table) -> dict[str, float]:
    """Spearman's correlation of the score at a rung with the end of the same training, and of the end with quality."""
    ends = table.curves.max(3)
    runs = [(split, seed) for split in range(SPLITS) for seed in range(SEEDS)]
    found = {
        f"rung {rung}": np.mean([spearmanr(table.curves[:, s, t, rung - 1], ends[:, s, t])[0] for s, t in runs])
        for rung in asha_rungs(EPOCHS)
    }
    found["end with quality"] = np.mean([spearmanr(ends[:, s, t], table.quality)[0] for s, t in runs])
    return {name: round(float(value), 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=["digits", "crossing", "voc"])
    parser.add_argument("--data", metavar="DIR", help="of the table voc, instead of VOC_ROOT")
    arguments = parser.parse_args()
    makers = {
        "digits": lambda: digits(GRID, train=256),
        "crossing": lambda: digits(SLOW, train=400),
        "voc": lambda: voc(arguments.data or os.environ["VOC_ROOT"]),
    }
    for name in arguments.tables:
        begin = time.monotonic()
        table = record(makers[name]())
        path_of(name).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path_of(name), grid=json.dumps(table.grid), curves=table.curves, quality=table.quality)
        top = np.sort(table.quality)[::-1]
        facts = {"configurations": len(top), "best": float(top[0]), "tenth": float(top[len(top) // 10])}
        facts |= {"median": float(np.median(top)), "noise": float(table.curves.max(3).std((1, 2)).mean())}
        rounded = {key: round(value, 4) for key, value in facts.items()}
        print(json.dumps({"table": name, "seconds": round(time.monotonic() - begin), **rounded, **agreement(table)}))


if __name__ == "__main__":
    main()
