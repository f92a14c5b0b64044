"""Trained models, for the commands that use them."""

from pathlib import Path

from search.options import TASK_NAMES
from search.run_folder.files import read_torch
from search.run_folder.paths import RunPaths
from search.run_folder.records import Checkpoint
from search.tasks import Task, find_task

NEEDED = {"config", "classes", "image_size", "model"}  # keys of a checkpoint


def load_checkpoint(path: Path) -> tuple[Path, Checkpoint, Task]:
    """The checkpoint of a run, or a checkpoint file: its path, its content and its task.

    That of a run is what `search.final` handed over, ensemble.pt or final.pt, or else best.pt.

    Raises `ValueError` if there is none.
    """
    paths = RunPaths(path)
    candidates = [paths.ensemble, paths.final_weights, paths.best_weights] if path.is_dir() else [path]
    file = next((f for f in candidates if f.is_file()), None)
    if file is None:
        raise ValueError(f"{path} has neither final/final.pt nor best.pt: give a run that has scored, or a checkpoint")
    saved = read_torch(file)
    if isinstance(saved, dict) and saved.get("task") in TASK_NAMES:
        task = find_task(saved["task"])
        if saved.keys() >= NEEDED | ({"thresholds"} if task.submits == "labels" else set()):
            return file, saved, task
    raise ValueError(f"{file} is not a voc-search checkpoint: give a run, its best.pt or its final.pt")
