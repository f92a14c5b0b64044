"""Semantic segmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.reporter import Reporter
from search.result_options import PredictOptions
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, Checkpoint, Configuration, Details, RunRecord
from search.tasks import Baseline, Batch, Job, Predictions, Predictor, Score
from search.tasks.pretrained import PretrainedTask
from search.tasks.script import Script
from voctrain.config import SegmentConfig, TrainConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from search.pictures.blocks import Block, Table
    from voctrain.contact_sheet import Tile
    from voctrain.data import Data
    from voctrain.label_audit import Doubts
    from voctrain.self_training import Unlabeled

SHEETS = {
    "best": "Best masks, by Dice",
    "worst": "Worst masks, by Dice",
    "classes": "For each class, the image that contains most of it",
}


class Segment(PretrainedTask):
    """A label map per image."""

    name = "segment"
    config = SegmentConfig
    submits = "masks"
    predicted = "masks"
    averages = ("flip", "scales")
    flips = False  # a mask has no label to flip
    doubt = "The doubt is the part of the image in which mask and prediction disagree about the class, times 1 - Dice."
    conclusion = "pictures/classes.png"

    def baseline(self, data: Data, fields: Configuration) -> Baseline:
        """A linear probe of a pretrained encoder; without any, background everywhere."""
        from search.trial.device import pick_device
        from voctrain import segment
        from voctrain.metrics.segmentation import all_background
        from voctrain.models.decoders import LINEAR, split_name

        data = segment.with_masks(data)
        assert data.masks is not None
        decoded = split_name(fields.get("architecture", ""))
        if fields.get("weights", "none") != "none" and decoded is not None:
            fixed = {name: fields[name] for name in ("weights", "image_size")}
            config = SegmentConfig(architecture=f"{LINEAR}/{decoded[1]}", **fixed)
            with suppress(ValueError):  # weights of a whole segmenter
                metrics = segment.probe_metrics(config, data, device=pick_device())
                return Baseline(f"linear probe of {decoded[1]}", metrics)
        metrics = all_background((data.masks[i] for i in data.val), 1 + len(data.classes))
        return Baseline("all background", metrics)

    def describe(self, predictions: Predictions, saved: Checkpoint) -> Details:
        import numpy as np

        from voctrain.metrics.segmentation import iou

        total = predictions["confusion"].sum(0)
        by_class = zip(("background", *saved["classes"]), iou(total), strict=True)
        return {"iou": {name: None if np.isnan(v) else float(v) for name, v in by_class}, "confusion": total.tolist()}

    def doubts(self, out_of_fold: Predictions) -> Doubts:
        from voctrain.label_audit import doubtful_masks

        return doubtful_masks(out_of_fold["confusion"])

    def rescore(self, predictions: Predictions, config: Configuration) -> Score:
        from voctrain.metrics.segmentation import mask_metrics

        return lambda rows: mask_metrics(predictions["confusion"][rows])[self.metric]

    def held_out(self, saved: Checkpoint, data: Data) -> Predictions:
        from search.tasks.segment_grid import held_out

        return held_out(saved, data)

    def at_original_size(self, saved: Checkpoint, data: Data) -> Predictions:
        from search.trial.device import pick_device
        from voctrain import segment
        from voctrain.data import original_masks
        from voctrain.metrics.segmentation import score_maps

        device = pick_device()
        model, config = segment.restore(saved, device=device)
        data = segment.with_masks(data)
        original = {"sizes": data.sizes[data.val], "resize": data.resize}
        maps = segment.predict(model, data.images, config, index=data.val, device=device, **original)
        truths = original_masks(data, [data.ids[i] for i in data.val])
        return score_maps(truths, maps, 1 + len(data.classes))[1]

    def predictions(self, truth: np.ndarray, probabilities: np.ndarray) -> Predictions:
        import torch

        from voctrain.metrics.segmentation import confusion, mask_dice

        truths = torch.from_numpy(truth)[:, None]  # a map of one row
        maps = torch.from_numpy(probabilities).argmax(1)[:, None]
        counts = confusion(truths, maps, probabilities.shape[1])
        return {"confusion": counts.int().numpy(), "dice": mask_dice(truths, maps).float().numpy()}

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        from voctrain.metrics.segmentation import mask_metrics

        return {**mask_metrics(predictions["confusion"]), "val_dice": float(predictions["dice"].mean())}

    def encoder(self, architecture: str) -> str:
        """fpn/resnet18 is built on timm's, fpn_resnet18 and fcn_resnet18 on torchvision's."""
        from voctrain.models.decoders import split_name
        from voctrain.models.timm_networks import PREFIX

        decoded = split_name(architecture)
        return architecture.partition("_")[2] if decoded is None else PREFIX + decoded[1]

    def class_table(self, predictions: Sequence[Predictions], saved: Checkpoint) -> Table:
        import numpy as np

        from search.pictures.blocks import Table

        details = [self.describe(each, saved)["iou"] for each in predictions]
        rows = []
        for name in details[0]:
            known = [iou[name] for iou in details if iou[name] is not None]
            rows.append((name, float(np.mean(known)) if known else None))
        return Table(("class", "IoU"), rows, "Means over the seeds' best epochs")

    def pseudo_labeled(self, data: Data, unlabeled: Unlabeled, teachers: Sequence[Checkpoint]) -> Data:
        import numpy as np

        from search.trial.device import pick_device
        from voctrain import segment
        from voctrain.self_training import believed_maps, least_confidence, mean_probabilities, with_pseudo_labels

        device = pick_device()
        models = [segment.restore(saved, device=device) for saved in teachers]

        def maps(images: np.ndarray, index: np.ndarray | None = None) -> Iterator[Tensor]:
            options: dict[str, Any] = {"index": index, "device": device, "flip": True}
            return mean_probabilities([segment.predict_logits(m, images, config, **options) for m, config in models])

        known, num_classes = segment.with_masks(data), 1 + len(data.classes)
        assert known.masks is not None
        truths = (known.masks[i] for i in known.val)
        least = least_confidence(maps(known.images, known.val), truths, num_classes)
        sides = [part.shape[1] for part in (data.masks, data.detail_masks) if part is not None]
        masks, *detail = (np.stack([*believed_maps(maps(unlabeled.images), least, side)]) for side in sides)
        labels = np.stack([[(mask == c).any() for c in range(1, num_classes)] for mask in masks])
        more = {"masks": masks, "detail_masks": detail[0] if detail else None}
        return with_pseudo_labels(data, unlabeled, labels.astype(np.uint8), **more)

    def label_maps(
        self, saved: Checkpoint, *, flip: bool, scales: Sequence[float]
    ) -> Callable[..., Iterator[np.ndarray]]:
        """A function of images, `sizes` and `log_prior` that yields label maps, see `voctrain.segment.predict`."""
        from search.trial.device import pick_device
        from voctrain import segment

        device = pick_device()
        model, config = segment.restore(saved, device=device)
        resize = saved.get("resize", "squash")
        return partial(segment.predict, model, config=config, resize=resize, flip=flip, scales=scales, device=device)

    @contextmanager
    def predictor(self, saved: Checkpoint, out: Path, options: PredictOptions) -> Iterator[Predictor]:
        """A mask for each image, and overlays.png with some of them."""
        from search.pictures.masks import overlaid, write_mask, write_overlays
        from voctrain.data.image_files import read_image

        predict = self.label_maps(saved, flip=options.flip, scales=options.scales)
        tiles: dict[str, Tile | None] = {}  # by name, in the order of the images

        def write(file: Path, name: str, label_map: np.ndarray) -> None:
            write_mask(out / self.predicted / f"{name}.png", label_map)
            if name in tiles:
                tiles[name] = overlaid(read_image(file), label_map, name, saved["classes"])

        def predicted(batch: Batch) -> Iterator[Job]:
            tiles.update(dict.fromkeys(name for name in batch.names if name in batch.shown))
            for row in zip(batch.files, batch.names, predict(batch.images, sizes=batch.sizes), strict=True):
                yield partial(write, *row)

        yield predicted
        if pictures := [tile for tile in tiles.values() if tile is not None]:
            write_overlays(out / "overlays.png", pictures, saved["classes"])

    def dice_by_prior(
        self,
        saved: Checkpoint,
        data: Data,
        ids: Sequence[str],
        log_priors: np.ndarray,
        *,
        flip: bool,
        scales: Sequence[float],
    ) -> np.ndarray:
        """Dice at the original sizes with each of several priors: (N, priors, 1 + C) → (priors, N)."""
        import numpy as np
        import torch

        from search.trial.device import pick_device
        from voctrain import segment
        from voctrain.data import original_masks
        from voctrain.metrics.segmentation import mask_dice

        device = pick_device()
        model, config = segment.restore(saved, device=device)
        numbers = {name: i for i, name in enumerate(data.ids)}
        averaged = {"index": np.array([numbers[name] for name in ids]), "flip": flip, "scales": scales}
        logits = segment.predict_logits(model, data.images, config, **averaged, device=device)
        dice = []
        for image, truth, priors in zip(logits, original_masks(data, ids), log_priors, strict=True):
            maps = np.stack([segment.label_map(image, truth.shape, prior, data.resize) for prior in priors])
            truths = torch.from_numpy(truth).expand(len(maps), -1, -1)
            dice.append(mask_dice(truths, torch.from_numpy(maps)).tolist())
        return np.array(dice).T

    def conclude(self, paths: RunPaths, record: RunRecord, saved: Checkpoint, data: Data, reporter: Reporter) -> None:
        from search.pictures.masks import write_pictures
        from search.trial.device import pick_device
        from voctrain import segment

        device = pick_device()
        model, config = segment.restore(saved, device=device)
        predict = partial(segment.predict, model, data.images, config, device=device)
        write_pictures(paths.pictures, segment.with_masks(data), lambda index: predict(index=index))

    def evidence(self, paths: RunPaths, best: BestRecord, data: Data | None) -> Iterator[Block]:
        """IoU of each class, confusion, and the sheets of masks."""
        import numpy as np

        from search.pictures.blocks import Table
        from search.pictures.figures import heat_map, written_pictures

        names = list(best.details["iou"])
        yield Table(("class", "IoU"), list(best.details["iou"].items()), "Classes on the validation images")
        total = np.array(best.details["confusion"], float)
        share = total / np.maximum(total.sum(1, keepdims=True), 1)
        title = "Share of a class's pixels (row) predicted as each class (column)"
        yield heat_map(share, names, title, f"a {len(names)} by {len(names)} matrix")
        yield from written_pictures(paths, SHEETS)

    def script(self, config: TrainConfig) -> Script:
        from search.tasks.segment_script import script

        assert isinstance(config, SegmentConfig)
        return script(config)

    def training_batch(self, data: Data, config: TrainConfig, count: int) -> tuple[list[Tile], str]:
        import torch

        from search.pictures.batch import spread, tiles, to_bytes
        from voctrain import segment
        from voctrain.data.palette import voc_palette
        from voctrain.images import to_unit, training_arrays

        assert isinstance(config, SegmentConfig)
        data = segment.with_masks(data)
        assert data.masks is not None
        index = spread(data.train, count)
        images, masks = training_arrays(data, config)
        assert masks is not None
        images, masks = to_unit(torch.from_numpy(images[index])), torch.from_numpy(masks[index])
        seen, masks = segment.vary(images, masks, config, segment.class_rarity(data))
        rows = tiles(data.images[index], ["image"] * count) + tiles(to_bytes(seen), ["as trained on"] * count)
        return rows + tiles(voc_palette()[masks.numpy()], ["its mask"] * count), "what each becomes, with its mask"


TASK = Segment()
