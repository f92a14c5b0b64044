"""The report of a run: what was searched and found, whether it worked, what matters, and how to repeat it."""

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from optuna.trial import FrozenTrial

from search import study as studies
from search.arguments import DEFAULTS
from search.bootstrap import interval
from search.files import read_torch
from search.live import duration
from search.plan import parse_settings
from search.report import search_figures as figures
from search.report.blocks import STYLE, Block, Code, Section, Table, Text, write_page
from search.report.data_figures import augmented, class_histogram, examples
from search.report.evidence import EVIDENCE, curves, epochs_of, predictions_of
from search.report.trials import LEAST, at_bounds, distributions_of, frame_of, importances, interactions
from search.runfolder import lock, read_run
from search.searcher import StudyASHA
from search.session import typed
from search.tasks import TASKS, Task
from search.victims import digest
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
        conclude_stopped(run, facts, data)
    with matplotlib.rc_context(STYLE):
        write_page(run / "report.html", run.resolve().name, _sections(run, facts, trials, data, reason))
    return run / "report.html"


def conclude_stopped(run: Path, facts: dict[str, Any], data: Data) -> None:
    """Bring the task's tables and pictures up to the best checkpoint, unless another process drives the run."""
    task, best = TASKS[facts["task"]], read_torch(run / "best.pt")
    if best is None or not outdated(run, task):
        return
    with suppress(
        ValueError, OSError
    ):  # it is driven, or the victim of an attack is gone: the page says what is missing
        lock(run)
        if digest(best["config"].get("victim")) == facts.get("victim"):
            task.conclude(run, best, data)


def outdated(run: Path, task: Task) -> bool:
    """Whether the task's tables and pictures are older than the best checkpoint, or missing."""
    made, best = run / (task.conclusion or ""), run / "best.pt"
    return task.conclusion is not None and not (made.exists() and made.stat().st_mtime >= best.stat().st_mtime)


def _sections(
    run: Path, facts: dict[str, Any], trials: list[FrozenTrial], data: Data | None, reason: str
) -> list[Section]:
    best = read_json(run / "best.json")
    ranked = studies.ranked(trials)
    frame = frame_of(trials, facts["arguments"]["sampler"])
    done = [Text("No trial has scored yet.")]
    if ranked:
        done = [*curves(run / trial_log(Path(), ranked[0].number))]
        if best is not None and (run / "best.pt").exists() and outdated(run, TASKS[facts["task"]]):
            done.append(Text("Tables of attacks and pictures below are missing, or of an earlier best trial."))
        done += EVIDENCE[facts["task"]](run, best, data) if best is not None else [Text("best.json is missing.")]
    return [
        Section("Answer", _answer(run, facts, trials, ranked, best)),
        Section("Did the search work", _search(run, facts, trials, ranked, frame)),
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
    states = Counter(_state(t) for t in trials)
    epochs = sum(len(t.intermediate_values) for t in trials)
    rows = [
        ("Task", facts["task"]),
        (
            "Data",
            f"{data['path']}: {data['labelled']} labelled images, {len(facts['split']['val'])} of them validation",
        ),
        ("Budget", f"{facts['arguments']['trials']} trials of at most {facts['epochs']} epochs"),
        ("Spent", f"{epochs} epochs; {duration(facts['seconds'])} of the clock when the last trial ended"),
        ("Trials", ", ".join(f"{n} {state}" for state, n in states.items()) or "none"),
    ]
    rows += [(name.capitalize(), facts["arguments"][name]) for name in ("goal", "victim") if facts.get("victim")]
    if ranked:
        score = f"{studies.score(ranked[0]):.4f} (trial {ranked[0].number}, epoch {studies.best_epoch(ranked[0])})"
        rows.append((f"Best {metric}", score))
        if (known := rescored(run, facts, best)) is not None:
            low, high = interval(known[0], len(known[1]))
            whose = "" if best["score"] == studies.score(ranked[0]) else f" of trial {best['trial']}, kept in best.json"
            rows.append((f"95 % interval{whose}", f"{low:.4f} to {high:.4f}, by bootstrap over the validation images"))
        if (final := read_json(run / "final" / "final.json")) is not None:
            value = f"{final['score']:.4f} ± {final['standard_error']:.4f}, mean of {final['seeds']} seeds"
            rows.append(("search.final", f"{value} ({final['winner']})"))
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
    commands, here = [f"python -m search.final {typed(run.resolve())}"], typed(run.resolve())
    if task.submitted:
        commands.append(f"python -m search.submit --data {shlex.quote(data['path'])} --{task.name} {here}")
    blocks.append(Code("\n".join(commands)))
    title = "Best configuration, where it differs from the default"
    return [*blocks, Table(("field", "value"), list(changed(task, ranked[0]).items()), title)]


def changed(task: Task, trial: FrozenTrial) -> dict[str, Any]:
    """The fields of a trial's configuration that are not as they are by default."""
    defaults = {f.name: f.default for f in dataclasses.fields(task.config)}
    config = trial.user_attrs.get(studies.CONFIG, trial.params)
    return {k: v for k, v in config.items() if v is not None and v != defaults.get(k)}


def _state(trial: FrozenTrial) -> str:
    """A trial's state; running ones may have been left by a stopped search."""
    return studies.state_name(trial) if trial.state.is_finished() else "unfinished"


def rescored(
    run: Path, facts: dict[str, Any], best: dict[str, Any] | None
) -> tuple[Callable[[Any], float], list[str]] | None:
    """The best score as a function of the indices of validation images, and their ids.

    None where the predictions are missing, or the victim of an attack is no longer what it was.
    """
    if best is None or (predictions := predictions_of(run)) is None:
        return None
    with suppress(ValueError, OSError):
        if digest(best["config"].get("victim")) == facts.get("victim"):
            return TASKS[best["task"]].rescore(predictions, best["config"]), predictions["ids"].tolist()
    return None


def _search(
    run: Path, facts: dict[str, Any], trials: list[FrozenTrial], ranked: list[FrozenTrial], frame: pd.DataFrame
) -> list[Block]:
    blocks: list[Block] = []
    if ranked:
        prunes = facts["arguments"]["sampler"] in studies.PRUNING_SAMPLERS
        rungs = StudyASHA(metric=facts["metric"], epochs=facts["epochs"]).rungs - {facts["epochs"]} if prunes else ()
        blocks += [
            figures.history(frame, facts["metric"]),
            figures.over_budget(trials, facts["arguments"]["sampler"], facts["metric"]),
            figures.learning_curves(trials, sorted(rungs), facts["metric"]),
            figures.budget(trials, _unfinished_seconds(run, trials)),
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


def _unfinished_seconds(run: Path, trials: list[FrozenTrial]) -> dict[int, float]:
    """The seconds that each unfinished trial has trained, as its log says."""
    logs = {t.number: epochs_of(trial_log(run, t.number)) for t in trials if not t.state.is_finished()}
    return {number: epochs[max(epochs)].get("seconds", 0.0) for number, epochs in logs.items() if epochs}


def _parameters(
    facts: dict[str, Any], trials: list[FrozenTrial], ranked: list[FrozenTrial], frame: pd.DataFrame
) -> list[Block]:
    if len(ranked) < LEAST:
        return [Text(f"With {len(ranked)} scored trials nothing can be said of parameters: it takes {LEAST}.")]
    metric, distributions = facts["metric"], distributions_of(trials, parse_settings(facts["arguments"]["set"]))
    weights = importances(trials, distributions)
    names = list(weights)
    if not names:
        return [Text("No parameter was searched that enough trials have, or none tells good trials from bad ones.")]
    blocks: list[Block] = [figures.importance(weights)]
    if bounds := at_bounds(ranked[0], distributions):
        title = "The best lies on a bound: unless it is a natural one, the space may be too narrow there"
        blocks.append(Table(("parameter", "value", "bound"), bounds, title))
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
            blocks.append(augmented(data, TASKS[facts["task"]].config.from_dict(best["config"])))
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
        rows.append((t.number, _state(t), studies.score(t), epochs, node, pid and str(pid), log, params))
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
        Code(command(run, facts)),
        Table((), rows),
        Text("Validation images (all others are training):"),
        Code(validation),
    ]


def command(run: Path, facts: dict[str, Any]) -> str:
    """What to type for such a search; arguments that are what they are by default are left out."""
    words = ["python -m search.run", facts["task"]]
    arguments = dict(facts["arguments"])
    if arguments["space"] is not None:
        arguments["space"] = typed(run.resolve() / "space.py")
    for name, value in arguments.items():
        if name not in DEFAULTS or value == DEFAULTS[name] or name in ("name", "resume", "dry_run", "quiet"):
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
        if data.fingerprint != facts["data"]["fingerprint"]:
            return None, f"{arguments['data']} is no longer what it was"
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
    """What is in a JSON file; None where there is none. Raises `ValueError` for a damaged one."""
    try:
        return json.loads(file.read_text()) if file.exists() else None
    except ValueError:
        raise ValueError(f"{file} is damaged: delete it, and continue the run with --resume") from None
