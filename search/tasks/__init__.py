"""What the search needs to know of each task, and nothing else of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import spaces.attack
import spaces.classify
import spaces.segment
from search.pictures.masks import write_pictures
from search.tasks.attack_comparison import conclude_attack
from search.tasks.victims import attack_fields
from voctrain import attack, classify, segment
from voctrain.attack.baselines import random_sign_score
from voctrain.attack.objective import Objective
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig, TrainConfig
from voctrain.data import Data, original_masks
from voctrain.metrics.classification import classify_metrics, classify_report, random_baseline
from voctrain.metrics.segmentation import all_background, iou, mask_metrics, score_maps
from voctrain.metrics.thresholds import fit_thresholds


@dataclass(frozen=True)
class Task:
    """One of the commands' tasks.

    `module` has check, new_model, train, checkpoint, restore, input_size, file_architecture and METRIC, in [worst, 1].
    """

    name: str
    module: ModuleType
    config: type[TrainConfig]
    space: ModuleType
    worst: float  # told for a trial that diverged or ran out of memory
    baseline_name: str  # what is beside every score
    baseline: Callable[[Data, Mapping[str, Any]], dict[str, float]]  # by data and configuration fields
    calibrate: Callable[[dict[str, np.ndarray]], dict[str, Any]]  # of the validation predictions: what best.pt adds
    report: Callable[[dict[str, np.ndarray], dict[str, Any]], dict[str, Any]]  # of both: what best.json adds
    # Of validation predictions and the configuration behind them, the score of the images with given indices.
    rescore: Callable[[dict[str, np.ndarray], dict[str, Any]], Callable[[Any], float]]
    # Validation metrics of a checkpoint at the images' original sizes.
    at_original_size: Callable[[dict[str, Any], Data], dict[str, float]] = lambda *_: {}
    # Configuration fields that the command's arguments decide.
    fields: Callable[[Mapping[str, Any], Data], dict[str, Any]] = lambda arguments, _: {"weights": arguments["weights"]}
    # What a run's folder gets when the run ends, by its best checkpoint; and the last file of it.
    conclude: Callable[[Path, dict[str, Any], Data], None] = lambda *_: None
    conclusion: str | None = None
    submitted: bool = True  # whether the competition takes its predictions

    @property
    def metric(self) -> str:
        return self.module.METRIC


def _classify_baseline(data: Data, fields: Mapping[str, Any]) -> dict[str, float]:
    return random_baseline(data.labels[data.train], data.labels[data.val], fields["seed"])


def _classify_rescored(predictions: dict[str, np.ndarray], config: dict[str, Any]) -> Callable[[Any], float]:
    y_true, y_prob = predictions["y_true"], predictions["y_prob"]
    return lambda rows: classify_metrics(y_true[rows], y_prob[rows])["val_mAP"]


def _classify_calibration(predictions: dict[str, np.ndarray]) -> dict[str, Any]:
    thresholds, dice = fit_thresholds(predictions["y_true"], predictions["y_prob"], groups=predictions["ids"])
    return {"thresholds": thresholds.tolist(), "dice_cross_validated": dice}


def _classify_report(predictions: dict[str, np.ndarray], saved: dict[str, Any]) -> dict[str, Any]:
    thresholds, classes = np.array(saved["thresholds"]), saved["classes"]
    return classify_report(predictions["y_true"], predictions["y_prob"], thresholds, classes)


def _segment_baseline(data: Data, fields: Mapping[str, Any]) -> dict[str, float]:
    return all_background(data.masks[segment.with_masks(data).val], 1 + len(data.classes))


def _segment_report(predictions: dict[str, np.ndarray], saved: dict[str, Any]) -> dict[str, Any]:
    total = predictions["confusion"].sum(0)
    by_class = zip(("background", *saved["classes"]), iou(total), strict=True)
    return {"iou": {name: None if np.isnan(v) else float(v) for name, v in by_class}, "confusion": total.tolist()}


def _segment_rescored(predictions: dict[str, np.ndarray], config: dict[str, Any]) -> Callable[[Any], float]:
    return lambda rows: mask_metrics(predictions["confusion"][rows])["val_mIoU"]


def _segment_at_original_size(saved: dict[str, Any], data: Data) -> dict[str, float]:
    model, config = segment.restore(saved)
    data = segment.with_masks(data)
    maps = segment.predict(model, data.images[data.val], config, sizes=data.sizes[data.val])
    truths = original_masks(data, [data.ids[i] for i in data.val])
    metrics, _ = score_maps(truths, maps, 1 + len(data.classes))
    return metrics


TASKS = {
    task.name: task
    for task in (
        Task(
            name="classify",
            module=classify,
            config=ClassifyConfig,
            space=spaces.classify,
            worst=0.0,
            baseline_name="random labels",
            baseline=_classify_baseline,
            calibrate=_classify_calibration,
            report=_classify_report,
            rescore=_classify_rescored,
        ),
        Task(
            name="segment",
            module=segment,
            config=SegmentConfig,
            space=spaces.segment,
            worst=0.0,
            baseline_name="all background",
            baseline=_segment_baseline,
            calibrate=lambda predictions: {},
            report=_segment_report,
            rescore=_segment_rescored,
            at_original_size=_segment_at_original_size,
            conclude=lambda run, saved, data: write_pictures(run / "pictures", saved, data),
            conclusion="pictures/classes.png",
        ),
        Task(
            name="attack",
            module=attack,
            config=AttackConfig,
            space=spaces.attack,
            worst=-1.0,
            baseline_name="random sign",
            baseline=random_sign_score,
            calibrate=lambda predictions: {},
            report=lambda predictions, saved: {},
            rescore=lambda predictions, config: Objective(AttackConfig.from_dict(config)).rescored(predictions),
            fields=attack_fields,
            conclude=conclude_attack,
            conclusion="pictures/front.png",
            submitted=False,
        ),
    )
}
