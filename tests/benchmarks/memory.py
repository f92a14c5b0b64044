"""What a large set costs a process in time and memory, as JSON: it is prepared once, then mapped by fresh processes.

The set has tiny images, so that preparing it takes no longer than resizing and writing them; what is measured depends
on the size of the prepared images only. They are read before and after each measurement, so they are in the page cache.

prepare: the first `load`. fresh: `load` in a new process, then one pass over all images. workers: the same in two Ray
workers, which got the data as a search hands them over. private_mb: the memory of its own that a process added, by
/proc/self/smaps_rollup; mapped_mb: the pages of files that it has touched, which processes share and the system takes
back when it needs to. seconds are of wall-clock time, cpu_seconds of the processor.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch

from search.cluster.connection import CONNECTION, set_environment
from voctrain.data import Data, load
from voctrain.data.class_names import VOC_CLASSES
from voctrain.device_array import DeviceArray
from voctrain.images import EVAL_BATCH

WORKERS = 2


def make_set(root: Path, count: int, masks: bool) -> None:
    """Images of 8 × 8 pixels in the Kaggle layout, a class each."""
    rng = np.random.default_rng(0)
    for part in ("img", "seg") if masks else ("img",):
        (root / "train" / part).mkdir(parents=True)
    rows = [",".join(("Id", *VOC_CLASSES))]
    for i in range(count):
        number = i % len(VOC_CLASSES)
        np.save(root / "train" / "img" / f"train_{i}.npy", rng.integers(0, 256, (8, 8, 3), np.uint8))
        if masks:
            np.save(root / "train" / "seg" / f"train_{i}.npy", np.full((8, 8), number + 1, np.uint8))
        rows.append(",".join((str(i), *("1" if c == number else "0" for c in range(len(VOC_CLASSES))))))
    (root / "train" / "train_set.csv").write_text("\n".join(rows))


def memory() -> dict[str, float]:
    """MB of its own, and of pages of files, that this process has."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    mb = {fields[0].rstrip(":"): int(fields[1]) / 1000 for fields in lines}
    return {"private_mb": mb["Anonymous"] + mb["Swap"], "mapped_mb": mb["Rss"] - mb["Anonymous"]}


def added(before: dict[str, float]) -> dict[str, float]:
    return {name: round(value - before[name], 1) for name, value in memory().items()}


def read_all(data: Data) -> None:
    """One pass over all images, in batches."""
    images = DeviceArray(data.images, torch.device("cpu"))
    for index in torch.arange(len(images)).split(EVAL_BATCH):
        images[index].max()


def fresh(root: str, size: int) -> dict[str, object]:
    """Load the set in this process, which has imported what a training needs."""
    before, started, cpu = memory(), time.perf_counter(), time.process_time()
    data = load(root, image_size=size)
    took = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    loaded, started = added(before), time.perf_counter()
    read_all(data)
    took["pass_seconds"] = time.perf_counter() - started
    return {**{name: round(seconds, 2) for name, seconds in took.items()}, **loaded, "after_pass": added(before)}


class Worker:
    """What a search's worker does with the data."""

    def __init__(self) -> None:
        self.before = memory()

    def get(self, data: Data) -> dict[str, float]:
        self.data = data
        return added(self.before)

    def read(self) -> dict[str, float]:
        read_all(self.data)
        return added(self.before)


def workers(data: Data) -> dict[str, object]:
    """Two Ray workers with the data."""
    set_environment()
    ray.init("local", num_cpus=WORKERS, include_dashboard=False, **CONNECTION)
    try:
        actors = [ray.remote(num_cpus=1)(Worker).remote() for _ in range(WORKERS)]
        started = time.perf_counter()
        reference = ray.put(data)
        got = ray.get([actor.get.remote(reference) for actor in actors])
        seconds = time.perf_counter() - started
        read = ray.get([actor.read.remote() for actor in actors])
    finally:
        ray.shutdown()
    sent = len(pickle.dumps(data)) / 1000
    return {"sent_kb": round(sent, 1), "seconds_with_start": round(seconds, 2), "got": got, "after_pass": read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--image-size", type=int, default=300)
    parser.add_argument("--masks", action="store_true", help="give the images masks, too")
    parser.add_argument("--fresh", help=argparse.SUPPRESS)  # a set: measure in this process
    arguments = parser.parse_args()
    if arguments.fresh is not None:
        print(json.dumps(fresh(arguments.fresh, arguments.image_size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        root = Path(folder) / "set"
        make_set(root, arguments.images, arguments.masks)
        before, started = memory(), time.perf_counter()
        data = load(root, image_size=arguments.image_size)
        prepare = {"seconds": round(time.perf_counter() - started, 1), **added(before)}
        size = data.file.path.stat().st_size / 1e9 if data.file is not None else 0.0
        time.sleep(3)  # files that have just changed are read again
        command = [sys.executable, __file__, "--fresh", str(root), "--image-size", str(arguments.image_size)]
        subprocess.run(command, check=True, capture_output=True)
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        result = {"images": arguments.images, "prepared_gb": round(size, 2), "prepare": prepare, "fresh": measured}
        print(json.dumps(result | {"workers": workers(data)}, indent=2))


if __name__ == "__main__":
    main()
