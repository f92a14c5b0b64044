"""The records of a run: run.json, best.json and final.json as types. Light: a command reads them before torch loads."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from search.option_values import make_options
from search.options import SearchOptions, task_options
from search.run_folder.files import read_json, write_json
from search.run_folder.paths import RunPaths
from search.text import shell_path

Configuration = dict[str, Any]  # the fields of a task's configuration class, or parameters of a search space
Details = dict[str, Any]  # what a task adds to its records: thresholds, confusion matrices, …
Checkpoint = dict[str, Any]  # a file that torch wrote: task, config, classes, image_size, model, metrics, Details


@dataclass(frozen=True)
class SetRecord:
    """A data set."""

    fingerprint: str
    labeled: int  # images
    test: int


@dataclass(frozen=True)
class Split:
    """Image ids."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class RunRecord:
    """run.json: what a run was asked for, and all that decides its result."""

    task: str
    metric: str
    options: SearchOptions  # with all that they imply
    data: SetRecord
    classes: tuple[str, ...]
    split: Split
    baseline: dict[str, float]
    baseline_name: str
    digests: dict[str, str]  # of the files that configuration fields name, by field
    device: str  # that the search space was told
    resized_to: dict[str, int]  # input size of the architectures that need another one than image_size
    track: str | None  # what a submission must declare
    versions: dict[str, str]
    git: str | None
    created: str
    id: str = ""  # of this run alone, also in its journal; runs of earlier versions have none
    seconds: float = 0.0  # of wall-clock time, over all parts of the run
    left_out: tuple[str, ...] = ()  # architectures whose weights were unavailable when the run began
    provenance: dict[str, str] = field(default_factory=dict)  # what a training starts from, by architecture

    @property
    def epochs(self) -> int:
        """Epochs of a trial that is not pruned."""
        assert self.options.epochs is not None
        return self.options.epochs

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        assert self.options.image_size is not None
        return self.options.image_size

    @property
    def resize(self) -> str:
        """How the images became squares."""
        return self.options.resize or "squash"  # runs of earlier versions have none

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises `ValueError`, in one line, for anything that is not the record of a run."""
        try:
            nested = {
                "options": make_options(task_options(values["task"]), values["options"]),
                "data": SetRecord(**values["data"]),
                "classes": tuple(values["classes"]),
                "split": Split(*(tuple(values["split"][part]) for part in ("train", "val"))),
            }
            return cls(**{**values, **nested})
        except (KeyError, TypeError, AttributeError, ImportError):
            raise ValueError("it is not the record of a run of this version of voc-search: start a new run") from None

    def write(self, paths: RunPaths) -> None:
        """Raises `StorageError`."""
        write_json(paths.record, self.to_json())


def read_run(folder: Path) -> RunRecord:
    """run.json of a run folder. Raises `ValueError` for anything that is not one."""
    file = RunPaths(folder).record
    if not folder.is_dir():
        raise ValueError(f"no run folder {folder}: give the path that the search printed, such as runs/classify-…")
    if not file.exists():
        raise ValueError(f"{folder} has no run.json: it is not a run, or one that never started; start a new one")
    try:
        return RunRecord.from_json(json.loads(file.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError):
        command = f"python -m search.check {shell_path(folder)} --repair"
        raise ValueError(f"{file} is damaged or unreadable: write it again with: {command}") from None
    except ValueError as error:
        raise ValueError(f"{file} cannot be used: {error}") from None


@dataclass(frozen=True)
class BestRecord:
    """best.json: the best epoch of the best trial."""

    task: str
    trial: int
    metric: str
    score: float
    epoch: int
    config: Configuration
    checkpoint: str  # file name
    metrics: dict[str, float]
    resize: str = "squash"  # how the images became squares
    details: Details = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises `ValueError`, in one line, for anything else."""
        names = [f.name for f in dataclasses.fields(cls) if f.name != "details"]
        try:
            values = {"resize": "squash", **values}  # records of earlier versions have none
            own = {name: values[name] for name in names}
        except (KeyError, TypeError):
            raise ValueError("it is not the record of a best trial: delete it, and continue the run") from None
        if not isinstance(own["config"], dict) or not isinstance(own["metrics"], dict):
            raise ValueError("its config and metrics must be objects: delete it, and continue the run")
        return cls(**own, details={name: value for name, value in values.items() if name not in own})

    def to_json(self) -> dict[str, Any]:
        own = dataclasses.asdict(self)
        return {**own, **own.pop("details")}


def read_best(paths: RunPaths) -> BestRecord | None:
    """best.json; None if no trial has scored yet. Raises `ValueError` if it is damaged."""
    values = read_json(paths.best)
    if values is None:
        return None
    try:
        return BestRecord.from_json(values)
    except ValueError as error:
        raise ValueError(f"{paths.best} cannot be used: {error}") from None


@dataclass(frozen=True)
class Scores:
    """A score over seeds."""

    score: float  # their mean
    standard_error: float | None  # None with one seed
    scores: list[float]


@dataclass(frozen=True)
class Candidate:
    """A configuration that `search.final` has retrained."""

    name: str
    config: Configuration
    epochs: int  # where the mean score over seeds is highest
    at_epochs: Scores
    best: Scores  # best epoch of each seed
    last: Scores  # last epoch of each seed
    metrics: dict[str, float]
    lr_by_epoch: list[float]
    original_size: dict[str, float]  # metrics at the images' original sizes, if they differ
    trainings: list[str]  # names of its trainings, see `RunPaths`
    unlabeled: int = 0  # images that an earlier candidate has labeled


@dataclass(frozen=True)
class FinalRecord:
    """final.json: the retrained configurations, and the one that was chosen."""

    task: str
    metric: str
    score: float
    standard_error: float | None
    epochs: int
    winner: str
    seeds: int
    baseline: dict[str, float]
    baseline_name: str
    original_size: dict[str, float]
    details: Details
    candidates: list[Candidate]

    def write(self, paths: RunPaths) -> None:
        """Raises `StorageError`."""
        own = dataclasses.asdict(self)
        write_json(paths.final_record, {**own, **own.pop("details")})
