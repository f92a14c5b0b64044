"""One training with its checkpoints, for a trial of the search or for the final model."""

import math
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import numpy as np
import torch

from search.run_folder.files import read_torch, write_torch
from search.run_folder.history import EpochRecord
from search.run_folder.records import Checkpoint
from search.trial.protocol import TrainModule
from voctrain.config import TrainConfig
from voctrain.data import Data

STATE, WEIGHTS = "state.pt", "weights.pt"
SAVE_SECONDS, SAVE_COSTS = 30.0, 20  # between two states: seconds, and times as long as writing one takes


def checkpointed_training(
    task: TrainModule,
    config: TrainConfig,
    data: Data,
    folder: Path,
    *,
    device: str,
    rungs: Container[int] = (),
    min_score: float = -math.inf,
    keeps_last: bool = False,
    state_written: Callable[[], None] = lambda: None,
) -> Iterator[EpochRecord]:
    """Train in `folder`, continuing from a saved state, and yield the epoch, seconds and metrics of each epoch.

    A continued training yields its earlier epochs again, and ends exactly as it would have without the interruption.
    The best weights stay in memory. They are written with each state, and, if their score is above `min_score`, before
    an epoch in `rungs` is yielded and at the end. Without validation images, and with `keeps_last`, the last weights
    are the best. What `state_written` takes, which is called after a state has been written, counts as a part of
    writing it.
    """
    saved, best = read_torch(folder / STATE), read_torch(folder / WEIGHTS)
    if saved is None or best is None:  # one without the other would tell of another best epoch
        saved = best = None
    history = saved["training"]["history"] if saved else []
    spent = saved["seconds"] if saved else 0.0
    for number, metrics in enumerate(history, 1):
        yield {"epoch": number, "seconds": spent, **metrics}

    written = best is not None  # whether the folder contains `best`
    started = last_saved = time.monotonic()
    pause = SAVE_SECONDS
    for epoch in task.train(config, data, device=device, resume=saved and saved["training"]):
        score = epoch.number if keeps_last else epoch.metrics.get(task.METRIC, epoch.number)
        if best is None or score > best["score"]:
            best = task.checkpoint(config, data, epoch.weights, epoch.metrics)
            best |= {"epoch": epoch.number, "score": score, "predictions": pack(epoch.predictions)}
            written = False
        seconds = spent + time.monotonic() - started
        save_state = time.monotonic() - last_saved > pause and epoch.number < config.epochs
        wanted = epoch.number in rungs or epoch.number == config.epochs
        if not written and (save_state or (wanted and best["score"] > min_score)):
            write_torch(folder / WEIGHTS, best)
            written = True
        if save_state:
            before = time.monotonic()
            write_torch(folder / STATE, {"training": epoch.state, "seconds": seconds})
            state_written()
            last_saved = time.monotonic()
            pause = max(SAVE_SECONDS, SAVE_COSTS * (last_saved - before))
        yield {"epoch": epoch.number, "seconds": seconds, **epoch.metrics}
    if not written and best is not None and best["score"] > min_score:  # stopped early
        write_torch(folder / WEIGHTS, best)


def pack(arrays: dict[str, np.ndarray]) -> Checkpoint:
    """Arrays as values that `torch.load(weights_only=True)` accepts."""
    return {k: v.tolist() if v.dtype.kind == "U" else torch.from_numpy(v) for k, v in arrays.items()}


def unpack(packed: Checkpoint) -> dict[str, np.ndarray]:
    """The arrays that were packed."""
    return {k: np.asarray(v) for k, v in packed.items()}
