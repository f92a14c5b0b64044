"""What the best model does, by task, from what a run's folder holds."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from search.pictures.blocks import BLUE, ORANGE, Block, Figure, Table, Text, canvas, drawn, pictured
from search.pictures.sheet import Tile, sheet
from search.run_folder.files import read_json
from search.study.bootstrap import Estimate
from search.tasks.attack_comparison import LEAD
from voctrain.data import Data
from voctrain.metrics.classification import average_precision, decide, row_dice

SHOWN = 8  # best and worst images
GOAL_HEADS = {"hide": ("collateral", "delta"), "add": ("collateral", "delta"), "privacy": ("agreement",)}
CURVES = ("lr", "loss", "accuracy", "precision", "recall", "f1", "f1_macro", "mAP", "mIoU", "dice", "score", "ssim")


def epochs_of(log: Path) -> dict[int, dict[str, float]]:
    """What a trial's log says of each of its epochs."""
    epochs: dict[int, dict[str, float]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        if found := re.match(r"\S+ \S+ epoch (\d+), (.+)", line):
            with suppress(ValueError):  # a line cut off by a full disk
                pairs = (part.rsplit(" ", 1) for part in found[2].split(", "))
                epochs[int(found[1])] = {name: float(value) for name, value in pairs}
    return epochs


def curves(log: Path) -> Iterator[Figure]:
    """Learning rate, loss and metrics of a trial by epoch, of training and of validation, from its log."""
    epochs = epochs_of(log)
    for name in CURVES if len(epochs) > 1 else ():
        figure = canvas(height=2.4)
        axes = figure.subplots()
        for prefix, label, color in (("train_", "training", BLUE), ("val_", "validation", ORANGE), ("", name, BLUE)):
            known = {e: m[prefix + name] for e, m in sorted(epochs.items()) if prefix + name in m}
            if known:
                axes.plot(known.keys(), known.values(), color=color, label=label)
        if not axes.lines:
            continue
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(fontsize=8)
        yield drawn(figure, f"{name} of the best trial", f"{name} over {len(epochs)} epochs")


def of_classify(run: Path, best: Mapping[str, Any], data: Data | None) -> Iterator[Block]:
    """Classes with their AP and thresholds, confusion, best and worst images."""
    predictions = predictions_of(run)
    if predictions is None:
        yield Text("val_predictions.npz is missing: nothing can be said of single classes and images.")
        return
    classes = list(best["report"])[: predictions["y_true"].shape[1]]
    precision = average_precision(predictions["y_true"], predictions["y_prob"])
    rows = []
    for c, (name, matrix) in enumerate(zip(classes, best["multilabel_confusion"], strict=True)):
        (tn, fp), (fn, tp) = matrix
        report = best["report"][name]
        values = (report["precision"], report["recall"], report["f1-score"])
        positives = tp + fn
        rows.append(
            (name, positives, precision[c] if positives else None, best["thresholds"][c], *values, tp, fp, fn, tn)
        )
    heads = ("class", "images", "AP", "threshold", "precision", "recall", "F1")
    yield Table((*heads, "true pos.", "false pos.", "false neg.", "true neg."), rows, "Classes of validation")
    yield Text("The thresholds were fitted on these same images; only the AP does without them.")
    yield heat(
        np.array(best["co_confusion"]),
        classes,
        "Images with a class (row) in which a class is predicted (column)",
        "a 20 by 20 matrix: true classes against predicted ones",
        counts=True,
    )
    if data is None:
        return
    decided = decide(predictions["y_prob"], np.array(best["thresholds"]))
    quality = row_dice(predictions["y_true"], decided)
    index = {name: i for i, name in enumerate(data.ids)}
    order = np.argsort(-quality, kind="stable")

    def lines(i: int) -> tuple[str, str]:
        named = (", ".join(np.array(classes)[np.asarray(row, bool)]) for row in (predictions["y_true"][i], decided[i]))
        true, guessed = named
        return f"true: {true}", f"said: {guessed}"

    for title, chosen in (("Best", order[:SHOWN]), ("Worst", order[::-1][:SHOWN])):
        tiles = [Tile((data.images[index[predictions["ids"][i]]],), lines(i)) for i in chosen]
        alt = "; ".join(f"{predictions['ids'][i]}, {', '.join(lines(i))}" for i in chosen)
        yield pictured(sheet(tiles, across=4), f"{title} validation images, by Dice of their classes", alt, wide=True)


def of_segment(run: Path, best: Mapping[str, Any], data: Data | None) -> Iterator[Block]:
    """IoU of each class, confusion, and the pictures that the run drew."""
    rows = [(name, value) for name, value in best["iou"].items()]
    yield Table(("class", "IoU"), rows, "Classes of validation")
    total = np.array(best["confusion"], float)
    share = total / np.maximum(total.sum(1, keepdims=True), 1)
    names = list(best["iou"])
    yield heat(share, names, "Part of a class's pixels (row) given to each class (column)", "a 21 by 21 matrix")
    titles = {
        "best": "Best masks, by Dice",
        "worst": "Worst masks, by Dice",
        "classes": "Of each class, the image with most of it",
    }
    yield from _pictures(run, titles)


def of_attack(run: Path, best: Mapping[str, Any], data: Data | None) -> Iterator[Block]:
    """The table of attacks, success against visibility, and the pictures that the run drew."""
    if (attacks := read_json(run / "attacks.json")) is not None:
        goal = best["config"]["goal"].partition(":")[0]
        heads = ("attack", "score", "f1_macro", "f1_micro", "mAP", "flip_rate", *GOAL_HEADS.get(goal, ()))
        heads += ("linf", "l2", "psnr", "ssim", "factor")
        rows = []
        for row in attacks:
            lead = Estimate(*(row[key] for key in LEAD)).lead() if LEAD[0] in row else None
            rows.append([*map(row.get, heads), row.get("ms_an_image"), lead])
        yield Table(
            (*heads, "ms an image", "generator is ahead by (95 % interval)"),
            rows,
            "Attacks on the same images" + ("" if goal == "privacy" else " at equal visibility"),
        )
        if goal != "privacy":
            yield Text(
                f"Each attack was scaled by its factor, down or up, to a mean SSIM of {best['config']['min_ssim']:g}."
                " One with a higher SSIM cannot be brought there by any factor."
            )
    else:
        yield Text("The comparison with other attacks is missing: search.report makes it once the run has ended.")
    yield from _pictures(
        run,
        {
            "attacks": "Image, perturbation, attacked image, and the answers that changed most",
            "front": "Success against similarity of all trials",
        },
    )


def heat(matrix: np.ndarray, names: Sequence[str], title: str, alt: str, *, counts: bool = False) -> Figure:
    """A matrix of confusion, of parts or of counts, as colors with its numbers."""
    size = 0.42 * len(names) + 2
    figure = canvas(max(size, 5.4), max(size * 0.8, 4))
    axes = figure.subplots()
    shade = np.log1p(matrix) if counts else matrix
    axes.imshow(shade, cmap="Blues", aspect="auto")
    for i, j in np.argwhere(matrix > (0 if counts else 0.005)):
        text = f"{matrix[i, j]:.0f}" if counts else f"{100 * matrix[i, j]:.0f}"
        dark = shade[i, j] > 0.5 * shade.max()
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "#1c1f24")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    return drawn(figure, title if counts else f"{title} (%)", alt, wide=True)


def predictions_of(run: Path) -> dict[str, np.ndarray] | None:
    """What is in val_predictions.npz; None where it is missing or damaged."""
    try:
        with np.load(run / "val_predictions.npz") as arrays:
            return dict(arrays)
    except (OSError, ValueError, BadZipFile):
        return None


def _pictures(run: Path, titles: Mapping[str, str]) -> Iterator[Block]:
    for name, title in titles.items():
        file = run / "pictures" / f"{name}.png"
        if file.exists():
            with Image.open(file) as picture:
                yield pictured(picture, title, title, wide=True)
        else:
            yield Text(f"pictures/{name}.png is missing: search.report draws it once the run has ended.")


EVIDENCE: dict[str, Callable[[Path, Mapping[str, Any], Data | None], Iterator[Block]]] = {
    "classify": of_classify,
    "segment": of_segment,
    "attack": of_attack,
}
