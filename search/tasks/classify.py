"""Multi-label classification."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from search.result_options import PredictOptions
from search.run_folder.files import read_arrays, replacing
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, Checkpoint, Configuration, Details, RunRecord
from search.tasks import Baseline, Batch, Job, Predictions, Predictor, Score
from search.tasks.pretrained import PretrainedTask
from search.tasks.script import Script
from voctrain.config import ClassifyConfig, TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from search.pictures.blocks import Block, Table
    from voctrain.contact_sheet import Tile
    from voctrain.data import Data
    from voctrain.label_audit import Doubts
    from voctrain.self_training import Unlabeled

SHOWN = 8  # best and worst images


class Classify(PretrainedTask):
    """Labels from one network, a threshold per class."""

    name = "classify"
    config = ClassifyConfig
    submits = "labels"
    predicted = "predictions.csv"
    doubt = "The doubt is the mean probability that the label is wrong."
    averages = ("flip",)

    def baseline(self, data: Data, fields: Configuration) -> Baseline:
        """A linear probe of pretrained weights; without any, random labels."""
        from search.trial.device import pick_device
        from voctrain.metrics.classification import random_baseline
        from voctrain.probe import probe_metrics

        if fields.get("weights", "none") != "none" and "architecture" in fields:
            config = ClassifyConfig(**{name: fields[name] for name in ("architecture", "weights", "image_size")})
            with suppress(ValueError):  # a network without a linear last layer
                metrics = probe_metrics(config, data, device=pick_device())
                return Baseline(f"linear probe of {config.architecture}", metrics)
        return Baseline(
            "random labels", random_baseline(data.labels[data.train], data.labels[data.val], fields["seed"])
        )

    def calibrate(self, predictions: Predictions) -> Details:
        from voctrain.metrics.classification import at_least_one
        from voctrain.metrics.thresholds import fit_thresholds

        thresholds, dice = fit_thresholds(predictions["y_true"], predictions["y_prob"], groups=predictions["ids"])
        forced = at_least_one(predictions["y_true"])
        return {"thresholds": thresholds.tolist(), "at_least_one": forced, "dice_cross_validated": dice}

    def describe(self, predictions: Predictions, saved: Checkpoint) -> Details:
        import numpy as np

        from voctrain.metrics.classification import classify_report

        thresholds = np.array(saved["thresholds"])
        return classify_report(predictions["y_true"], predictions["y_prob"], thresholds, saved["classes"])

    def doubts(self, out_of_fold: Predictions) -> Doubts:
        from voctrain.label_audit import doubtful_labels

        return doubtful_labels(out_of_fold["y_true"], out_of_fold["y_prob"])

    def rescore(self, predictions: Predictions, config: Configuration) -> Score:
        from voctrain.metrics.classification import classify_metrics

        y_true, y_prob = predictions["y_true"], predictions["y_prob"]
        return lambda rows: classify_metrics(y_true[rows], y_prob[rows])[self.metric]

    def held_out(self, saved: Checkpoint, data: Data) -> Predictions:
        import numpy as np

        from search.trial.device import pick_device
        from voctrain import classify

        device, images = pick_device(), data.images[data.val]
        model, config = classify.restore(saved, device=device)
        return {
            "ids": np.array(data.ids)[data.val],
            "truth": data.labels[data.val],
            "plain": classify.predict(model, images, config, device=device),
            "mirrored": classify.predict(model, images[:, :, ::-1].copy(), config, device=device),
        }

    def predictions(self, truth: np.ndarray, probabilities: np.ndarray) -> Predictions:
        return {"y_true": truth, "y_prob": probabilities}

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        from voctrain.metrics.classification import classify_metrics

        return classify_metrics(predictions["y_true"], predictions["y_prob"])

    def comparable(self, record: RunRecord) -> dict[str, object]:
        return {}  # labels have no size

    def decisions(self, saved: Checkpoint, probabilities: np.ndarray) -> np.ndarray:
        """Bool (N, C), by the thresholds of a checkpoint."""
        import numpy as np

        from voctrain.metrics.classification import decide

        return decide(probabilities, np.array(saved["thresholds"]), at_least_one=saved.get("at_least_one", True))

    def probabilities(self, saved: Checkpoint, *, flip: bool) -> Callable[[np.ndarray], np.ndarray]:
        """A function from images of the size of the checkpoint's model to their probabilities (N, C)."""
        from search.trial.device import pick_device
        from voctrain import classify

        device = pick_device()
        model, config = classify.restore(saved, device=device)
        return lambda images: classify.predict(model, images, config, device=device, flip=flip)

    def pseudo_labeled(self, data: Data, unlabeled: Unlabeled, teachers: Sequence[Checkpoint]) -> Data:
        import numpy as np

        from voctrain.self_training import with_pseudo_labels

        said = [self.probabilities(saved, flip=True)(unlabeled.images) for saved in teachers]
        soft = np.stack(said).mean(0)
        return with_pseudo_labels(data, unlabeled, (soft >= 0.5).astype(np.uint8), soft=soft)

    def class_table(self, predictions: Sequence[Predictions], saved: Checkpoint) -> Table:
        import numpy as np

        from search.pictures.blocks import Table
        from voctrain.metrics.classification import average_precision

        images = predictions[0]["y_true"].sum(0)
        precision = np.mean([average_precision(each["y_true"], each["y_prob"]) for each in predictions], axis=0)
        reports = [self.describe(each, saved)["report"] for each in predictions]
        rows = []
        for name, count, average, threshold in zip(
            saved["classes"], images.tolist(), precision.tolist(), saved["thresholds"], strict=True
        ):
            f1 = float(np.mean([report[name]["f1-score"] for report in reports]))
            rows.append((name, count, average if count else None, threshold, f1))
        forced = saved.get("at_least_one", True)
        note = "Means over the seeds' best epochs, on the validation images. A class is decided from its threshold on"
        note += "; an image without any gets the most probable class" if forced else ""
        return Table(("class", "images", "AP", "threshold", "F1"), rows, note)

    @contextmanager
    def predictor(self, saved: Checkpoint, out: Path, options: PredictOptions) -> Iterator[Predictor]:
        """predictions.csv: the file, a probability per class and the decided labels of each image."""
        import numpy as np

        predict, classes = self.probabilities(saved, flip=options.flip), np.array(saved["classes"])
        with replacing(out / self.predicted) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("file", *saved["classes"], "labels"))

            def write(batch: Batch) -> Iterator[Job | None]:
                probabilities = predict(batch.images)
                decided = self.decisions(saved, probabilities)
                for path, row, chosen in zip(batch.files, probabilities, decided, strict=True):
                    table.writerow((path, *map(str, row), ",".join(classes[chosen])))
                    yield None

            yield write

    def evidence(self, paths: RunPaths, best: BestRecord, data: Data | None) -> Iterator[Block]:
        """AP and threshold of each class, confusion, best and worst images."""
        import numpy as np

        from search.pictures.blocks import Table, Text
        from search.pictures.figures import heat_map

        predictions = read_arrays(paths.predictions)
        if predictions is None:
            yield Text("val_predictions.npz is missing: classes and images cannot be shown.")
            return
        classes = list(best.details["report"])[: predictions["y_true"].shape[1]]  # once followed by averages
        yield Table(CLASS_HEADS, _class_rows(predictions, best, classes), "Classes on the validation images")
        yield Text("The thresholds were fitted to these same images; the AP does not depend on them.")
        yield heat_map(
            np.array(best.details["co_confusion"]),
            classes,
            "Images with a class (row) for which a class is predicted (column)",
            f"a {len(classes)} by {len(classes)} matrix: true classes against predicted classes",
            counts=True,
        )
        if data is not None:
            yield from _ranked_images(predictions, best, classes, data)

    def script(self, config: TrainConfig) -> Script:
        from search.tasks.classify_script import script

        assert isinstance(config, ClassifyConfig)
        return script(config)

    def training_batch(self, data: Data, config: TrainConfig, count: int) -> tuple[list[Tile], str]:
        import torch

        from search.pictures.batch import spread, tiles, to_bytes
        from voctrain import classify
        from voctrain.images import to_unit, training_arrays

        assert isinstance(config, ClassifyConfig)
        index = spread(data.train, count)
        labels = torch.tensor(data.labels[index], dtype=torch.float32)
        images = torch.from_numpy(training_arrays(data, config)[0][index])
        seen, targets, _ = classify.vary(to_unit(images), labels, config)
        named = [_target_names(target, data.classes) for target in targets.tolist()]
        rows = tiles(data.images[index], ["image"] * count) + tiles(to_bytes(seen), named)
        return rows, f"what each becomes, with its targets: {'; '.join(named)}"


CLASS_HEADS = ("class", "images", "AP", "threshold", "precision", "recall", "F1")
CLASS_HEADS += ("true pos.", "false pos.", "false neg.", "true neg.")


def _class_rows(predictions: Predictions, best: BestRecord, classes: list[str]) -> list[tuple[object, ...]]:
    """A row of the report's table for each class."""
    from voctrain.metrics.classification import average_precision

    precision = average_precision(predictions["y_true"], predictions["y_prob"])
    rows = []
    for c, (name, matrix) in enumerate(zip(classes, best.details["multilabel_confusion"], strict=True)):
        (tn, fp), (fn, tp) = matrix
        report, positives = best.details["report"][name], tp + fn
        values = (report["precision"], report["recall"], report["f1-score"], tp, fp, fn, tn)
        average = precision[c] if positives else None
        rows.append((name, positives, average, best.details["thresholds"][c], *values))
    return rows


def _ranked_images(predictions: Predictions, best: BestRecord, classes: list[str], data: Data) -> Iterator[Block]:
    """The validation images whose classes are predicted best and worst."""
    import numpy as np

    from search.pictures.blocks import pictured
    from voctrain.contact_sheet import Tile, sheet
    from voctrain.metrics.classification import decide, row_dice

    forced = best.details.get("at_least_one", True)
    decided = decide(predictions["y_prob"], np.array(best.details["thresholds"]), at_least_one=forced)
    order = np.argsort(-row_dice(predictions["y_true"], decided), kind="stable")
    index = {name: i for i, name in enumerate(data.ids)}

    def lines(i: int) -> tuple[str, str]:
        rows = (predictions["y_true"][i], decided[i])
        true, predicted = (", ".join(np.array(classes)[row.astype(bool)].tolist()) for row in rows)
        return f"true: {true}", f"predicted: {predicted}"

    for title, chosen in (("Best", order[:SHOWN]), ("Worst", order[::-1][:SHOWN])):
        tiles = [Tile((data.images[index[str(predictions["ids"][i])]],), lines(i)) for i in chosen]
        alt = "; ".join(f"{predictions['ids'][i]}, {', '.join(lines(i))}" for i in chosen)
        yield pictured(sheet(tiles, across=4), f"{title} validation images, by Dice of their classes", alt, wide=True)


def _target_names(target: list[float], classes: tuple[str, ...]) -> str:
    """The classes of a target in [0, 1], with their share if it is below 1."""
    parts = [(name, part) for name, part in zip(classes, target, strict=True) if part >= 0.005]
    return ", ".join(name if part > 0.995 else f"{name} {part:.2f}" for name, part in parts)


TASK = Classify()
