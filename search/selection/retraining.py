"""The trainings of `search.final` on the connected cluster: each in a folder of its own, where it can be continued."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from search.cluster.interrupt import Interrupt
from search.cluster.resources import Resources
from search.run_folder.files import read_torch, typed, write_json
from search.running.live import PLAIN_SECONDS, say
from search.running.publishing import write_npz
from search.tasks import Task
from search.trial.training import WEIGHTS, checkpointed_training, pick_device, unpack
from voctrain.config import TrainConfig
from voctrain.data import Data

RESULT, PREDICTIONS = "result.json", "predictions.npz"


@dataclass(frozen=True)
class Job:
    """One training: what people call it, its configuration, and its folder."""

    name: str
    config: TrainConfig
    folder: Path


def train_all(
    jobs: Sequence[Job],
    task: Task,
    data: Data,
    *,
    resources: Resources,
    interrupt: Interrupt,
    stop_after: int | None = None,
) -> None:
    """Run the jobs that have no result yet in parallel; say when each one ends, and every half minute how many have.

    stop_after: see `retrain`. Raises `KeyboardInterrupt` after a signal and `RuntimeError` if a training fails.
    """
    cpus, gpus = resources.cpus, resources.gpus
    shared = ray.put(data)
    # A lost worker's training continues from its checkpoint.
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(retrain)
    running = {
        remote.remote(task.name, job.config, shared, str(job.folder), cpus, gpus, stop_after): job
        for job in jobs
        if not (job.folder / RESULT).exists()
    }
    said = time.monotonic()
    while running:
        done, _ = ray.wait(list(running), timeout=0.5)
        if time.monotonic() - said > PLAIN_SECONDS:
            said = time.monotonic()
            say(f"{len(jobs) - len(running)} of {len(jobs)} trainings done")
        if interrupt.signal is not None:
            raise KeyboardInterrupt
        for reference in done:
            job = running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                cause = str(getattr(error, "cause", error)).strip().splitlines()[-1]
                raise RuntimeError(f"the training of {job.name} in {typed(job.folder)} failed: {cause}") from None
            history, diverged = read_result(job.folder)
            if diverged:
                say(f"{job.name}: {diverged}")
            elif stop_after is None:
                scores = [metrics[task.metric] for metrics in history]
                say(f"{job.name}: {task.metric} best {max(scores):.4f}, last {scores[-1]:.4f}")


def retrain(
    task: str, config: TrainConfig, data: Data, folder: str, cpus: int, gpus: float, stop_after: int | None
) -> None:
    """One training in `folder`, on a worker; leaves result.json (the metrics by epoch) and predictions.npz or weights.

    stop_after: the epoch whose weights are kept, of a training without validation.
    """
    import torch

    torch.set_num_threads(cpus)
    place = Path(folder)
    rungs = {stop_after} if stop_after else set()
    history = []
    try:
        for report in checkpointed_training(task, config, data, place, device=pick_device(gpus), rungs=rungs):
            history.append(report)
            if report["epoch"] == stop_after:
                break
    except FloatingPointError as error:
        write_json(place / RESULT, {"diverged": str(error)})
        return
    if not stop_after:
        write_npz(place / PREDICTIONS, unpack(read_torch(place / WEIGHTS)["predictions"]))
    (place / "state.pt").unlink(missing_ok=True)
    write_json(place / RESULT, history)


def read_result(folder: Path) -> tuple[list[dict[str, float]], str | None]:
    """The metrics by epoch of a training, or why it diverged."""
    result = json.loads((folder / RESULT).read_text())
    return ([], f"diverged, {result['diverged']}") if isinstance(result, dict) else (result, None)
