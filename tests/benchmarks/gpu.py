"""How fast a GPU trains, as JSON: python -m tests.benchmarks.gpu [--device cpu --tiny].

images_per_second: of our loop, of the bare step on one resident batch, and of torchvision's v2 transforms in a
DataLoader before the same step, side by side for several networks. packing: small trials in several processes on the
one device, each with the share of its memory that a search would give it. --tiny only shows that it works.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.benchmarks.throughput import Problem, _training_step, bare, ours
from tests.voctrain.conftest import random_data
from voctrain import classify
from voctrain.config import ClassifyConfig, SegmentConfig, TrainConfig
from voctrain.precision import precision_of

VARIED = {"epochs": 100_000, "hflip": 0.5, "crop_scale": 0.4}  # a measurement ends long before
CONFIGS = {
    "resnet18, 96 px": ClassifyConfig(architecture="resnet18", image_size=96, batch_size=64, **VARIED),
    "resnet50, 224 px": ClassifyConfig(architecture="resnet50", image_size=224, batch_size=64, **VARIED),
    "convnext_tiny, 224 px": ClassifyConfig(architecture="convnext_tiny", image_size=224, batch_size=64, **VARIED),
    "unet 64, 300 px": SegmentConfig(width=64, image_size=300, batch_size=16, **VARIED),
}
TINY = {
    "simple, 32 px": ClassifyConfig(architecture="simple", image_size=32, batch_size=8, **VARIED),
    "unet 4, 32 px": SegmentConfig(width=4, depth=2, image_size=32, batch_size=8, **VARIED),
}


class Images(Dataset):
    """The images and targets of a problem, augmented one at a time."""

    def __init__(self, problem: Problem, images: int):
        self.images = torch.from_numpy(problem.data.images[:images]).permute(0, 3, 1, 2)
        self.targets, size = problem.targets(images), problem.config.image_size
        crop = v2.RandomResizedCrop(size, scale=(problem.config.crop_scale, 1.0))
        self.vary = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = tv_tensors.Image(self.images[index]), self.targets[index]
        if target.ndim == 2:
            image, target = self.vary(image, tv_tensors.Mask(target))
            return image.as_subclass(Tensor), target.as_subclass(Tensor)
        return self.vary(image).as_subclass(Tensor), target


def torchvision(problem: Problem, images: int, workers: int) -> Iterator[None]:
    """torchvision's v2 transforms in a DataLoader's workers; yields after every epoch, as `ours` and `bare` do."""
    size, cuda = problem.config.batch_size, problem.device.type == "cuda"
    options = {"num_workers": workers, "persistent_workers": True, "pin_memory": cuda, "drop_last": True}
    loader = DataLoader(Images(problem, images), size, shuffle=True, **options)
    step = _training_step(problem, problem.config, torch.channels_last)
    while True:
        for batch, target in loader:
            step(*(part.to(problem.device, non_blocking=True) for part in (batch, target)))
        yield


def rate(epochs: Iterator[None], images: int, device: torch.device, seconds: float) -> float:
    """Images a second, over at least this time."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(epochs)
        count += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    return images * count / (time.perf_counter() - start)


def compared(config: TrainConfig, device: torch.device, args: argparse.Namespace) -> dict[str, float]:
    """Images a second of each contender, the median of rounds in which they take turns."""
    images = config.batch_size * args.batches
    data = random_data(train=images, size=config.image_size)
    problem = Problem(config, "", data, device)
    contenders = {
        "ours": ours(problem, images),
        "bare": bare(problem, images),
        "torchvision": torchvision(problem, images, args.workers),
    }
    for epochs in contenders.values():
        next(epochs)  # initializes
    rounds = [{n: rate(e, images, device, args.seconds) for n, e in contenders.items()} for _ in range(args.rounds)]
    return {name: round(statistics.median(each[name] for each in rounds), 1) for name in contenders}


def trial(config: ClassifyConfig, device: str, processes: int, images: int, barrier: Barrier) -> None:
    """One training among others, between two meetings at the barrier; its first epoch lies before."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 / processes)
    epochs = classify.train(config, random_data(train=images, size=config.image_size), device=device)
    next(epochs)
    barrier.wait()
    for _ in epochs:
        pass
    barrier.wait()


def packed(config: ClassifyConfig, processes: int, device: str, images: int) -> float:
    """Trials per hour of as many processes on the one device."""
    context = get_context("spawn")
    barrier = context.Barrier(processes + 1)
    started = [
        context.Process(target=trial, args=(config, device, processes, images, barrier)) for _ in range(processes)
    ]
    for process in started:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    seconds = (time.perf_counter() - start) * config.epochs / (config.epochs - 1)  # of the trials with that epoch
    for process in started:
        process.join()
    return round(3600 * processes / seconds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a GPU trains; prints JSON.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and images")
    parser.add_argument("--seconds", type=float, metavar="S", help="of a contender in a round (5)")
    parser.add_argument("--rounds", type=int, metavar="N", help="(3)")
    parser.add_argument("--batches", type=int, metavar="N", help="of an epoch (20)")
    parser.add_argument("--workers", type=int, metavar="N", help="of the DataLoader (16)")
    args = parser.parse_args()
    defaults = {"seconds": 0.2, "rounds": 1, "batches": 2, "workers": 2} if args.tiny else {}
    for name, value in ({"seconds": 5.0, "rounds": 3, "batches": 20, "workers": 16} | defaults).items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    device = torch.device(args.device)
    name, images, counts = ("simple", 16, (1, 2)) if args.tiny else ("resnet18", 640, (1, 2, 4, 8))
    size = 32 if args.tiny else 96
    small = ClassifyConfig(architecture=name, image_size=size, batch_size=32, epochs=3 if args.tiny else 27)
    configs = TINY if args.tiny else CONFIGS
    result = vars(args) | {
        "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
        "torch": torch.__version__,
        "dtype": str(precision_of(small, device)).removeprefix("torch."),
        "images_per_second": {name: compared(config, device, args) for name, config in configs.items()},
        "trials_per_hour": {str(n): packed(small, n, args.device, images) for n in counts},
        "trial": f"{name} at {size} px, {images} images, {small.epochs} epochs",
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
