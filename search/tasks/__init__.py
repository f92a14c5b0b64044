"""What the search knows of its tasks: one file each, found by name.

A task is `voctrain/<task>.py` (how a trial trains), `spaces/<task>.py` (what may vary) and a file here. Files here
import torch only inside functions, because the command line reads the options of all tasks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, cast

from search.options import TASK_NAMES, SearchOptions
from search.reporter import Reporter
from search.result_options import PredictOptions
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, Checkpoint, Configuration, Details, RunRecord
from search.tasks.script import Script
from search.trial.protocol import TrainModule
from voctrain.config import TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from search.pictures.blocks import Block, Table
    from voctrain.contact_sheet import Tile
    from voctrain.data import Data
    from voctrain.label_audit import Doubts
    from voctrain.self_training import Unlabeled

Predictions = dict[str, "np.ndarray"]  # of the validation images, as a training yields them
Score = Callable[[Any], float]  # the score over the validation images with these indices


class Baseline(NamedTuple):
    """What every score is shown beside."""

    name: str
    metrics: dict[str, float]


class Batch(NamedTuple):
    """Images to predict, at the size of a model."""

    files: list[Path]
    names: list[str]  # relative paths without ending, for what is written of each image
    images: np.ndarray  # uint8 (B, S, S, 3)
    sizes: np.ndarray  # int32 (B, 2), original heights and widths
    shown: set[str]  # names of the images for a contact sheet, in all batches


Job = Callable[[], object]  # writes what is predicted of an image, in any thread
Predictor = Callable[[Batch], Iterator[Job | None]]  # yields for each image what is left to do


class RunTask(Protocol):
    """What a run needs once a trial has scored."""

    worst: ClassVar[float]

    @property
    def metric(self) -> str: ...
    def calibrate(self, predictions: Predictions) -> Details: ...
    def describe(self, predictions: Predictions, saved: Checkpoint) -> Details: ...
    def rescore(self, predictions: Predictions, config: Configuration) -> Score: ...
    def conclude(
        self, paths: RunPaths, record: RunRecord, saved: Checkpoint, data: Data, reporter: Reporter
    ) -> None: ...
    def evidence(self, paths: RunPaths, best: BestRecord, data: Data | None) -> Iterator[Block]: ...


class Task:
    """A task, from the command line to the report; a file of search/tasks/ overrides what is different."""

    name: ClassVar[str]
    config: ClassVar[type[TrainConfig]]
    options: ClassVar[type[SearchOptions]] = SearchOptions
    files: ClassVar[tuple[str, ...]] = ()  # options, and configuration fields, that name a file
    needed: ClassVar[tuple[str, ...]] = ()  # those of them that evaluating a model needs
    digits: ClassVar[bool] = False  # whether it takes the sets of digits
    flips: ClassVar[bool] = True  # whether a correction of the data may flip a label
    worst: ClassVar[float] = 0.0  # score of a trial that diverged or ran out of memory
    doubt: ClassVar[str | None] = None  # what the doubt of `doubts` is, in a sentence; None: there are no labels
    predicted: ClassVar[str]  # what `predictor` writes
    averages: ClassVar[tuple[str, ...]] = ()  # the test-time augmentations that it takes
    submits: ClassVar[Literal["labels", "masks"] | None] = None  # what the competition takes of its predictions
    conclusion: ClassVar[str | None] = None  # the last file that `conclude` writes

    @property
    def module(self) -> TrainModule:
        return cast(TrainModule, importlib.import_module(f"voctrain.{self.name}"))

    @property
    def space(self) -> ModuleType:
        return importlib.import_module(f"spaces.{self.name}")

    @property
    def metric(self) -> str:
        return self.module.METRIC

    # Before the first trial.

    def resolve(self, options: SearchOptions) -> SearchOptions:
        """The options with all that they imply. Raises `ValueError` for what this task cannot use."""
        from voctrain.data import DIGITS

        if options.data in DIGITS and not self.digits:
            takers = " and ".join(name for name in TASK_NAMES if find_task(name).digits)
            raise ValueError(f"--data {options.data} applies to {takers} only: give a VOC-style folder")
        return options

    def fixed_fields(self, options: SearchOptions, data: Data) -> Configuration:
        """The configuration fields that the options decide. Raises `ValueError` for a file that cannot be used."""
        return {}

    def architecture_of(self, file: str) -> str | None:
        """The architecture that a weights file names; None if it does not."""
        return None

    def has_weights(self, architecture: str | None, weights: str) -> bool:
        """Whether an architecture can start from weights of this name, or needs none; None: any of several."""
        return True

    def download(self, architecture: str, weights: str) -> None:
        """Get published weights. Raises `ValueError` if they are unavailable."""

    def baseline(self, data: Data, fields: Configuration) -> Baseline:
        """A method that takes no training; fields: of a configuration, at least those that all trials share."""
        raise NotImplementedError

    # With a trained model.

    def predictor(self, saved: Checkpoint, out: Path, options: PredictOptions) -> AbstractContextManager[Predictor]:
        """Predict images into the folder `out`; what is written of all images together is complete when this exits."""
        raise NotImplementedError

    def pseudo_labeled(self, data: Data, unlabeled: Unlabeled, teachers: Sequence[Checkpoint]) -> Data:
        """The data with the unlabeled images in its training part, labeled by several models."""
        raise NotImplementedError

    def doubts(self, out_of_fold: Predictions) -> Doubts:
        """The labels that models contradict which have not seen the image, by the arrays of `RunPaths.out_of_fold`."""
        raise NotImplementedError

    def class_table(self, predictions: Sequence[Predictions], saved: Checkpoint) -> Table | None:
        """A row for each class: means over several trainings, of the same validation images; None without classes."""
        return None

    def provenance(self, config: Configuration) -> str:
        """What a model started from, and under which terms, in sentences."""
        return "It was trained from random weights: no other model's are in it."

    def has_seen_masks(self, config: Configuration) -> bool:
        """Whether a model started from weights that have learned VOC's classes from COCO's masks."""
        return False

    # At the end of a run.

    def calibrate(self, predictions: Predictions) -> Details:
        """What is fitted to the validation predictions and kept with the weights."""
        return {}

    def describe(self, predictions: Predictions, saved: Checkpoint) -> Details:
        """What best.json tells of the predictions of a calibrated checkpoint."""
        return {}

    def rescore(self, predictions: Predictions, config: Configuration) -> Score:
        """The score as a function of the validation images it is computed over."""
        raise NotImplementedError

    def comparable(self, record: RunRecord) -> dict[str, object]:
        """By name, what two runs must share for their scores to be comparable, beside data, split and metric."""
        return {"image size": record.image_size, "resize": record.resize}

    def held_out(self, saved: Checkpoint, data: Data) -> Predictions:
        """What a model says of the validation images: arrays with a row for each.

        ids; truth; `plain` and `mirrored`, the probabilities for the images as they are and mirrored. These can be
        averaged over models.
        """
        raise NotImplementedError

    def at_original_size(self, saved: Checkpoint, data: Data) -> Predictions:
        """The predictions of the validation images at their original sizes; empty if these do not matter."""
        return {}

    def predictions(self, truth: np.ndarray, probabilities: np.ndarray) -> Predictions:
        """What `metrics`, `rescore`, and `calibrate` take, except for ids, from a truth and averaged probabilities."""
        raise NotImplementedError

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """The validation metrics of predictions."""
        raise NotImplementedError

    def conclude(self, paths: RunPaths, record: RunRecord, saved: Checkpoint, data: Data, reporter: Reporter) -> None:
        """Write tables and pictures of the best checkpoint."""

    def evidence(self, paths: RunPaths, best: BestRecord, data: Data | None) -> Iterator[Block]:
        """What the report shows of the best model."""
        yield from ()

    def script(self, config: TrainConfig) -> Script:
        """The parts of a script that trains this configuration."""
        raise NotImplementedError

    def training_batch(self, data: Data, config: TrainConfig, count: int) -> tuple[list[Tile], str]:
        """Images, and below each what a training sees instead; and a description of that."""
        raise NotImplementedError


def find_task(name: str) -> Task:
    """The task in search/tasks/<name>.py."""
    return importlib.import_module(f"search.tasks.{name}").TASK


def submitted_tasks() -> Mapping[str, Task]:
    """The tasks that the competition scores, by what they submit."""
    tasks = map(find_task, TASK_NAMES)
    return {task.submits: task for task in tasks if task.submits is not None}
