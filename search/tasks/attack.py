"""Adversarial attack: a generator of perturbations that fools a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.command_line import fraction, option
from search.options import SearchOptions
from search.reporter import Reporter
from search.result_options import PredictOptions
from search.run_folder.files import read_json
from search.run_folder.paths import RunPaths
from search.run_folder.records import BestRecord, Checkpoint, Configuration, RunRecord
from search.tasks import Baseline, Batch, Job, Predictions, Predictor, Score, Task
from search.tasks.script import Script
from voctrain.config import AttackConfig, TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from search.pictures.blocks import Block
    from voctrain.contact_sheet import Tile
    from voctrain.data import Data

DIGITS_SIZE = 28
SHEETS = {
    "attacks": "Image, perturbation, attacked image, and the answers that changed most",
    "front": "Success against similarity of all trials",
}
GOAL_HEADS = {"hide": ("collateral", "delta"), "add": ("collateral", "delta"), "privacy": ("agreement",)}


@dataclass(frozen=True, kw_only=True)
class AttackOptions(SearchOptions):
    """The options of `search.run attack`."""

    victim: str | None = option(
        None,
        "the classifier to attack: a classification run or its best.pt",
        metavar="RUN",
        group="goal and victim",
        shown="the newest classification run in --out",
        resumable=True,
    )
    transfer: str | None = option(
        None,
        "a second classifier, on which the best attack is tried when the run ends",
        metavar="RUN",
        group="goal and victim",
        shown="none",
    )
    goal: str = option(
        "fake",
        "fake, invert, hide:CLASS, add:CLASS or privacy, see the README",
        metavar="GOAL",
        group="goal and victim",
    )
    min_ssim: float = option(
        0.85,
        "similarity to the images (SSIM) at which attacks are compared",
        parse=fraction,
        metavar="F",
        group="goal and victim",
    )
    max_ssim: float | None = option(
        None,
        "goal privacy: the similarity at which an image counts as hidden",
        parse=fraction,
        metavar="F",
        group="goal and victim",
        shown="0.5",
    )


class Attack(Task):
    """A generator, scored at equal visibility."""

    name = "attack"
    config = AttackConfig
    options = AttackOptions
    files = needed = ("victim",)
    digits = True
    worst = -1.0
    predicted = "attacked"
    conclusion = "pictures/front.png"

    def resolve(self, options: SearchOptions) -> SearchOptions:
        from search.tasks.victims import find_victim, input_of
        from voctrain.data import DIGITS

        assert isinstance(options, AttackOptions)
        victim, transfer, size, resize = options.victim, options.transfer, options.image_size, options.resize
        if options.data not in DIGITS or victim is not None:
            victim = str(find_victim(victim, options.out))
            seen = input_of(Path(victim))
            size, resize = size or seen[0], resize or seen[1]
        if transfer is not None:
            transfer = str(find_victim(transfer, options.out))
        size = size or DIGITS_SIZE
        return dataclasses.replace(options, victim=victim, transfer=transfer, image_size=size, resize=resize)

    def fixed_fields(self, options: SearchOptions, data: Data) -> Configuration:
        from search.tasks.victims import check_victims

        assert isinstance(options, AttackOptions)
        victim = check_victims(options.victim, options.transfer, data, options.image_size or DIGITS_SIZE)
        from voctrain.attack.goals import parse_goal

        parse_goal(options.goal, data.classes)
        fields = {"goal": options.goal, "min_ssim": options.min_ssim, "max_ssim": options.max_ssim}
        return {"victim": str(victim), **{name: value for name, value in fields.items() if value is not None}}

    def baseline(self, data: Data, fields: Configuration) -> Baseline:
        from voctrain.attack.baselines import random_sign_score

        return Baseline("random sign", random_sign_score(data, fields))

    def rescore(self, predictions: Predictions, config: Configuration) -> Score:
        from voctrain.attack.objective import Objective

        return Objective(AttackConfig.from_dict(config)).rescored(predictions)

    def comparable(self, record: RunRecord) -> dict[str, object]:
        assert isinstance(record.options, AttackOptions)
        goal = {"goal": record.options.goal, "min-ssim": record.options.min_ssim, "max-ssim": record.options.max_ssim}
        return {**super().comparable(record), "victim": record.digests.get("victim"), **goal}

    def conclude(self, paths: RunPaths, record: RunRecord, saved: Checkpoint, data: Data, reporter: Reporter) -> None:
        from search.tasks.attack_comparison import compare_attacks

        assert isinstance(record.options, AttackOptions)
        reporter.status("comparing the best generator with the baselines")
        for line in compare_attacks(paths, saved, data, transfer=record.options.transfer):
            reporter.result(line)

    def provenance(self, config: Configuration) -> str:
        victim = Path(config["victim"])
        return f"{super().provenance(config)} It was trained to fool {victim.parent.name}/{victim.name}."

    @contextmanager
    def predictor(self, saved: Checkpoint, out: Path, options: PredictOptions) -> Iterator[Predictor]:
        """The attacked images at their original sizes."""
        import numpy as np
        from PIL import Image

        from search.pictures.attacks import write_attacked
        from search.trial.device import pick_device
        from voctrain import attack
        from voctrain.data.image_files import read_image

        device, size, channels = pick_device(), saved["image_size"], saved["channels"]
        generator, config = attack.restore(saved, device=device)
        factor, resize = saved["metrics"].get("val_factor", 1.0), saved.get("resize", "squash")

        def write(file: Path, name: str, change: np.ndarray) -> None:
            write_attacked(out / self.predicted / f"{name}.png", read_image(file), change, resize)

        def predicted(batch: Batch) -> Iterator[Job]:
            images = batch.images
            if channels == 1:
                images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
            attacked = attack.predict(generator, images, config, factor=factor, device=device)
            for row in zip(batch.files, batch.names, attacked.astype(np.int16) - images, strict=True):
                yield partial(write, *row)

        attack.predict(generator, np.zeros((1, size, size, channels), np.uint8), config, device=device)
        yield predicted  # a generator that needs its victim has loaded it by now

    def evidence(self, paths: RunPaths, best: BestRecord, data: Data | None) -> Iterator[Block]:
        """The table of attacks, success against visibility, and the pictures."""
        from search.pictures.blocks import Table, Text
        from search.pictures.figures import written_pictures
        from search.tasks.attack_comparison import lead_of

        attacks = read_json(paths.folder / "attacks.json")
        if attacks is None:
            yield Text("The comparison with other attacks is missing: search.report makes it once the run has ended.")
        else:
            goal = str(best.config["goal"]).partition(":")[0]
            heads = ("attack", "score", "f1_macro", "f1_micro", "mAP", "flip_rate", *GOAL_HEADS.get(goal, ()))
            heads += ("linf", "l2", "psnr", "ssim", "factor")
            rows = [[*map(row.get, heads), row.get("ms_per_image"), lead_of(row)] for row in attacks]
            title = "Attacks on the same images" + ("" if goal == "privacy" else " at equal visibility")
            yield Table((*heads, "ms per image", "lead of the generator (95 % interval)"), rows, title)
            if goal != "privacy":
                yield Text(
                    f"Each attack was scaled by its factor, down or up, to a mean SSIM of {best.config['min_ssim']:g}."
                    " No factor brings an attack with a higher SSIM there."
                )
        yield from written_pictures(paths, SHEETS)

    def script(self, config: TrainConfig) -> Script:
        assert isinstance(config, AttackConfig)
        imports = {
            "voctrain.attack": "AttackEvaluator, perturbations, training_images",
            "voctrain.attack.training": "perturb",
            "voctrain.augment.transforms": "augment",
            "voctrain.device_array": "DeviceArray",
            "voctrain.images": "to_unit",
        }
        terms = ""
        if config.l2_penalty:
            terms += "\nloss = loss + config.l2_penalty * change.square().sum((1, 2, 3)).mean()"
        if config.ssim_penalty or config.max_ssim:
            imports["voctrain.attack.visibility"] = "ssim"
            terms += "\nseen = ssim(batch, batch + change).mean()"
        if config.ssim_penalty:
            terms += "\nloss = loss + config.ssim_penalty * (config.min_ssim - seen).clamp(min=0)"
        if config.max_ssim:
            imports["voctrain.attack.training"] = "HIDING, perturb"
            terms += "\nloss = loss + HIDING * (seen - config.max_ssim).clamp(min=0)"
        return Script(
            imports,
            setup="evaluator = AttackEvaluator(config, data, device)  # with the victim\n"
            "pictures, chosen = training_images(data)\n"
            "images, train = DeviceArray(pictures, device), torch.tensor(chosen)",
            draw="train[torch.randperm(len(train))]",
            loss="batch = augment(to_unit(images[index]), config)\n"
            "change = perturb(model, batch, config)\n"
            f"loss = evaluator.losses(batch)(batch + change).mean(){terms}",
            score="metrics, _ = evaluator(perturbations(evaluated, evaluator.images, config))",
        )

    def training_batch(self, data: Data, config: TrainConfig, count: int) -> tuple[list[Tile], str]:
        import torch

        from search.pictures.batch import spread, tiles, to_bytes
        from voctrain.attack import training_images
        from voctrain.augment.transforms import augment
        from voctrain.images import to_unit

        images, index = training_images(data)
        index = spread(index, count)
        seen = augment(to_unit(torch.from_numpy(images[index])), config)
        assert isinstance(seen, torch.Tensor)  # no masks, so images alone
        rows = tiles(images[index], ["image"] * count) + tiles(to_bytes(seen), ["as trained on"] * count)
        return rows, "what each becomes"


TASK = Attack()
