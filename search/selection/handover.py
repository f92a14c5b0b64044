"""What `search.final` hands over: one network, or an ensemble of those that it has trained, and what that is worth."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from search.cluster.interrupt import Interrupt
from search.run_folder.files import write_arrays, write_torch
from search.run_folder.records import Candidate, Checkpoint, Details, EnsembleRecord, Expectation, Mixed, Part
from search.selection.ensemble import Mixture, mean, mixtures, simplest
from search.selection.out_of_fold import OutOfFold, mean_score, out_of_fold, pooled
from search.selection.retraining import Retraining, Retrainings
from search.selection.selection import Selection
from search.study.expected import expected_score
from search.trial.device import pick_device
from voctrain.images import to_unit
from voctrain.models.ensemble import pack_ensemble

PARTS = 5  # that the images are divided into where there are no folds
TIMED = 16  # images that the price of a prediction is measured on

Jobs = Mapping[str, Sequence[Retraining]]  # the trainings of each candidate, fold by fold and in each seed by seed


class Handover(NamedTuple):
    """What is handed over; `details` are fitted for the single network."""

    name: str
    details: Details
    expected: Expectation | None
    original_size: dict[str, float]
    ensemble: EnsembleRecord | None


def hand_over(
    selection: Selection,
    trainings: Retrainings,
    winner: Candidate,
    jobs: Jobs,
    interrupt: Interrupt,
    keep: Sequence[Retraining] = (),
) -> Handover:
    """Choose between the winner and ensembles of the candidates, and write out_of_fold.npz and the ensemble's files.

    The weights of all other trainings but `keep` are deleted.
    """
    task, paths = selection.task, selection.paths
    if task.submits is None:
        held_out = pooled(trainings, jobs[winner.name], selection.seeds)
        together = {key: np.concatenate([part[key] for part in held_out]) for key in held_out[0]}
        return Handover("single", task.calibrate(together), None, {}, None)

    said = out_of_fold(task, trainings, jobs, winner.config, selection.seeds)
    best = next(i for i, column in enumerate(said.columns) if column.networks[0] == jobs[winner.name][0])
    found = [Mixture("single", np.eye(len(said.columns))[best], said.columns[best].probabilities.astype(np.float32))]
    if not selection.options.single:
        found = mixtures(said.columns, best, said.score, _parts(said, selection), selection.options.max_members)
    chosen = found[simplest(found, said.score)]
    used = {job.training: job for w, c in zip(chosen.weights, said.columns, strict=True) if w for job in c.networks}
    used |= {job.training: job for job in said.columns[best].networks}
    trainings.forget(used.values())
    trainings.run(list(used.values()), interrupt)
    _write_out_of_fold(selection, said, chosen)
    networks = _networks(selection, trainings, said, chosen)
    original = _original_size(selection, networks)
    ensemble = None
    if chosen.name == "single":
        for file in (paths.ensemble, paths.ensemble_record):
            paths.drop(file)
    else:
        ensemble = _write_ensemble(selection, said, found, chosen, networks)
    needed = used.keys() | {job.training for job in keep}
    trainings.drop_weights(job for own in jobs.values() for job in own if job.training not in needed)
    expected = _expectation(selection, said, jobs, found, chosen) if len(selection.folds) > 1 else None
    return Handover(chosen.name, task.calibrate(said.of(found[0].probabilities)), expected, original, ensemble)


def _parts(said: OutOfFold, selection: Selection) -> np.ndarray:
    """The part (N,) of each image, for fitting the weights of an ensemble on others."""
    if len(selection.folds) > 1:
        return said.fold
    return np.random.default_rng(0).permutation(len(said.ids)) % PARTS


class Network(NamedTuple):
    """A network of what is handed over, with its weights among those of its fold, which sum to 1."""

    name: str
    fold: int  # the index of its fold
    saved: Checkpoint
    plain: float
    mirrored: float


def _networks(selection: Selection, trainings: Retrainings, said: OutOfFold, chosen: Mixture) -> list[Network]:
    """The networks, those of the heaviest configuration first."""
    weights: dict[str, list[float]] = {}
    jobs: dict[str, Sequence[Retraining]] = {}
    for column, weight in zip(said.columns, chosen.weights, strict=True):
        weights.setdefault(column.name, [0.0, 0.0])[column.mirrored] = float(weight)
        jobs[column.name] = column.networks
    return [
        Network(job.name, fold, trainings.weights(job), *weights[name])
        for name in sorted(weights, key=lambda name: -sum(weights[name]))
        if sum(weights[name])
        for fold, job in enumerate(jobs[name])
    ]


def _packed(networks: Sequence[Network]) -> Checkpoint:
    total = sum(network.plain + network.mirrored for network in networks)
    return pack_ensemble([(n.name, n.saved, n.plain / total, n.mirrored / total) for n in networks])


def _original_size(selection: Selection, networks: Sequence[Network]) -> dict[str, float]:
    """The metrics at the images' original sizes, each image predicted by the networks that never saw it."""
    parts = []
    for fold, data in enumerate(selection.parts()):
        parts.append(selection.task.at_original_size(_packed([n for n in networks if n.fold == fold]), data))
        if not parts[0]:
            return {}
    return selection.task.metrics({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def _write_ensemble(
    selection: Selection, said: OutOfFold, found: Sequence[Mixture], chosen: Mixture, networks: Sequence[Network]
) -> EnsembleRecord:
    """Write ensemble.pt and ensemble.json."""
    task, rows = selection.task, np.arange(len(said.ids))
    saved, alone = _packed(networks), networks[0].saved
    prices = {"single": _milliseconds(selection, alone), chosen.name: _milliseconds(selection, saved)}
    scores = {mixture.name: said.score(mixture.probabilities, rows)(slice(None)) for mixture in found}
    record = EnsembleRecord(
        chosen.name,
        [
            Mixed(mixture.name, scores[mixture.name], _count(said, mixture.weights), prices.get(mixture.name))
            for mixture in found
        ],
        _contributions(said, chosen.weights),
        task.calibrate(said.of(chosen.probabilities)),
    )
    told = {"score": scores[chosen.name], "standard_error": None}
    told |= {"metrics": task.metrics(said.of(chosen.probabilities))}
    write_torch(selection.paths.ensemble, saved | record.details | told)
    record.write(selection.paths)
    return record


def _count(said: OutOfFold, weights: np.ndarray) -> int:
    """The number of networks with a weight."""
    used = [column for column, weight in zip(said.columns, weights, strict=True) if weight]
    return len({job.training for column in used for job in column.networks})


def _contributions(said: OutOfFold, weights: np.ndarray) -> list[Part]:
    """What each configuration and seed weighs, and what the score loses if the others share its weight."""
    rows, names = np.arange(len(said.ids)), np.array([column.name for column in said.columns])
    whole = said.score(mean(said.columns, weights), rows)(slice(None))
    parts = []
    for name in dict.fromkeys(names.tolist()):
        own = np.flatnonzero(names == name)
        plain, mirrored = weights[own].tolist()
        rest = np.where(names == name, 0, weights)
        if plain + mirrored and rest.any():
            without = said.score(mean(said.columns, rest / rest.sum()), rows)(slice(None))
        else:
            without = 0.0
        if plain + mirrored:
            networks = [job.name for job in said.columns[own[0]].networks]
            parts.append(Part(name, plain, mirrored, whole - without, networks))
    return parts


def _milliseconds(selection: Selection, saved: Checkpoint) -> float:
    """How long a prediction takes per image, on this device."""
    module: Any = selection.task.module
    device = pick_device()
    model, _ = module.restore(saved, device=device)
    images = to_unit(torch.from_numpy(selection.data.images[:TIMED])).to(device)
    with torch.inference_mode():
        model(images)
        started = time.perf_counter()
        model(images).sum().item()  # waits for the device
    return 1000 * (time.perf_counter() - started) / len(images)


def _write_out_of_fold(selection: Selection, said: OutOfFold, chosen: Mixture) -> None:
    """The predictions of each configuration and seed, and the probabilities of what is handed over."""
    plain = [column for column in said.columns if not column.mirrored]
    each = [selection.task.predictions(said.truth, column.probabilities) for column in plain]
    arrays = {key: np.stack([one[key] for one in each]) for key in each[0]}
    if "y_true" in arrays:
        arrays["y_true"] = said.truth  # the same for all
    names = np.array([column.name for column in plain])
    together = {"ids": said.ids, "names": names, "truth": said.truth, "probabilities": chosen.probabilities}
    write_arrays(selection.paths.out_of_fold, together | arrays)


def _expectation(
    selection: Selection, said: OutOfFold, jobs: Jobs, found: Sequence[Mixture], chosen: Mixture
) -> Expectation:
    """From the images that the search has not looked at; the choice between the candidates is corrected for."""
    fresh = np.flatnonzero(~np.isin(said.ids, sorted(selection.searched)))
    defaults = [name for name in jobs if name == selection.default]
    # The default comes first: the lead is over it.
    names = [*defaults, *(name for name in jobs if name not in defaults)]
    scores = []
    for name in names:
        plain = [c for c in said.columns if not c.mirrored and c.networks[0] in jobs[name][: said.seeds]]
        scores.append(mean_score([said.score(column.probabilities[fresh], fresh) for column in plain]))
    best = expected_score(scores, len(fresh), unseen=len(selection.data.test_ids) or None)
    whole = best
    if chosen.name != "single":
        mixed = [said.score(mixture.probabilities[fresh], fresh) for mixture in found]
        whole = expected_score([*scores, *mixed], len(fresh), unseen=len(selection.data.test_ids) or None)
    lead = best.lead if defaults and best.chosen else None
    return Expectation(
        score=whole.score.value,
        low=whole.score.low,
        high=whole.score.high,
        unseen=len(selection.data.test_ids) or None,
        images=len(fresh),
        naive=whole.naive,
        lead=None if lead is None else lead.value,
        lead_low=None if lead is None else lead.low,
        lead_high=None if lead is None else lead.high,
        is_overtuned=lead is not None and not best.is_distinguishable,
    )
