"""The work of `search.submit`: predict the test images with the models of one or two runs, and write the CSV."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.run_folder.files import read_torch, replace
from search.run_folder.records import read_run
from search.running.live import reading, say
from search.submission.gate import STRENGTHS, fit_strength, log_prior
from search.trial.training import pick_device
from voctrain import classify, segment
from voctrain.data import Data, load, original_masks
from voctrain.data.class_names import contrast
from voctrain.metrics.classification import decide
from voctrain.metrics.segmentation import mask_dice
from voctrain.submission import write_submission

_MODEL = {"config", "classes", "image_size", "model"}
NEEDED = {"classify": {*_MODEL, "thresholds"}, "segment": _MODEL}  # in a checkpoint


def submit(arguments: argparse.Namespace) -> str:
    """Predict the test images, write the CSV and say what was written. Raises `ValueError` for a user's mistake."""
    out = Path(arguments.out)
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"--out must be a file in an existing folder, but got {out}")
    given = {task: path for task in NEEDED if (path := getattr(arguments, task)) is not None}
    checkpoints = {task: load_checkpoint(Path(path), task) for task, path in given.items()}
    sets = {task: _test_set(arguments.data, file, saved) for task, (file, saved) in checkpoints.items()}

    if arguments.gate:
        say("fitting the gate on the validation images")
    gate = _gate(arguments) if arguments.gate else None
    said = []
    probabilities = decided = prior = maps = None
    if "classify" in given:
        file, saved = checkpoints["classify"]
        say(f"predicting the classes of {len(sets['classify'].test_ids)} images")
        probabilities = _probabilities(saved, sets["classify"].test_images, arguments)
        decided = decide(probabilities, np.array(saved["thresholds"]))
        said.append(f"{decided.sum(1).mean():.2f} classes an image, by {file}")
    if gate is not None:
        strength, dice, without = gate
        prior = log_prior(probabilities, strength)
        said.append(f"gate of strength {strength:g} (Dice of held-out masks {dice:.4f}, without it {without:.4f})")
    if "segment" in given:
        file, saved = checkpoints["segment"]
        data, (model, config) = sets["segment"], segment.restore(saved, device=pick_device(1))
        options = {"sizes": data.test_sizes, "log_prior": prior, **_averaging(arguments)}
        maps = segment.predict(model, data.test_images, config, **options)
        said.append(f"masks by {file}")
    else:
        said.append("no segmentation run: its rows are empty")
    ids = next(iter(sets.values())).test_ids
    if maps is not None:
        say(f"predicting the masks of {len(ids)} images")
    replace(out, lambda path: write_submission(path, _rows(ids, decided, maps)))
    return f"{out}: {len(ids)} images, {'; '.join(said)}"


def load_checkpoint(path: Path, task: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a run, final.pt or else best.pt, or of a file; with where it was.

    Raises `ValueError` where there is none, or it is of another task.
    """
    candidates = [path / "final" / "final.pt", path / "best.pt"] if path.is_dir() else [path]
    file = next((f for f in candidates if f.is_file()), None)
    if file is None:
        raise ValueError(
            f"{path} holds neither final/final.pt nor best.pt: give a run that has scored, or a checkpoint"
        )
    saved = read_torch(file)
    found = saved.get("task") if isinstance(saved, dict) else None
    if found is not None and found != task:
        raise ValueError(f"--{task} takes a model of task {task}, but {file} is of task {found}: give a {task} run")
    if found is None or not saved.keys() >= NEEDED[task]:
        raise ValueError(f"{file} is not a checkpoint of ours: give a run, its best.pt or its final.pt")
    return file, saved


def _test_set(path: str, file: Path, saved: dict[str, Any]) -> Data:
    """The data at the size of a checkpoint's model, with test images and of its classes."""
    data = load(path, image_size=saved["image_size"], progress=reading(say))
    if tuple(saved["classes"]) != data.classes:
        model, those = contrast(saved["classes"], data.classes)
        raise ValueError(
            f"a model must know the classes of --data, but {file} knows {model}, while {path} has {those}: give the set"
            " that it was trained on, or a run on this set"
        )
    if not data.test_ids:
        raise ValueError(f"{path} has no test images to submit: give --data a set with a test part")
    return data


def _probabilities(saved: dict[str, Any], images: np.ndarray, arguments: argparse.Namespace) -> np.ndarray:
    device = pick_device(1)
    model, config = classify.restore(saved, device=device)
    return classify.predict(model, images, config, device=device, flip=arguments.flip)


def _averaging(arguments: argparse.Namespace) -> dict[str, Any]:
    """How the logits of masks are predicted."""
    return {"flip": arguments.flip, "scales": arguments.scales, "device": pick_device(1)}


def _gate(arguments: argparse.Namespace) -> tuple[float, float, float]:
    """The strength of the gate, as `fit_strength`, by the best models of both runs: none of them saw validation."""
    runs = {task: Path(getattr(arguments, task)) for task in ("classify", "segment")}
    facts = {task: read_run(run) for task, run in runs.items()}
    missing = [
        run / name for run in runs.values() for name in ("best.pt", "val_predictions.npz") if not (run / name).is_file()
    ]
    if missing:
        raise ValueError(f"--gate needs two runs with best.pt and val_predictions.npz, but there is no {missing[0]}")
    with np.load(runs["classify"] / "val_predictions.npz") as file:
        seen = dict(zip(file["ids"].tolist(), file["y_prob"], strict=True))
    split = facts["segment"]["split"]
    ids = [name for name in split["val"] if name in seen]
    if not ids:
        raise ValueError("--gate needs two runs on one split, but they share no validation image: search them alike")
    _, saved = load_checkpoint(runs["segment"] / "best.pt", "segment")
    use_val = facts["segment"]["arguments"]["use_val"]
    data = load(arguments.data, image_size=saved["image_size"], use_val=use_val).with_split(
        split["train"], split["val"]
    )
    index = np.array([data.ids.index(name) for name in ids])
    probabilities = np.stack([seen[name] for name in ids])
    priors = np.stack([log_prior(probabilities, strength) for strength in STRENGTHS], axis=1)  # (N, strengths, 1 + C)
    model, config = segment.restore(saved, device=pick_device(1))
    logits = segment.predict_logits(model, data.images[index], config, **_averaging(arguments))
    dice = [
        _dice_of_each(image, truth, of_image)
        for image, truth, of_image in zip(logits, original_masks(data, ids), priors, strict=True)
    ]
    return fit_strength(np.array(dice).T)


def _dice_of_each(logits: Tensor, truth: np.ndarray, priors: np.ndarray) -> list[float]:
    """Dice of an image's label map with each of these priors."""
    maps = np.stack([segment.label_map(logits, truth.shape, prior) for prior in priors])
    return mask_dice(torch.from_numpy(truth).expand(len(maps), -1, -1), torch.from_numpy(maps)).tolist()


def _rows(
    ids: tuple[str, ...], decided: np.ndarray | None, maps: Iterator[np.ndarray] | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """What `write_submission` takes; without decided classes, an image's are those of its label map."""
    for i, name in enumerate(ids):
        label_map = None if maps is None else next(maps)
        yield name, np.isin(np.arange(1, 21), label_map) if decided is None else decided[i], label_map
