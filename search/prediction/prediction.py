"""The work of `search.predict`: any images to a table, masks or attacked images, in a stream."""

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from search.cluster.interrupt import Interrupt
from search.command_line import flag
from search.prediction.images import Found, find_images, read_batches
from search.reporter import Reporter
from search.result_options import AveragingOptions, PredictOptions
from search.run_folder.files import write_json
from search.run_folder.location import local_copy
from search.run_folder.records import Checkpoint
from search.tasks import Batch, Predictor, Task
from search.tasks.checkpoint import load_checkpoint
from search.text import first_line, shell_path

RECORD = "predictions.json"  # marks a folder as ours
WRITERS = 8  # threads at most


class PredictionFailed(RuntimeError):
    """The device failed. The message is one line that tells the cause."""


@dataclass(frozen=True)
class Prediction:
    """What was written."""

    place: Path  # a table or a folder
    model: Path
    images: int  # that are predicted
    total: int  # that were found
    unreadable: tuple[str, ...]  # a line about each image that could not be read
    signal: int | None = None  # that stopped it

    def __str__(self) -> str:
        return f"{shell_path(self.place)}: {self.images} images, by {shell_path(self.model)}"


def predict(options: PredictOptions, reporter: Reporter) -> Prediction:
    """Predict images with a trained model.

    Ctrl-C and SIGTERM stop it cleanly: what is written is complete. Raises `ValueError` or `OSError` for a mistake of
    the user, `StorageError` and `PredictionFailed` for a failure of the machine.
    """
    run = local_copy(options.run)
    file, saved, task = load_checkpoint(run)
    _check_averaging(task, options)
    out = Path(options.out or (run if run.is_dir() else run.parent) / "predictions")
    _check_folder(out)
    found = find_images(options.images, without=out)
    reporter.status(f"predicting {len(found.files)} images")
    try:
        return _predict(task, file, saved, found, out, options, reporter)
    except RuntimeError as error:  # of torch: no memory, a broken driver, …
        raise PredictionFailed(f"{file} failed: {first_line(error)}") from None


def _predict(
    task: Task,
    file: Path,
    saved: Checkpoint,
    found: Found,
    out: Path,
    options: PredictOptions,
    reporter: Reporter,
) -> Prediction:
    """Predict the images that were found."""
    total, done, unreadable = len(found.files), 0, list[str]()
    record = {"model": str(file.resolve()), "task": task.name, "flip": options.flip, "scales": options.scales}
    progress = reporter.progress(total, "images")

    def skip(reason: str) -> None:
        unreadable.append(reason)
        progress.clear()
        reporter.warning(reason)

    batches = read_batches(found, saved["image_size"], saved.get("resize", "squash"), skip)
    with (
        Interrupt() as interrupt,
        closing(progress),
        task.predictor(saved, out, options) as predictor,
        closing(batches),
        closing(_written(batches, predictor)) as written,
    ):
        write_json(out / RECORD, record)
        for done in written:
            progress(done + len(unreadable))
            if interrupt.signal is not None:
                break
    return Prediction(out / task.predicted, file, done, total, tuple(unreadable), interrupt.signal)


def _check_averaging(task: Task, options: PredictOptions) -> None:
    """Raise `ValueError` for test-time augmentation that the task does not have."""
    for name in ("flip", "scales"):
        if name not in task.averages and getattr(options, name) != getattr(AveragingOptions(), name):
            raise ValueError(f"{flag(name)} does not apply to a model of task {task.name}: leave it out")


def _check_folder(out: Path) -> None:
    """Raise `ValueError` for a folder that cannot be written to, or that has anything but earlier predictions."""
    existing = next(p for p in (out, *out.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write in {existing}: give --out a folder that you may write to")
    if existing == out and any(out.iterdir()) and not (out / RECORD).exists():
        raise ValueError(f"{out} has files that are not predictions: give --out a new or empty folder")


def _written(batches: Iterable[Batch], predictor: Predictor) -> Generator[int]:
    """Predict batches and do their jobs in threads; yields the number of images so far.

    What is predicted when the caller stops is still written. Raises `StorageError`.
    """
    jobs: deque[Future[object]] = deque()
    done = 0
    with ThreadPoolExecutor(min(WRITERS, os.cpu_count() or 1)) as pool:
        try:
            for batch in batches:
                for job in predictor(batch):
                    done += 1
                    if job is not None:
                        jobs.append(pool.submit(job))
                        if len(jobs) > 2 * WRITERS:
                            jobs.popleft().result()
                        yield done
                yield done
        finally:
            for job in jobs:
                job.result()
