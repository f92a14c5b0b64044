"""Semantic segmentation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from search.reporter import Reporter
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, Checkpoint, Configuration, Details, RunRecord
from search.tasks import Predictions, Score
from search.tasks.pretrained import PretrainedTask
from voctrain.config import SegmentConfig, TrainConfig
from voctrain.data import Data

if TYPE_CHECKING:
    from search.pictures.blocks import Block
    from search.pictures.sheet import Tile

SHEETS = {
    "best": "Best masks, by Dice",
    "worst": "Worst masks, by Dice",
    "classes": "For each class, the image that contains most of it",
}


class Segment(PretrainedTask):
    """A label map per image."""

    name = "segment"
    config = SegmentConfig
    baseline_name = "all background"
    submits = "masks"
    conclusion = "pictures/classes.png"

    def baseline(self, data: Data, fields: Configuration) -> dict[str, float]:
        from voctrain import segment
        from voctrain.metrics.segmentation import all_background

        data = segment.with_masks(data)
        assert data.masks is not None
        return all_background(data.masks[data.val], 1 + len(data.classes))

    def describe(self, predictions: Predictions, saved: Checkpoint) -> Details:
        from voctrain.metrics.segmentation import iou

        total = predictions["confusion"].sum(0)
        by_class = zip(("background", *saved["classes"]), iou(total), strict=True)
        return {"iou": {name: None if np.isnan(v) else float(v) for name, v in by_class}, "confusion": total.tolist()}

    def rescore(self, predictions: Predictions, config: Configuration) -> Score:
        from voctrain.metrics.segmentation import mask_metrics

        return lambda rows: mask_metrics(predictions["confusion"][rows])[self.metric]

    def at_original_size(self, saved: Checkpoint, data: Data) -> dict[str, float]:
        from voctrain import segment
        from voctrain.metrics.segmentation import score_maps

        model, config = segment.restore(saved)
        data = segment.with_masks(data)
        maps = segment.predict(model, data.images[data.val], config, sizes=data.sizes[data.val])
        truths = data.original_masks([data.ids[i] for i in data.val])
        metrics, _ = score_maps(truths, maps, 1 + len(data.classes))
        return metrics

    def conclude(self, paths: RunPaths, record: RunRecord, saved: Checkpoint, data: Data, reporter: Reporter) -> None:
        from search.pictures.masks import write_pictures

        write_pictures(paths.pictures, saved, data)

    def evidence(self, paths: RunPaths, best: BestRecord, data: Data | None) -> "Iterator[Block]":
        """IoU of each class, confusion, and the sheets of masks."""
        from search.pictures.blocks import Table
        from search.pictures.figures import heat_map, written_pictures

        names = list(best.details["iou"])
        yield Table(("class", "IoU"), list(best.details["iou"].items()), "Classes on the validation images")
        total = np.array(best.details["confusion"], float)
        share = total / np.maximum(total.sum(1, keepdims=True), 1)
        title = "Share of a class's pixels (row) predicted as each class (column)"
        yield heat_map(share, names, title, f"a {len(names)} by {len(names)} matrix")
        yield from written_pictures(paths, SHEETS)

    def training_batch(self, data: Data, config: TrainConfig, count: int) -> "tuple[list[Tile], str]":
        import torch

        from search.pictures.batch import spread, tiles, to_bytes
        from voctrain import segment
        from voctrain.data.palette import voc_palette
        from voctrain.loop import to_unit

        assert isinstance(config, SegmentConfig)
        data = segment.with_masks(data)
        assert data.masks is not None
        index = spread(data.train, count)
        images, masks = to_unit(torch.from_numpy(data.images[index])), torch.from_numpy(data.masks[index])
        seen, masks = segment.vary(images, masks, config, segment.class_rarity(data))
        rows = tiles(data.images[index], ["image"] * count) + tiles(to_bytes(seen), ["as trained on"] * count)
        return rows + tiles(voc_palette()[masks.numpy()], ["its mask"] * count), "what each becomes, with its mask"


TASK = Segment()
