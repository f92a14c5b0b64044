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


def repeats(folds: int, seeds: int) -> str:
    """How often a configuration was trained: 5 folds, 3 seeds, or 5 folds × 3 seeds."""
    parts = [f"{folds} folds"] if folds > 1 else []
    if seeds > 1 or not parts:
        parts.append(f"{seeds} seed{'s' if seeds > 1 else ''}")
    return " × ".join(parts)


@dataclass(frozen=True)
class Candidate:
    """A configuration that `search.final` has retrained."""

    name: str
    config: Configuration
    epochs: int
    scores: Scores  # each over all held-out images together
    metrics: dict[str, float]  # means over its trainings
    lr_by_epoch: list[float]
    trainings: list[str]  # their names, see `RunPaths`, fold by fold and in each seed by seed
    unlabeled: int = 0  # images that an earlier candidate has labeled


@dataclass(frozen=True)
class Expectation:
    """The score of what is handed over, on images that nobody has seen."""

    score: float
    low: float  # of the 95 % interval
    high: float
    unseen: int | None  # the number of images that the interval is for; None: very many
    images: int  # that this is estimated from
    naive: float  # the score on these images without a correction for having chosen the best
    lead: float | None  # of the best configuration over the portfolio's first; None without that, or if it is that
    lead_low: float | None
    lead_high: float | None
    is_overtuned: bool  # whether that lead is not clear, at 95 % confidence

    def describe(self, metric: str) -> str:
        images = "unseen images" if self.unseen is None else f"{self.unseen} unseen images"
        return f"expected {metric} on {images} {self.score:.4f}, 95 % interval {self.low:.4f} to {self.high:.4f}"


@dataclass(frozen=True)
class Mixed:
    """A way to use the retrained models, with the score over all held-out images."""

    name: str  # single, uniform or greedy
    score: float
    networks: int
    milliseconds: float | None  # per image, where it was measured


@dataclass(frozen=True)
class Part:
    """What a configuration and seed contribute to an ensemble."""

    name: str
    plain: float  # the weight of the probabilities for the images, shared by its networks
    mirrored: float  # of those for the mirrored images
    adds: float  # to the score
    networks: list[str]  # their names in ensemble.pt, one for each fold


@dataclass(frozen=True)
class EnsembleRecord:
    """ensemble.json: the ways to use the retrained models, the chosen one, and who weighs what in it."""

    chosen: str
    mixtures: list[Mixed]
    parts: list[Part]
    details: Details  # what is fitted to its predictions

    def write(self, paths: RunPaths) -> None:
        """Raises `StorageError`."""
        write_json(paths.ensemble_record, dataclasses.asdict(self))


@dataclass(frozen=True)
class FinalRecord:
    """final.json: the retrained configurations, and the one that was chosen."""

    task: str
    metric: str
    score: float
    standard_error: float | None  # over seeds
    epochs: int
    winner: str
    folds: int  # 1: the split of the run
    seeds: int
    dropped: dict[str, int]  # configurations that lost, with the number of folds after which they had
    baseline: dict[str, float]
    baseline_name: str
    original_size: dict[str, float]  # metrics of what is handed over at the images' original sizes, if they differ
    expected: Expectation | None  # None without folds: the search has looked at all held-out images
    handed_over: str  # single, uniform or greedy
    details: Details
    candidates: list[Candidate]

    def write(self, paths: RunPaths) -> None:
        """Raises `StorageError`."""
        own = dataclasses.asdict(self)
        write_json(paths.final_record, {**own, **own.pop("details")})
