"""The work of `search.submit`: predict the test images with the models of one or two runs, and write the CSV."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.options import SearchOptions
from search.reporter import Reporter
from search.result_options import SubmitOptions
from search.run_folder.files import read_arrays, replace
from search.run_folder.location import local_copy
from search.run_folder.paths import RunPaths
from search.run_folder.records import Checkpoint, read_run
from search.session.images import load_images
from search.submission.gate import STRENGTHS, Gate, fit_gate, log_prior
from search.tasks import Task, submitted_tasks
from search.tasks.checkpoint import load_checkpoint
from voctrain.data import Data, load
from voctrain.data.class_names import contrast
from voctrain.submission import write_submission

SEEN_MASKS = (
    "started from weights trained on COCO's masks of VOC's classes, which VOC's competitions forbid: declare it"
)


@dataclass(frozen=True)
class Submission:
    """What was written."""

    file: Path
    images: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.images} images, {'; '.join(self.notes)}"


@dataclass(frozen=True)
class Model:
    """A checkpoint, where it was, and the data at its image size."""

    task: Any  # with `probabilities` or `label_maps`, by what it submits
    file: Path
    saved: Checkpoint
    data: Data


def submit(runs: Mapping[str, str], options: SubmitOptions, reporter: Reporter) -> Submission:
    """Predict the test images and write the CSV.

    runs: a run or a checkpoint for "labels", "masks" or both. Without labels, an image's classes are those of its mask.
    Raises `ValueError` for a mistake of the user.
    """
    out = Path(options.out)
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"--out must be a file in an existing folder, but got {out}")
    tasks = submitted_tasks()
    places = {what: local_copy(run) for what, run in runs.items()}
    found = [(what, *_load(path, tasks[what])) for what, path in places.items()]
    models = {
        what: Model(tasks[what], file, saved, _test_set(options.data, file, saved, reporter))
        for what, file, saved in found
    }
    for model in models.values():
        if model.task.has_seen_masks(model.saved["config"]):
            reporter.warning(f"{model.file} {SEEN_MASKS}")
    gate = None
    if options.gate:
        reporter.status("fitting the gate on the validation images")
        gate = _fit_gate(places, options, tasks)
    data = next(iter(models.values())).data
    ids, num_classes = data.test_ids, len(data.classes)
    decided, prior, label_notes = _labels(models.get("labels"), gate, options, reporter)
    maps, mask_notes = _masks(models.get("masks"), prior, options, reporter)
    replace(out, lambda path: write_submission(path, _rows(ids, num_classes, decided, maps)))
    return Submission(out, len(ids), (*label_notes, *mask_notes))


def _load(path: Path, task: Task) -> tuple[Path, Checkpoint]:
    """The checkpoint of a run, with its path. Raises `ValueError` if there is none, or it is of another task."""
    file, saved, found = load_checkpoint(path)
    if found.name != task.name:
        name = task.name
        raise ValueError(
            f"--{name} takes a model of task {name}, but {file} is of task {found.name}: give a {name} run"
        )
    return file, saved


def _test_set(path: str, file: Path, saved: Checkpoint, reporter: Reporter) -> Data:
    """The data at the image size of a checkpoint. Raises `ValueError` for other classes or no test images."""
    own = _run_options(file)
    data = load(
        path,
        image_size=saved["image_size"],
        resize=saved.get("resize", "squash"),
        classes=None if own is None else own.classes,
        mask_values=() if own is None else own.mask_value,
        skip_bad=own is not None and own.skip_bad,
        val=(),  # the split does not matter
        progress=reporter.reading(),
    )
    if tuple(saved["classes"]) != data.classes:
        model, those = contrast(saved["classes"], data.classes)
        raise ValueError(
            f"a model must know the classes of --data, but {file} knows {model}, while {path} has {those}: give the set"
            " that it was trained on, or a run on this set"
        )
    if not data.test_ids:
        raise ValueError(f"{path} has no test images to submit: give --data a set with a test part")
    return data


def _run_options(file: Path) -> SearchOptions | None:
    """What the run of a checkpoint was asked for; None for a checkpoint outside a run."""
    for folder in file.parents[:2]:
        with suppress(ValueError, OSError):
            return read_run(folder).options
    return None


def _labels(
    model: Model | None, gate: Gate | None, options: SubmitOptions, reporter: Reporter
) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """The decided classes (M, C), the log prior of the masks, and notes."""
    if model is None:
        return None, None, []
    images = model.data.test_images
    reporter.status(f"predicting the classes of {len(images)} images")
    probabilities = model.task.probabilities(model.saved, flip=options.flip)(images)
    decided = model.task.decisions(model.saved, probabilities)
    notes = [f"{decided.sum(1).mean():.2f} classes per image, by {model.file}"]
    if gate is None:
        return decided, None, notes
    notes.append(
        f"gate of strength {gate.strength:g} (Dice of held-out masks {gate.dice:.4f}, without it"
        f" {gate.dice_without:.4f})"
    )
    return decided, log_prior(probabilities, gate.strength), notes


def _masks(
    model: Model | None, prior: np.ndarray | None, options: SubmitOptions, reporter: Reporter
) -> tuple[Iterator[np.ndarray] | None, list[str]]:
    """The label maps at the original sizes, predicted as they are taken, and notes."""
    if model is None:
        return None, ["no masks: the segmentation rows are empty"]
    images, sizes = model.data.test_images, model.data.test_sizes
    reporter.status(f"predicting the masks of {len(images)} images")
    predict = model.task.label_maps(model.saved, flip=options.flip, scales=options.scales)
    return predict(images, sizes=sizes, log_prior=prior), [f"masks by {model.file}"]


def _fit_gate(runs: Mapping[str, Path], options: SubmitOptions, tasks: Mapping[str, Task]) -> Gate:
    """The gate, fitted with the best models of both runs, which have not seen the validation images."""
    paths = {what: RunPaths(run) for what, run in runs.items()}
    record = {what: read_run(each.folder) for what, each in paths.items()}["masks"]
    needed = [file for each in paths.values() for file in (each.best_weights, each.predictions)]
    if missing := [file for file in needed if not file.is_file()]:
        raise ValueError(f"--gate needs two runs with best.pt and val_predictions.npz, but there is no {missing[0]}")
    arrays = read_arrays(paths["labels"].predictions)
    if arrays is None:
        raise ValueError(f"{paths['labels'].predictions} is damaged: continue that run, or leave --gate out")
    seen = dict(zip(arrays["ids"].tolist(), arrays["y_prob"], strict=True))
    ids = [name for name in record.split.val if name in seen]
    if not ids:
        raise ValueError("--gate needs two runs with the same split, but they share no validation image")
    _, saved = _load(paths["masks"].best_weights, tasks["masks"])
    data = load_images(record.options, options.data)
    data = data.with_split(record.split.train, record.split.val)
    probabilities = np.stack([seen[name] for name in ids])
    priors = np.stack([log_prior(probabilities, strength) for strength in STRENGTHS], axis=1)  # (N, strengths, 1 + C)
    masks: Any = tasks["masks"]
    return fit_gate(masks.dice_by_prior(saved, data, ids, priors, flip=options.flip, scales=options.scales))


def _rows(
    ids: tuple[str, ...], num_classes: int, decided: np.ndarray | None, maps: Iterator[np.ndarray] | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """The rows of `write_submission`."""
    for i, name in enumerate(ids):
        label_map = None if maps is None else next(maps)
        if decided is None:
            assert label_map is not None
            yield name, np.isin(np.arange(1, num_classes + 1), label_map), label_map
        else:
            yield name, decided[i], label_map
