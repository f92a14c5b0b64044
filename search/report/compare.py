"""Several runs of one task side by side."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from search.pictures.blocks import STYLE, Block, Section, Table, Text, canvas, drawn
from search.report.source import Source, read_source
from search.report.template import write_page
from search.report.trials import best_over_epochs
from search.run_folder.records import BestRecord
from search.study.bootstrap import estimated, paired
from search.study.trials import rank_trials
from search.text import duration

LONG = ("data set", "validation images", "victim")  # what a remark names without its values
INTERVALS = (
    "Intervals are by bootstrap over the validation images, paired for leads. They do not account for the choice: the"
    " best of many noisy scores is too optimistic, the more so the more trials there were. search.final corrects that."
)


def compare(runs: Sequence[Path], out: Path) -> str:
    """Write a page about these runs, and return its table and remarks as text.

    Each run's lead over the first comes with its paired bootstrap interval. A run that was scored differently has no
    lead; a remark says what differs. The runs must be of one task.
    """
    sources = [read_source(run, with_data=False) for run in runs]
    metric, names = sources[0].metric, [run.resolve().name for run in runs]
    scores = [source.rescored() for source in sources]
    rows, remarks = [], []
    for name, source, score in zip(names, sources, scores, strict=True):
        ahead = bounds = None
        if score is not None:
            bounds = estimated(score[0], len(score[1])).interval()
        if differences := _differences_in_scoring(source, sources[0]):
            remarks.append(
                f"{name} and {names[0]} differ in {', '.join(differences)}: their scores are not comparable, so no"
                " lead is given."
            )
        elif source is not sources[0] and score is not None and scores[0] is not None:
            ahead = paired(score[0], scores[0][0], len(score[1])).lead()
        best = source.best
        epochs = sum(len(t.intermediate_values) for t in source.trials)
        cost = (len(source.trials), epochs, duration(source.record.seconds))
        rows.append((name, best and best.score, bounds, ahead, best and best.trial, *cost))
    heads = ("run", metric, "95 % interval", f"lead over {names[0]}", "trial", "trials", "epochs", "time")
    table = Table(heads, rows)
    trials = [source.trials for source in sources]
    with matplotlib.rc_context(STYLE):
        sections = [
            Section("Best", [table, *map(Text, remarks), Text(INTERVALS)]),
            Section("Curves", [_curves(names, trials, metric), _budgets(names, trials, metric)]),
            Section("Configurations", [_differences(names, [source.best for source in sources])]),
        ]
        write_page(out, f"{len(runs)} runs of {sources[0].task.name}", sections)
    return "\n".join([table.plain(), *remarks])


def _differences_in_scoring(one: Source, other: Source) -> list[str]:
    """What makes the scores of two runs incomparable, with both values if they are short."""
    values = [(name, value, _scored_by(other)[name]) for name, value in _scored_by(one).items()]
    return [name if name in LONG else f"{name} ({a} and {b})" for name, a, b in values if a != b]


def _scored_by(source: Source) -> dict[str, object]:
    """What must be equal for two scores to be comparable, by name."""
    record = source.record
    return {
        "data set": record.data.fingerprint,
        "validation images": record.split.val,
        "metric": record.metric,
        **source.task.comparable(record),
    }


def _curves(names: Sequence[str], trials: Sequence[list], metric: str) -> Block:
    figure = canvas()
    axes = figure.subplots()
    for name, own in zip(names, trials, strict=True):
        for best in rank_trials(own)[:1]:
            epochs, values = zip(*sorted(best.intermediate_values.items()), strict=True)
            axes.plot(epochs, values, marker="o", ms=2, label=name)
    axes.set(xlabel="epoch", ylabel=metric)
    axes.legend(fontsize=8)
    return drawn(figure, "Best trial of each run, by epoch", f"{metric} by epoch of {', '.join(names)}")


def _budgets(names: Sequence[str], trials: Sequence[list], metric: str) -> Block:
    figure = canvas()
    axes = figure.subplots()
    for name, own in zip(names, trials, strict=True):
        axes.step(*best_over_epochs(own), where="post", marker="o", ms=2, label=name)
    axes.set(xlabel="epochs spent", ylabel=f"best {metric}")
    axes.legend(fontsize=8)
    return drawn(figure, "Best score over the epochs spent", f"best {metric} over epochs of {', '.join(names)}")


def _differences(names: Sequence[str], bests: Sequence[BestRecord | None]) -> Block:
    configs = [best.config if best else {} for best in bests]
    fields = sorted({field for config in configs for field in config})
    rows = [(field, *(config.get(field) for config in configs)) for field in fields]
    differing = [row for row in rows if any(value != row[1] for value in row[2:])]
    if not fields:
        return Text("No run has a best configuration yet.")
    if not differing:
        return Text("Their best configurations do not differ.")
    return Table(("field", *names), differing, "Where their best configurations differ")
