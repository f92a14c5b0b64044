"""The best generator of a run beside other attacks, as a table and as pictures."""

import csv
import dataclasses
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.pictures.attacks import front, triptychs
from search.run_folder.files import replace, write_json
from search.run_folder.paths import RunPaths
from search.run_folder.records import Checkpoint
from search.study.bootstrap import Estimate, paired
from search.study.journal import read_study
from search.study.trials import started_trials
from voctrain import attack
from voctrain.attack import AttackEvaluator, perturbations, training_images
from voctrain.attack.baselines import BATCH, budget_eps, fgsm, pgd, random_sign, seeded, uniform_noise, universal
from voctrain.attack.objective import Objective
from voctrain.attack.visibility import contrast_masking
from voctrain.config import AttackConfig
from voctrain.data import Data
from voctrain.device_array import DeviceArray
from voctrain.images import to_unit
from voctrain.seeding import seed_epoch

Row = dict[str, Any]  # one of attacks.csv, by column

GENERATOR = "generator"
MASKING = 0.5  # power of contrast masking for PGD if the generator has none: that of the space's masked recipe
ANSWERS = ("score", "f1_macro", "f1_micro", "mAP", "flip_rate", "empty", "labels", "confidence", "collateral", "delta")
VISIBILITY = ("agreement", "ssim", "psnr", "linf", "l2", "factor")
LEAD = ("ahead", "ahead_low", "ahead_high")  # of the generator, with its interval
COLUMNS = ("attack", *ANSWERS, *VISIBILITY, "ms_per_image", *LEAD)


def compare_attacks(paths: RunPaths, saved: Checkpoint, data: Data, *, transfer: str | None) -> list[str]:
    """Write attacks.csv, attacks.json and pictures/ of a run; return a line for each attack.

    transfer: the checkpoint of a second victim.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator, config = attack.restore(saved, device=device)
    evaluator = AttackEvaluator(config, data, device)
    rows, answers = [], {}
    for name, change, seconds in attacks(evaluator, generator, config, data):
        metrics, predictions = evaluator(change)
        answers[name] = predictions
        rows.append({"attack": name, "ms_per_image": 1000 * seconds / len(evaluator.images), **_plain(metrics)})
    first = evaluator.rescored(answers[GENERATOR])
    for row in rows[1:]:
        lead = paired(first, evaluator.rescored(answers[row["attack"]]), len(evaluator.images))
        row |= dict(zip(LEAD, lead, strict=True))
    if transfer is not None:
        change = rows[0]["factor"] * perturbations(generator, evaluator.images, config)
        rows.append(_transferred(change, transfer, config, data))
    write_json(paths.folder / "attacks.json", rows)
    replace(paths.folder / "attacks.csv", lambda file: file.write_text(_table(rows)))

    images = data.images[data.val]
    attacked = attack.predict(generator, images, config, factor=rows[0]["factor"], device=device)
    after = answers[GENERATOR]["prob_attacked"]
    picture = triptychs(evaluator.ids, evaluator.victim.classes, images, attacked, evaluator.clean, after)
    replace(paths.pictures / "attacks.png", lambda file: picture.save(file, format="png"))
    front(paths.pictures / "front.png", started_trials(read_study(paths.journal)), config.min_ssim)
    return [_line(row) for row in rows]


def attacks(
    evaluator: AttackEvaluator, generator: nn.Module, config: AttackConfig, data: Data
) -> Iterator[tuple[str, Tensor, float]]:
    """The generator and the baselines: name, perturbations of the evaluated images, and the seconds to make them."""
    images = evaluator.images
    eps, masking = budget_eps(evaluator), contrast_masking(images) ** (config.contrast_masking or MASKING)
    ball = torch.full_like(images, eps)
    masked = masking * budget_eps(evaluator, lambda images, eps: random_sign(images, eps * masking))
    objective: Objective = evaluator  # of gradient steps
    if config.fake_label is not None:  # of all fake labels they reach 0 best
        objective = Objective(dataclasses.replace(config, fake_label=0.0), images.device)

    def timed(make: Callable[[], Tensor]) -> tuple[Tensor, float]:
        started = time.monotonic()
        return make(), time.monotonic() - started

    def by_gradient(make: Callable[..., Tensor], ball: Tensor) -> Tensor:
        parts = zip(images.split(BATCH), ball.split(BATCH), strict=True)
        return torch.cat([seeded(make, batch, eps, objective.losses(batch)) for batch, eps in parts])

    seed_epoch(config.seed, 0)
    untrained = attack.new_model(config, data).to(images.device).eval()
    for each in (generator, untrained):
        perturbations(each, images[:1], config)  # loads kernels, which is not timed
    change, seconds = timed(lambda: perturbations(generator, images, config))
    yield GENERATOR, change, seconds
    # A generator that answers the same for every image loses nothing by shuffling.
    yield "generator, shuffled", change.roll(1, 0), seconds
    yield "untrained generator", *timed(lambda: perturbations(untrained, images, config))
    yield "uniform noise", *timed(lambda: seeded(uniform_noise, images, budget_eps(evaluator, uniform_noise)))
    yield "random sign", *timed(lambda: seeded(random_sign, images, eps))
    pool, index = training_images(data)
    known = to_unit(DeviceArray(pool, images.device)[torch.tensor(index)])
    yield "universal", *timed(lambda: seeded(universal, known, eps, objective.losses))
    yield "FGSM", *timed(lambda: by_gradient(fgsm, ball))
    # PGD ends inside its ball as often as on its surface, and is less visible than signs of the same eps.
    yield "PGD-40", *timed(lambda: by_gradient(pgd, 1.5 * ball))
    # The fair competitor of a generator with contrast masking: its ball is wider where texture hides more.
    yield "PGD-40, masked", *timed(lambda: by_gradient(pgd, 1.5 * masked))


def lead_of(row: Mapping[str, Any]) -> str | None:
    """The lead of the generator over an attack, with its interval; None for the generator itself."""
    return Estimate(*(row[key] for key in LEAD)).lead() if LEAD[0] in row else None


def _transferred(change: Tensor, victim: str, config: AttackConfig, data: Data) -> Row:
    """The row of the generator's perturbations, as they were evaluated, on another victim."""
    other = AttackEvaluator(AttackConfig.from_dict(config.to_dict() | {"victim": victim}), data, change.device)
    return {"attack": f"generator, on {Path(victim).parent.name}", **other.at(change)[0]}


def _plain(metrics: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("val_"): value for name, value in metrics.items()}


def _table(rows: list[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list[str](COLUMNS), extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _line(row: Row) -> str:
    text = f"{row['attack']:>20}: score {row['score']:.4f}, F1 {row['f1_macro']:.4f}, SSIM {row['ssim']:.4f}"
    lead = lead_of(row)
    return text if lead is None else f"{text}; lead of the generator {lead}"
