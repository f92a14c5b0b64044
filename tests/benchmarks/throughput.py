"""Images a second of our training loop, of the bare network and of the notebook's pipeline, side by side, as JSON.

With `--task segment` there is no notebook's pipeline: the loop is compared with the bare network.

Each contender runs epochs of as many images as take it about `--seconds`, timed whole and taking turns: of neighbors
in time the ratios hold on a noisy machine, too. With `--processes 2` ours and bare run in two processes at once, as two
trials of a search do; the notebook's pipeline always has the machine as it had it: one process with all threads, and
two workers that load. With `--device cuda`, `bare` keeps its batch on the GPU, and an epoch ends when the GPU has.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from voctrain import classify, segment
from voctrain.config import ClassifyConfig, SegmentConfig, TrainConfig
from voctrain.data import Data, layouts, load
from voctrain.data.image_files import read_image
from voctrain.data.named_sets import folder_of
from voctrain.images import pixel_counts, to_unit
from voctrain.losses.classification import classification_loss
from voctrain.losses.segmentation import MaskLoss
from voctrain.optim import build_optimizer
from voctrain.precision import autocast, precision_of

CORES = len(os.sched_getaffinity(0))
WARM_UP = 4  # batches, from which it is also known how many take the time asked for


@dataclass(frozen=True)
class Problem:
    config: TrainConfig
    path: str  # of the data
    data: Data
    device: torch.device

    @property
    def task(self):
        return segment if isinstance(self.config, SegmentConfig) else classify

    def targets(self, number: int) -> Tensor:
        """What the first images are to be."""
        if self.task is segment:
            return torch.from_numpy(self.data.masks[:number])
        return torch.from_numpy(self.data.labels[:number]).float()

    def criterion(self) -> torch.nn.Module:
        data = self.data
        if self.task is segment:
            counts = pixel_counts(data.masks, data.train, 1 + len(data.classes))
            return MaskLoss(self.config, counts).to(self.device)
        return classification_loss(self.config, data.labels).to(self.device)


# Contenders: each yields after every epoch of `images` images, a multiple of the batch size.


def ours(problem: Problem, images: int) -> Iterator[None]:
    """The training loop as a trial runs it, with random resized crops and flips, without a validation."""
    data = replace(problem.data.all_train(), train=np.arange(images))
    for _ in problem.task.train(problem.config, data, device=problem.device):
        yield


def bare(problem: Problem, images: int) -> Iterator[None]:
    """Forward, backward and step on one resident batch, with the network, loss, optimizer and dtype of `ours`."""
    size, data = problem.config.batch_size, problem.data
    batch = to_unit(torch.from_numpy(data.images[:size]).to(problem.device))
    target = problem.targets(size).to(problem.device)
    step = _training_step(problem, problem.config, torch.channels_last)
    while True:
        for _ in range(images // size):
            step(batch, target)
        yield


def notebook(problem: Problem, images: int) -> Iterator[None]:
    """The notebook's pipeline as it was: float32, torch's default layout, a second forward pass for the accuracy."""
    config = replace(problem.config, precision="float32")
    return _notebook(problem, images, _training_step(problem, config, passes=2))


def notebook_in_our_dtype(problem: Problem, images: int) -> Iterator[None]:
    """The notebook's loading before the network as we run it: what is left of the difference is the loading."""
    return _notebook(problem, images, _training_step(problem, problem.config, torch.channels_last))


CONTENDERS = {contender.__name__: contender for contender in (ours, bare, notebook, notebook_in_our_dtype)}


def _notebook(problem: Problem, images: int, step: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    dataset = NotebookImages(problem)
    loader = DataLoader(
        dataset,
        problem.config.batch_size,
        sampler=RandomSampler(dataset, num_samples=images),
        num_workers=2,
        persistent_workers=True,
    )
    while True:
        for batch, target in loader:
            step(batch.to(problem.device), target.to(problem.device))
        yield


class NotebookImages(Dataset):
    """The course notebook's pipeline: files are decoded and augmented one at a time, with its faults.

    It augments after the normalization, and draws three random operations for four images of five.
    """

    def __init__(self, problem: Problem):
        self.files = layouts.read_layout(folder_of(problem.path)).images
        self.labels = torch.from_numpy(problem.data.labels).float()
        self.transform = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Resize((problem.config.image_size, problem.config.image_size)),
                transforms.RandomChoice([transforms.ColorJitter(brightness=0.2), transforms.RandomGrayscale(0.25)]),
                transforms.RandomHorizontalFlip(0.25),
                transforms.RandomRotation(25),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                transforms.RandomApply([draw_three], p=0.8),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(read_image(self.files[index])), self.labels[index]


POOL = (
    transforms.RandomHorizontalFlip(),
    transforms.RandomVerticalFlip(),
    transforms.RandomRotation(30),
    transforms.ColorJitter(0.1, 0.1, 0.1, 0.1),
    transforms.RandomAffine(0, translate=(0.1, 0.1), shear=10),
    transforms.RandomPerspective(),
)


def draw_three(image: Tensor) -> Tensor:
    for transform in random.sample(POOL, 3):
        image = transform(image)
    return image


def _training_step(
    problem: Problem,
    config: TrainConfig,
    memory_format: torch.memory_format = torch.contiguous_format,
    passes: int = 1,
) -> Callable[[Tensor, Tensor], None]:
    """One step of training a new network on a batch; with `passes` 2 the batch goes forward once more, for nothing."""
    model = problem.task.new_model(config, problem.data).to(problem.device).to(memory_format=memory_format).train()
    criterion = problem.criterion()
    optimizer = build_optimizer(model, config)
    precision = autocast(config, problem.device)

    def step(batch: Tensor, target: Tensor) -> None:
        with precision:
            loss = criterion(model(batch), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for _ in range(passes - 1):
            with precision:
                model(batch)

    return step


# Processes: each holds its contenders, and runs one of them when it is told to.


def serve(pipe: Connection, config: TrainConfig, path: str, device: str, threads: int) -> None:
    """Run `epochs` of `images` images of a contender for each (name, images, epochs) received; None ends it."""
    torch.set_num_threads(threads)
    problem = Problem(config, path, load(path, image_size=config.image_size), torch.device(device))
    running: dict[str, tuple[int, Iterator[None]]] = {}
    for name, images, epochs in iter(pipe.recv, None):
        if name not in running or running[name][0] != images:
            running[name] = images, CONTENDERS[name](problem, images)
        for _ in range(epochs):
            next(running[name][1])
        if device == "cuda":
            torch.cuda.synchronize()
        pipe.send("done")


def rate(pipes: list[Connection], name: str, images: int, epochs: int = 1) -> float:
    """Images a second of a contender that runs in these processes at once."""
    start = time.perf_counter()
    for pipe in pipes:
        pipe.send((name, images, epochs))
    for pipe in pipes:
        pipe.recv()
    return len(pipes) * images * epochs / (time.perf_counter() - start)


def warm_up(pipes: list[Connection], name: str, batch: int, available: int, seconds: float) -> tuple[int, int]:
    """Images an epoch, and epochs, that take a contender about `seconds`; it has run them once."""
    rate(pipes, name, WARM_UP * batch)
    wanted = rate(pipes, name, WARM_UP * batch) / len(pipes) * seconds
    images = max(1, int(min(wanted, available)) // batch) * batch
    epochs = max(1, round(wanted / images))
    rate(pipes, name, images)
    return images, epochs


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the training loop's images a second; prints JSON.")
    parser.add_argument("--data", default="sample", metavar="DIR")
    parser.add_argument("--task", choices=("classify", "segment"), default="classify")
    parser.add_argument("--architecture", metavar="NAME", help="(resnet18, or unet)")
    parser.add_argument("--width", type=int, metavar="N", help="of unet or a pyramid (64)")
    parser.add_argument("--image-size", type=int, default=96, metavar="PX")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="of a contender in a round")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="that share the cores: ours and bare")
    args = parser.parse_args()
    path = args.data if args.data in ("sample", "voc2009") else str(Path(args.data).resolve())
    args.architecture = args.architecture or {"classify": "resnet18", "segment": "unet"}[args.task]
    options = {"architecture": args.architecture, "image_size": args.image_size, "batch_size": args.batch_size}
    options |= {"epochs": 100_000, "hflip": 0.5, "crop_scale": 0.4}  # a measurement ends long before
    if args.task == "segment":
        config, contenders = SegmentConfig(width=args.width, **options), ("ours", "bare")
    else:
        config, contenders = ClassifyConfig(**options), tuple(CONTENDERS)
    available = len(load(path, image_size=args.image_size).ids)  # decodes them, where that is still to do
    if available < WARM_UP * args.batch_size:
        parser.error(f"--batch-size must be at most a {WARM_UP}th of the images, but got {args.batch_size}")

    device = torch.device(args.device)
    context, threads = get_context("spawn"), {name: max(1, CORES // args.processes) for name in ("ours", "bare")}
    threads |= {name: CORES for name in contenders if name.startswith("notebook")}
    pipes = []
    for number in [threads["ours"]] * args.processes + [CORES]:
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, config, path, args.device, number)).start()
        there.close()
        pipes.append(here)
    homes = {name: pipes[-1:] if name.startswith("notebook") else pipes[:-1] for name in contenders}
    work = {name: warm_up(homes[name], name, args.batch_size, available, args.seconds) for name in contenders}
    rounds = [{name: rate(homes[name], name, *work[name]) for name in contenders} for _ in range(args.rounds)]
    for pipe in pipes:
        pipe.send(None)

    ratios = {f"ours/{name}": [r["ours"] / r[name] for r in rounds] for name in contenders if name != "ours"}
    rates = {name: [r[name] for r in rounds] for name in contenders}
    result = vars(args) | {
        "dtype": str(precision_of(config, device)).removeprefix("torch."),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
        "cores": CORES,
        "threads": threads,  # of torch, a process
        "images_per_second": {name: round(statistics.median(v), 2) for name, v in rates.items()},
        "ratio": {name: round(statistics.median(v), 3) for name, v in ratios.items()},
        "images_per_second_by_round": {name: [round(x, 2) for x in v] for name, v in rates.items()},
        "ratio_by_round": {name: [round(x, 3) for x in v] for name, v in ratios.items()},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
