"""The report of a run: what was searched and found, whether it worked, what matters, and how to repeat it."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial

from search import study as studies
from search.arguments import DEFAULTS
from search.bootstrap import interval
from search.files import read_torch
from search.live import duration
from search.report import search_figures as figures
from search.report.blocks import STYLE, Block, Code, Section, Table, Text, write_page
from search.report.data_figures import augmented, class_histogram, examples
from search.report.evidence import EVIDENCE, curves
from search.report.trials import LEAST, at_bounds, distributions_of, frame_of, importances, interactions
from search.runfolder import lock, read_run
from search.searcher import StudyASHA
from search.session import typed
from search.tasks import TASKS, Task
from search.worker import trial_log
from voctrain.data import Data, load

SHOWN_TRIALS = 25  # rows of the table of trials; all are in trials.csv


def write_report(run: Path, data: Data | None = None) -> Path:
    """Write report.html into a run's folder, which may be running.

    data: of the run, where they are at hand; else they are loaded. A run that was stopped gets what it would have got
    at its end, too. Raises `ValueError` for what is not a run.
    """
    facts, trials = read_run(run), read_trials(run)
    reason = ""
    if data is None:
        data, reason = _data_of(facts)
    if data is not None:
        conclude_stopped(run, TASKS[facts["task"]], data)
    with matplotlib.rc_context(STYLE):
        write_page(run / "report.html", run.name, _sections(run, facts, trials, data, reason))
    return run / "report.html"


def conclude_stopped(run: Path, task: Task, data: Data) -> None:
    """Bring the task's tables and pictures up to the best checkpoint, unless another process drives the run."""
    best, made = run / "best.pt", run / (task.conclusion or "")
    if task.conclusion is None or not best.exists():
        return
    if made.exists() and made.stat().st_mtime >= best.stat().st_mtime:
        return
    try:
        handle = lock(run)
    except ValueError:
        return
    try:
        task.conclude(run, read_torch(best), data)
    except (ValueError, OSError):  # the victim of an attack is gone: the page says what is missing
        pass
    finally:
        os.close(handle)


def _sections(
    run: Path, facts: dict[str, Any], trials: list[FrozenTrial], data: Data | None, reason: str
) -> list[Section]:
    best = read_json(run / "best.json")
    ranked = sorted((t for t in trials if studies.score(t) is not None), key=lambda t: (-studies.score(t), t.number))
    frame = frame_of(trials)
    done = [Text("No trial has scored yet.")]
    if ranked:
        done = [*curves(run / trial_log(Path(), ranked[0].number))]
        done += EVIDENCE[facts["task"]](run, best, data) if best is not None else [Text("best.json is missing.")]
    return [
        Section("Answer", _answer(run, facts, trials, ranked, best)),
        Section("Did the search work", _search(facts, trials, ranked, frame)),
        Section("What matters", _parameters(facts, trials, ranked, frame)),
        Section("What the model does", done),
        Section("Data", _data(facts, data, reason, best)),
        Section("Trials", _trials(run, facts, trials, ranked)),
        Section("Repeat it", _repeat(run, facts)),
    ]


def _answer(
    run: Path, facts: dict[str, Any], trials: list[FrozenTrial], ranked: list[FrozenTrial], best: dict | None
) -> list[Block]:
    task, metric, data = TASKS[facts["task"]], facts["metric"], facts["data"]
    states = pd.Series([studies.state_name(t) for t in trials]).value_counts()
    epochs = sum(len(t.intermediate_values) for t in trials)
    rows = [
        ("Task", facts["task"]),
        (
            "Data",
            f"{data['path']}: {data['labelled']} labelled images, {len(facts['split']['val'])} of them validation",
        ),
        ("Budget", f"{facts['arguments']['trials']} trials of at most {facts['epochs']} epochs"),
        ("Spent", f"{epochs} epochs, {duration(facts['seconds'])} of the clock"),
        ("Trials", ", ".join(f"{n} {state}" for state, n in states.items()) or "none"),
    ]
    if ranked:
        score = f"{studies.score(ranked[0]):.4f} (trial {ranked[0].number}, epoch {studies.best_epoch(ranked[0])})"
        rows.append((f"Best {metric}", score))
        if (known := rescored(run, best)) is not None:
            low, high = interval(known[0], len(known[1]))
            whose = "" if best["trial"] == ranked[0].number else f" of trial {best['trial']}, which best.json holds"
            rows.append((f"95 % interval{whose}", f"{low:.4f} to {high:.4f}, by bootstrap over the validation images"))
    rows.append((f"{task.baseline_name.capitalize()}", f"{metric} {facts['baseline'][metric]:.4f}"))
    blocks: list[Block] = [Table((), rows)]
    if facts.get("track"):
        blocks.append(Text(f"Track: {facts['track']}."))
    if not ranked:
        return [*blocks, Text("No trial has scored yet.")]
    blocks.append(
        Text("The best of many noisy scores flatters itself: search.final says what it is worth with other seeds.")
    )
    if best is None or not (run / "best.pt").exists():
        blocks.append(Text("The checkpoint best.pt is missing: train the configuration again to use it."))
    commands = [f"python -m search.final {typed(run)}"]
    if task.submitted:
        commands.append(f"python -m search.submit --data {data['path']} --{task.name} {typed(run)}")
    blocks.append(Code("\n".join(commands)))
    return [*blocks, Table(("parameter", "value"), list(ranked[0].params.items()), "Best configuration")]


def rescored(run: Path, best: dict[str, Any] | None) -> tuple[Callable[[Any], float], list[str]] | None:
    """The best score as a function of the indices of validation images, and their ids; None where these are gone."""
    file = run / "val_predictions.npz"
    if best is None or not file.exists():
        return None
    with np.load(file) as arrays:
        predictions = dict(arrays)
    try:
        return TASKS[best["task"]].rescore(predictions, best["config"]), predictions["ids"].tolist()
    except (ValueError, OSError):  # the victim of an attack
        return None


def _search(
    facts: dict[str, Any], trials: list[FrozenTrial], ranked: list[FrozenTrial], frame: pd.DataFrame
) -> list[Block]:
    blocks: list[Block] = []
    if ranked:
        prunes = facts["arguments"]["sampler"] in studies.PRUNING_SAMPLERS
        rungs = StudyASHA(metric=facts["metric"], epochs=facts["epochs"]).rungs - {facts["epochs"]} if prunes else ()
        blocks += [
            figures.history(frame, facts["metric"]),
            figures.over_budget(frame, facts["metric"]),
            figures.learning_curves(trials, sorted(rungs), facts["metric"]),
            figures.budget(trials),
        ]
    failed = [t for t in trials if studies.state_name(t) == "failed"]
    if failed:
        rows = [
            (t.number, t.user_attrs.get(studies.ERROR, "unknown"), str(trial_log(Path(), t.number))) for t in failed
        ]
        blocks.append(Table(("trial", "reason", "log"), rows, "Failures"))
    else:
        blocks.append(Text("No trial failed."))
    return blocks


def _parameters(
    facts: dict[str, Any], trials: list[FrozenTrial], ranked: list[FrozenTrial], frame: pd.DataFrame
) -> list[Block]:
    if len(ranked) < LEAST:
        return [Text(f"With {len(ranked)} scored trials nothing can be said of parameters: it takes {LEAST}.")]
    metric, distributions = facts["metric"], distributions_of(trials)
    weights = {name: value for name, value in importances(trials).items() if name in distributions}
    names = list(weights)
    if not names:
        return [Text("No parameter was searched.")]
    blocks: list[Block] = [figures.importance(weights)]
    if bounds := at_bounds(ranked[0]):
        rows = [(name, value, bound) for name, value, bound in bounds]
        heads = ("parameter", "value", "bound")
        blocks.append(Table(heads, rows, "The best lies on a bound: the space may be too narrow there"))
    else:
        blocks.append(Text("The best configuration lies on no bound of the space."))
    blocks += figures.slices(frame, distributions, names, metric)
    blocks += figures.pairs(frame, distributions, interactions(frame, distributions, names), metric)
    return [*blocks, figures.parallel(frame, distributions, names, metric)]


def _data(facts: dict[str, Any], data: Data | None, reason: str, best: dict[str, Any] | None) -> list[Block]:
    if data is None:
        return [Text(f"The data cannot be shown: {reason}.")]
    blocks: list[Block] = [class_histogram(data), examples(data)]
    if best is not None:
        try:
            blocks += augmented(data, TASKS[facts["task"]].config.from_dict(best["config"]))
        except ValueError as error:  # a run of another version
            blocks.append(Text(f"Augmented images cannot be shown: {error}."))
    return blocks


def _trials(run: Path, facts: dict[str, Any], trials: list[FrozenTrial], ranked: list[FrozenTrial]) -> list[Block]:
    rest = [t for t in trials if studies.score(t) is None]
    rows = []
    for t in [*ranked, *rest][:SHOWN_TRIALS]:
        node, pid = t.user_attrs.get(studies.WORKER, (None, None))
        params = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in t.params.items())
        epochs, log = len(t.intermediate_values), str(trial_log(Path(), t.number))
        rows.append((t.number, studies.state_name(t), studies.score(t), epochs, node, pid and str(pid), log, params))
    heads = ("trial", "state", facts["metric"], "epochs", "node", "pid", "log", "parameters")
    title = f"The best {SHOWN_TRIALS} of {len(trials)}; all are in trials.csv" if len(trials) > SHOWN_TRIALS else ""
    return [Table(heads, rows, title)]


def _repeat(run: Path, facts: dict[str, Any]) -> list[Block]:
    rows = [
        ("Code", facts["git"] or "not a checkout"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        ("Fingerprint of the data", facts["data"]["fingerprint"]),
        ("Begun", facts["created"]),
    ]
    validation = " ".join(facts["split"]["val"])
    return [
        Code(command(facts["task"], facts["arguments"])),
        Table((), rows),
        Text("Validation images (all others are training):"),
        Code(validation),
    ]


def command(task: str, arguments: dict[str, Any]) -> str:
    """What to type for a search with these arguments; those that are what they are by default are left out."""
    words = ["python -m search.run", task]
    for name, value in arguments.items():
        if name not in DEFAULTS or value == DEFAULTS[name] or name in ("resume", "dry_run", "quiet"):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if name == "time_budget":
            words.append(f"{value:g}s")
        elif value is not True:
            words += [shlex.quote(str(each)) for each in (value if isinstance(value, list) else [value])]
    return " ".join(words)


def _data_of(facts: dict[str, Any]) -> tuple[Data | None, str]:
    arguments = facts["arguments"]
    try:
        data = load(arguments["data"], image_size=arguments["image_size"], use_val=arguments["use_val"])
        return data.with_split(facts["split"]["train"], facts["split"]["val"]), ""
    except (ValueError, OSError) as error:
        return None, str(error).splitlines()[0]


def read_trials(run: Path) -> list[FrozenTrial]:
    """The trials of a run so far. Raises `ValueError` where it has not begun."""
    journal = run / "study.journal"
    if not journal.exists():
        raise ValueError(f"{run} has no study.journal: start the run again")
    return studies.started(studies.read_study(journal))


def read_json(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text()) if file.exists() else None
