"""The report of a run: what was searched and found, whether it worked, what matters, and how to repeat it."""

import dataclasses
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
from optuna.trial import FrozenTrial

from search.options import DEFAULTS
from search.pictures.blocks import STYLE, Block, Code, Section, Table, Text
from search.report import search_figures as figures
from search.report.data_figures import class_histogram, examples, training_batch
from search.report.evidence import EVIDENCE, curves
from search.report.source import Source, read_source
from search.report.template import write_page
from search.report.trials import (
    LEAST,
    RELIABLE,
    WITHIN,
    at_bounds,
    distributions_of,
    frame_of,
    importances,
    interactions,
    state,
    surrogate_of,
)
from search.run_folder.files import read_json, typed
from search.running.live import duration
from search.running.publishing import trial_log
from search.session.problem import parse_settings
from search.study.bootstrap import estimated, with_error
from search.study.sampler import PRUNING_SAMPLERS
from search.study.trials import Attr, asha_rungs, best_epoch, state_name, trial_score
from voctrain.data import Data

SHOWN_TRIALS = 25  # rows of the table of trials; all are in trials.csv
NOT_REPEATED = ("name", "resume", "address", "dry_run", "quiet")  # arguments of one call, not of the search


def write_report(run: Path, data: Data | None = None) -> Path:
    """Write report.html into a run's folder, which may be running.

    data: of the run, where they are at hand; else they are loaded. A run that was stopped gets what it would have got
    at its end, too. Raises `ValueError` for what is not a run.
    """
    source = read_source(run, data)
    source.conclude()
    sections = {
        "Answer": _answer,
        "Did the search work": _search,
        "What matters": _parameters,
        "What the model does": _model,
        "Data": _data,
        "Trials": _trials,
        "Repeat it": _repeat,
    }
    with matplotlib.rc_context(STYLE):
        page = [Section(title, make(source)) for title, make in sections.items()]
        write_page(run / "report.html", run.resolve().name, page)
    return run / "report.html"


def _answer(source: Source) -> list[Block]:
    facts, task, metric, best = source.facts, source.task, source.metric, source.best
    place, states = facts["arguments"]["data"], Counter(map(state, source.trials))
    epochs = sum(len(t.intermediate_values) for t in source.trials)
    rows = [
        ("Task", task.name),
        ("Data", f"{place}: {facts['data']['labeled']} labeled images, {len(facts['split']['val'])} for validation"),
        ("Budget", f"{facts['arguments']['trials']} trials of at most {facts['epochs']} epochs"),
        ("Spent", f"{epochs} epochs; {duration(facts['seconds'])} of the clock when the last trial ended"),
        ("Trials", ", ".join(f"{n} {name}" for name, n in states.items()) or "none"),
    ]
    rows += [(name.capitalize(), facts["arguments"][name]) for name in ("goal", "victim") if facts.get("victim")]
    if source.ranked:
        first = source.ranked[0]
        score = f"{trial_score(first):.4f} (trial {first.number}, epoch {best_epoch(first)})"
        rows.append((f"Best {metric}", score))
        if (known := source.rescored()) is not None:
            interval = estimated(known[0], len(known[1])).interval()
            whose = "" if best["score"] == trial_score(first) else f" of trial {best['trial']}, kept in best.json"
            rows.append((f"95 % interval{whose}", f"{interval}, by bootstrap over the validation images"))
        if (final := read_json(source.run / "final" / "final.json")) is not None:
            value = f"{with_error(final['score'], final['standard_error'])}, mean of {final['seeds']} seeds"
            rows.append(("search.final", f"{value} ({final['winner']})"))
    rows.append((task.baseline_name.capitalize(), f"{metric} {facts['baseline'][metric]:.4f}"))
    blocks: list[Block] = [Table((), rows)]
    if facts.get("track"):
        blocks.append(Text(f"Track: {facts['track']}."))
    if not source.ranked:
        return [*blocks, Text("No trial has scored yet.")]
    blocks.append(
        Text("The best of many noisy scores flatters itself: search.final says what it is worth with other seeds.")
    )
    if best is None or not (source.run / "best.pt").exists():
        blocks.append(Text("The checkpoint best.pt is missing: train the configuration again to use it."))
    here = typed(source.run.resolve())
    commands = [f"python -m search.final {here}"]
    if task.submitted:
        commands.append(f"python -m search.submit --data {shlex.quote(place)} --{task.name} {here}")
    blocks.append(Code("\n".join(commands)))
    title = "Best configuration, where it differs from the default"
    return [*blocks, Table(("field", "value"), list(_changed(source, first).items()), title)]


def _search(source: Source) -> list[Block]:
    blocks: list[Block] = []
    if source.ranked:
        prunes = source.sampler in PRUNING_SAMPLERS
        rungs = asha_rungs(source.facts["epochs"]) if prunes else []
        blocks += [
            figures.history(frame_of(source.trials, source.sampler), source.metric),
            figures.over_budget(source.trials, source.sampler, source.metric),
            figures.learning_curves(source.trials, rungs, source.metric),
            figures.budget(source.trials, source.unfinished_seconds()),
        ]
    failed = [t for t in source.trials if state_name(t) == "failed"]
    if not failed:
        return [*blocks, Text("No trial failed.")]
    rows = [(t.number, t.user_attrs.get(Attr.ERROR), str(trial_log(Path(), t.number))) for t in failed]
    return [*blocks, Table(("trial", "reason", "log"), rows, "Failures")]


def _parameters(source: Source) -> list[Block]:
    if len(source.ranked) < LEAST:
        return [Text(f"With {len(source.ranked)} scored trials nothing can be said of parameters: it takes {LEAST}.")]
    distributions = distributions_of(source.trials, parse_settings(source.facts["arguments"]["set"]))
    frame = frame_of(source.trials, source.sampler)
    surrogate = surrogate_of(frame, distributions)
    bars = importances(surrogate)
    names = list(bars)
    if not names:
        return [Text("No parameter was searched that enough trials have, or none tells good trials from bad ones.")]
    blocks: list[Block] = [figures.importance(bars), Text(_trust(len(frame)))]
    if bounds := at_bounds(source.ranked[0], distributions):
        title = "The best lies on a bound: unless it is a natural one, the space may be too narrow there"
        blocks.append(Table(("parameter", "value", "bound"), bounds, title))
    else:
        blocks.append(Text("The best configuration lies on no bound of the space."))
    blocks += figures.slices(frame, distributions, names, source.metric)
    blocks += figures.pairs(frame, distributions, interactions(surrogate, names), source.metric)
    return [*blocks, figures.parallel(frame, distributions, names, source.metric)]


def _trust(trials: int) -> str:
    """How far the ranking of parameters can be trusted with this number of scored trials."""
    ranking = (
        f"This ranking means something: it takes {RELIABLE} scored trials."
        if trials >= RELIABLE
        else f"With {trials} scored trials this ranking is not reliable yet: it takes {RELIABLE}."
    )
    return (
        f"{ranking} With that many, the first bar was a parameter that matters in four of five synthetic searches: more"
        " often with random sampling, less often where most trials were pruned."
        f" Error bars cover {WITHIN:.0%} of bootstrap resamples of the trials; where two overlap, their order"
        " is open."
    )


def _model(source: Source) -> list[Block]:
    if not source.ranked:
        return [Text("No trial has scored yet.")]
    blocks: list[Block] = [*curves(trial_log(source.run, source.ranked[0].number))]
    if source.best is None:
        return [*blocks, Text("best.json is missing.")]
    if source.outdated:
        blocks.append(Text("Tables of attacks and pictures below are missing, or of an earlier best trial."))
    return [*blocks, *EVIDENCE[source.task.name](source.run, source.best, source.data)]


def _data(source: Source) -> list[Block]:
    if source.data is None:
        return [Text(f"The data cannot be shown: {source.reason}.")]
    blocks: list[Block] = [class_histogram(source.data), examples(source.data)]
    if source.best is not None:
        try:
            blocks.append(training_batch(source.data, source.task.config.from_dict(source.best["config"])))
        except ValueError as error:  # a run of another version
            blocks.append(Text(f"The batch as it is trained on cannot be shown: {error}."))
    return blocks


def _trials(source: Source) -> list[Block]:
    rest = [t for t in source.trials if trial_score(t) is None]
    rows = []
    for t in [*source.ranked, *rest][:SHOWN_TRIALS]:
        node, pid = t.user_attrs.get(Attr.WORKER, (None, None))
        params = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in t.params.items())
        epochs, log = len(t.intermediate_values), str(trial_log(Path(), t.number))
        rows.append((t.number, state(t), trial_score(t), epochs, node, pid and str(pid), log, params))
    heads = ("trial", "state", source.metric, "epochs", "node", "pid", "log", "parameters")
    more = len(source.trials) > SHOWN_TRIALS
    title = f"The best {SHOWN_TRIALS} of {len(source.trials)}; all are in trials.csv" if more else ""
    return [Table(heads, rows, title)]


def _repeat(source: Source) -> list[Block]:
    facts = source.facts
    rows = [
        ("Code", facts["git"] or "not a checkout"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        ("Fingerprint of the data", facts["data"]["fingerprint"]),
        ("Begun", facts["created"]),
    ]
    validation = " ".join(facts["split"]["val"])
    return [
        Code(command(source.run, facts)),
        Table((), rows),
        Text("Validation images (all others are training):"),
        Code(validation),
    ]


def command(run: Path, facts: dict[str, Any]) -> str:
    """What to type for such a search; arguments that are what they are by default are left out."""
    words = ["python -m search.run", facts["task"]]
    arguments = dict(facts["arguments"])
    if arguments["space"] is not None:
        arguments["space"] = run.resolve() / "space.py"
    for name, value in arguments.items():
        if name not in DEFAULTS or value == DEFAULTS[name] or name in NOT_REPEATED:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if name == "time_budget":
            words.append(f"{value:g}s")
        elif value is not True:
            values = value if isinstance(value, list) else [value]
            words += [typed(each) if isinstance(each, Path) else shlex.quote(str(each)) for each in values]
    return " ".join(words)


def _changed(source: Source, trial: FrozenTrial) -> dict[str, Any]:
    """The fields of a trial's configuration that are not as they are by default."""
    defaults = {f.name: f.default for f in dataclasses.fields(source.task.config)}
    config = trial.user_attrs.get(Attr.CONFIG, trial.params)
    return {k: v for k, v in config.items() if v is not None and v != defaults.get(k)}
