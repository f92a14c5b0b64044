"""What the search needs to know of each task, and nothing else of it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

import spaces.classify
from voctrain import classify
from voctrain.config import ClassifyConfig, TrainConfig
from voctrain.data import Data
from voctrain.metrics import classify_report, random_baseline
from voctrain.thresholds import fit_thresholds


@dataclass(frozen=True)
class Task:
    """One of the commands' tasks. `module` has check, train, checkpoint, restore, predict and METRIC, in [worst, 1]."""

    name: str
    module: ModuleType
    config: type[TrainConfig]
    space: ModuleType
    worst: float  # told for a trial that diverged or ran out of memory
    baseline: Callable[[Data, int], dict[str, float]]  # beside every score
    calibrate: Callable[[dict[str, np.ndarray]], dict[str, Any]]  # of the validation predictions: what best.pt adds
    report: Callable[[dict[str, np.ndarray], dict[str, Any]], dict[str, Any]]  # of both: what best.json adds

    @property
    def metric(self) -> str:
        return self.module.METRIC


def _classify_baseline(data: Data, seed: int) -> dict[str, float]:
    return random_baseline(data.labels[data.train], data.labels[data.val], seed)


def _classify_calibration(predictions: dict[str, np.ndarray]) -> dict[str, Any]:
    thresholds, dice = fit_thresholds(predictions["y_true"], predictions["y_prob"], groups=predictions["ids"])
    return {"thresholds": thresholds.tolist(), "dice_cross_validated": dice}


def _classify_report(predictions: dict[str, np.ndarray], saved: dict[str, Any]) -> dict[str, Any]:
    thresholds, classes = np.array(saved["thresholds"]), saved["classes"]
    return classify_report(predictions["y_true"], predictions["y_prob"], thresholds, classes)


TASKS = {
    task.name: task
    for task in (
        Task(
            name="classify",
            module=classify,
            config=ClassifyConfig,
            space=spaces.classify,
            worst=0.0,
            baseline=_classify_baseline,
            calibrate=_classify_calibration,
            report=_classify_report,
        ),
    )
}
