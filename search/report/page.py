"""The report of a run: what was searched and found, whether it worked, what matters, and how to repeat it."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from optuna.trial import FrozenTrial

from search.command_line import flag, options_of
from search.pictures.blocks import STYLE, Block, Code, Section, Table, Text
from search.report import search_figures as figures
from search.report.data_figures import class_histogram, examples, training_batch
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
from search.run_folder.files import read_json
from search.run_folder.history import read_history
from search.run_folder.location import is_stored
from search.run_folder.paths import RunPaths
from search.run_folder.records import Configuration, Expectation, RunRecord, repeats
from search.run_folder.store import join
from search.session.settings import parse_settings
from search.study.bootstrap import estimated
from search.study.rungs import AGREEMENT, LEAST_WHOLE, Agreement, agreements, runs_whole
from search.study.sampler import PRUNING_SAMPLERS
from search.study.trials import Attr, asha_rungs, best_epoch, is_of_portfolio, state_name, trial_score
from search.text import assignments, duration, shell_path, with_error
from voctrain.data import Data

SHOWN_TRIALS = 25  # rows of the table of trials; all are in trials.csv


def write_report(run: Path, data: Data | None = None) -> Path:
    """Write report.html into a run folder and return its path; the search may be running.

    data: the run's data; they are loaded if they are not given. A run that was stopped also gets the tables and
    pictures of its end. Raises `ValueError` for anything that is not a run.
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
        write_page(source.paths.report, run.resolve().name, page)
    return source.paths.report


def _answer(source: Source) -> list[Block]:
    record, task, best = source.record, source.task, source.best
    blocks: list[Block] = [Table((), [*_facts(source), *_result(source)])]
    if record.track:
        blocks.append(Text(f"Track: {record.track}."))
    if not source.ranked:
        return [*blocks, Text("No trial has scored yet.")]
    blocks.append(
        Text("The best of many noisy scores is too optimistic: search.final tells what it is with other seeds.")
    )
    if best is None or not source.paths.best_weights.exists():
        blocks.append(Text("The checkpoint best.pt is missing: train the configuration again to use it."))
    if best is not None:
        blocks.append(Text(f"About the best model: {task.provenance(best.config)}"))
    folder, out = source.paths.folder.resolve(), record.options.out
    here = shlex.quote(join(out, folder.name)) if is_stored(out) else shell_path(folder)
    commands = [f"python -m search.final {here}"]
    if task.submits is not None:
        place = shlex.quote(record.options.data)
        commands.append(f"python -m search.submit --data {place} --{task.name} {here}")
    blocks.append(Code("\n".join(commands)))
    title = "Best configuration, where it differs from the default"
    return [*blocks, Table(("field", "value"), list(_changed(source, source.ranked[0]).items()), title)]


def _facts(source: Source) -> list[tuple[str, object]]:
    """What was searched, on which data, and what it cost."""
    record = source.record
    states = Counter(map(state, source.trials))
    epochs = sum(len(t.intermediate_values) for t in source.trials)
    rows: list[tuple[str, object]] = [
        ("Task", record.task),
        (
            "Data",
            f"{record.options.data}: {record.data.labeled} labeled images, {len(record.split.val)} for validation",
        ),
        ("Budget", f"{record.options.trials} trials of at most {record.epochs} epochs"),
        ("Spent", f"{epochs} epochs; {duration(record.seconds)} of wall-clock time when the last trial ended"),
        ("Trials", ", ".join(f"{n} {name}" for name, n in states.items()) or "none"),
    ]
    own = options_of(type(record.options)).items()
    named = [name for name, how in own if name in ("goal", *source.task.needed)]
    return rows + [(name.capitalize(), getattr(record.options, name)) for name in named]


def _result(source: Source) -> list[tuple[str, object]]:
    """The best score with its interval, the final model's, and the baseline's."""
    record, metric, best = source.record, source.metric, source.best
    rows: list[tuple[str, object]] = []
    if source.ranked:
        first = source.ranked[0]
        score = f"{trial_score(first):.4f} (trial {first.number}, epoch {best_epoch(first)})"
        rows.append((f"Best {metric}", score))
        if (known := source.rescored()) is not None and best is not None:
            interval = estimated(known[0], len(known[1])).interval()
            whose = "" if best.score == trial_score(first) else f" of trial {best.trial}, kept in best.json"
            rows.append((f"95 % interval{whose}", f"{interval}, by bootstrap over the validation images"))
        if (final := read_json(source.paths.final_record)) is not None:
            over = repeats(final["folds"], final["seeds"])
            value = f"{with_error(final['score'], final['standard_error'])} over {over}"
            rows.append(("search.final", f"{value} ({final['winner']})"))
            if final["expected"] is not None:
                rows.append(("On unseen images", Expectation(**final["expected"]).describe(metric)))
    return [*rows, (record.baseline_name.capitalize(), f"{metric} {record.baseline[metric]:.4f}")]


def _search(source: Source) -> list[Block]:
    blocks: list[Block] = []
    if source.ranked:
        rungs = asha_rungs(source.record.epochs) if source.sampler in PRUNING_SAMPLERS else []
        blocks += [
            figures.history(frame_of(source.trials, source.sampler), source.metric),
            figures.over_budget(source.trials, source.sampler, source.metric),
            figures.learning_curves(source.trials, rungs, source.metric),
            *_rungs(source, rungs),
            figures.budget(source.trials, source.unfinished_seconds()),
        ]
    failed = [t for t in source.trials if state_name(t) == "failed"]
    if not failed:
        return [*blocks, Text("No trial failed.")]
    rows = [(t.number, t.user_attrs.get(Attr.ERROR), _log(t)) for t in failed]
    return [*blocks, Table(("trial", "reason", "log"), rows, "Failures")]


def _rungs(source: Source, rungs: Sequence[int]) -> Iterator[Block]:
    """Whether the rungs tell the end."""
    protected = {t.number for t in source.trials if is_of_portfolio(t)}
    whole = [t.intermediate_values for t in source.trials if runs_whole(t.number, protected)]
    found = agreements(whole, source.record.epochs)
    if found and rungs:
        rows = [(a.rung, f"{a.correlation:.2f}", f"{a.low:.2f} to {a.high:.2f}", _verdict(a)) for a in found]
        heads = ("epoch", "rank correlation with the end", "± a standard error", "trials are pruned there")
        yield Table(heads, rows, f"Do the rungs tell the end? By {found[0].trials} trials that ran whole")
    elif rungs:
        yield Text(f"Whether the rungs tell the end is not known yet: it takes {LEAST_WHOLE} trials that ran whole.")


def _verdict(agreement: Agreement) -> str:
    return f"no: below {AGREEMENT}" if agreement.misleads else "yes"


def _parameters(source: Source) -> list[Block]:
    if len(source.ranked) < LEAST:
        return [Text(f"{len(source.ranked)} scored trials tell nothing about parameters: it takes {LEAST}.")]
    distributions = distributions_of(source.trials, parse_settings(source.record.options.set))
    frame = frame_of(source.trials, source.sampler)
    surrogate = surrogate_of(frame, distributions)
    bars = importances(surrogate)
    names = list(bars)
    if not names:
        return [Text("Too few trials share a searched parameter, or no parameter separates good trials from bad ones.")]
    blocks: list[Block] = [figures.importance(bars), Text(_trust(len(frame)))]
    if bounds := at_bounds(source.ranked[0], distributions):
        title = "The best configuration lies on a bound: unless it is a natural one, the space may be too narrow there"
        blocks.append(Table(("parameter", "value", "bound"), bounds, title))
    else:
        blocks.append(Text("The best configuration does not lie on a bound of the space."))
    blocks += figures.slices(frame, distributions, names, source.metric)
    blocks += figures.pairs(frame, distributions, interactions(surrogate, names), source.metric)
    return [*blocks, figures.parallel(frame, distributions, names, source.metric)]


def _trust(trials: int) -> str:
    """How far the ranking of parameters can be trusted with this number of scored trials."""
    ranking = (
        f"This ranking is reliable: it takes {RELIABLE} scored trials."
        if trials >= RELIABLE
        else f"With {trials} scored trials this ranking is not reliable yet: it takes {RELIABLE}."
    )
    return (
        f"{ranking} With that many, the first bar was a parameter that matters in four of five synthetic searches: more"
        " often with random sampling, less often when most trials were pruned."
        f" Error bars cover {WITHIN:.0%} of bootstrap resamples of the trials; where two overlap, their order"
        " is open."
    )


def _model(source: Source) -> list[Block]:
    if not source.ranked:
        return [Text("No trial has scored yet.")]
    history = read_history(source.paths.history(source.ranked[0].number))
    blocks: list[Block] = [*figures.metrics_by_epoch(history)]
    if source.best is None:
        return [*blocks, Text("best.json is missing.")]
    if source.outdated:
        blocks.append(Text("The tables and pictures below are missing, or show an earlier best trial."))
    return [*blocks, *source.task.evidence(source.paths, source.best, source.data)]


def _data(source: Source) -> list[Block]:
    if source.data is None:
        return [Text(f"The data cannot be shown: {source.missing_data}.")]
    blocks: list[Block] = [class_histogram(source.data), examples(source.data)]
    if source.best is not None:
        try:
            config = source.task.config.from_dict(source.best.config)
            blocks.append(training_batch(source.task, source.data, config))
        except ValueError as error:  # a run of another version
            blocks.append(Text(f"The batch as it is trained on cannot be shown: {error}."))
    return blocks


def _trials(source: Source) -> list[Block]:
    rest = [t for t in source.trials if trial_score(t) is None]
    rows = []
    for t in [*source.ranked, *rest][:SHOWN_TRIALS]:
        node, pid = t.user_attrs.get(Attr.WORKER, (None, None))
        epochs = len(t.intermediate_values)
        rows.append(
            (t.number, state(t), trial_score(t), epochs, node, pid and str(pid), _log(t), assignments(t.params))
        )
    heads = ("trial", "state", source.metric, "epochs", "node", "pid", "log", "parameters")
    more = len(source.trials) > SHOWN_TRIALS
    title = f"The best {SHOWN_TRIALS} of {len(source.trials)}; all are in trials.csv" if more else ""
    return [Table(heads, rows, title)]


def _log(trial: FrozenTrial) -> str:
    return str(RunPaths(Path()).log(trial.number))


def _repeat(source: Source) -> list[Block]:
    record = source.record
    rows = [
        ("Code", record.git or "not a checkout"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("Fingerprint of the data", record.data.fingerprint),
        ("Started", record.created),
    ]
    return [
        Code(command(source.paths, record)),
        Table((), rows),
        Text("Validation images (all others are training images):"),
        Code(" ".join(record.split.val)),
    ]


def command(paths: RunPaths, record: RunRecord) -> str:
    """The command line of such a search; options with their default value are left out."""
    words = ["python -m search.run", record.task]
    defaults = {f.name: f.default for f in dataclasses.fields(record.options)}
    for name, how in options_of(type(record.options)).items():
        value = paths.space if name == "space" and record.options.space else getattr(record.options, name)
        if value == defaults[name] or how.per_call:
            continue
        words.append(flag(name))
        if name == "time_budget":
            words.append(f"{value:g}s")
        elif value is not True:
            values = value if isinstance(value, tuple) else [value]
            words += [shell_path(each) if isinstance(each, Path) else shlex.quote(str(each)) for each in values]
    return " ".join(words)


def _changed(source: Source, trial: FrozenTrial) -> Configuration:
    """The fields of a trial's configuration that differ from their defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(source.task.config)}
    config = trial.user_attrs.get(Attr.CONFIG, trial.params)
    return {k: v for k, v in config.items() if v is not None and v != defaults.get(k)}
