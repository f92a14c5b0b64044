"""Figures of a search: its progress, its cost, and the effect of its parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from search.pictures.blocks import BLUE, GRAY, GREEN, ORANGE, RED, Figure, canvas, drawn
from search.report.trials import WITHIN, Importance, best_over_epochs, coded, origin_of, state
from search.run_folder.history import EpochRecord
from search.study.trials import Attr, rank_trials, state_name

COLORS = {"portfolio": GREEN, "warm start": RED, "learned": BLUE, "random": GRAY, "quasi-random": GRAY}
SLICES = 8  # most important parameters that are drawn
LINES = 14  # parameters side by side
PALETTE = "viridis"  # from poor to good
METRICS = ("lr", "loss", "accuracy", "precision", "recall", "f1", "f1_macro", "mAP", "mIoU", "dice", "score", "ssim")


def history(frame: pd.DataFrame, metric: str) -> Figure:
    """Each trial's score, and the best so far."""
    figure = canvas()
    axes = figure.subplots()
    for origin, part in frame.groupby("origin"):
        axes.plot(part["number"], part["score"], "o", ms=4, color=COLORS[str(origin)], label=origin)
    axes.step(frame["number"], frame["score"].cummax(), where="post", color=ORANGE, label="best so far")
    axes.set(xlabel="trial", ylabel=metric)
    axes.legend(fontsize=8)
    best = frame.loc[frame["score"].idxmax()]
    return drawn(
        figure, "Score of each trial", f"{len(frame)} trials; trial {best['number']} is best with {best['score']:.4f}"
    )


def over_budget(trials: Sequence[FrozenTrial], sampler: str, metric: str) -> Figure:
    """Best score over the epochs spent, by the whole run and by its random trials alone."""
    figure = canvas()
    axes = figure.subplots()
    spent, best = best_over_epochs(trials)
    axes.step(spent, best, where="post", color=ORANGE, marker="o", ms=2, label="this search")
    text = f"after {spent[-1]} epochs the search is at {best[-1]:.4f}"
    spent, best = best_over_epochs(t for t in trials if origin_of(t, sampler) == "random")
    if spent and sampler != "random":
        axes.step(spent, best, where="post", color=GRAY, marker="o", ms=2, label="its random trials alone")
        text += f"; its random trials alone are at {best[-1]:.4f} after {spent[-1]}"
    axes.set(xlabel="epochs spent", ylabel=f"best {metric}")
    axes.legend(fontsize=8)
    return drawn(figure, "Best score over the epochs spent", text)


def learning_curves(trials: Sequence[FrozenTrial], rungs: Sequence[int], metric: str) -> Figure:
    """Scores by epoch of all trials; pruned trials are faint, the best is bold, and rungs are marked."""
    figure = canvas()
    axes = figure.subplots()
    ranked = rank_trials(trials)
    for trial in reversed(ranked):
        epochs, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        best, pruned = trial is ranked[0], state_name(trial) == "pruned"
        look = {"color": ORANGE, "lw": 2.0} if best else {"color": BLUE, "lw": 0.8, "alpha": 0.25 if pruned else 0.7}
        axes.plot(epochs, values, marker="o" if len(epochs) == 1 else None, ms=2, **look)
    for rung in rungs:
        axes.axvline(rung, color=GRAY, linestyle=":", lw=1)
    axes.set(xlabel="epoch", ylabel=metric)
    return drawn(
        figure,
        "Learning curves (best bold, pruned faint, rungs dotted)",
        f"curves of {len(ranked)} trials; rungs at epochs {', '.join(map(str, rungs)) or 'none'}",
    )


def budget(trials: Sequence[FrozenTrial], spent: Mapping[int, float]) -> Figure:
    """Minutes of training by state. spent: seconds that unfinished trials have trained, by number."""
    colors = {"complete": GREEN, "pruned": BLUE, "failed": RED, "unfinished": GRAY}
    minutes = dict.fromkeys(colors, 0.0)
    for trial in trials:
        minutes[state(trial)] += trial.user_attrs.get(Attr.SECONDS, spent.get(trial.number, 0.0)) / 60
    figure = canvas()
    axes = figure.subplots()
    bars = axes.barh(list(minutes), list(minutes.values()), color=list(colors.values()))
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.margins(x=0.12)
    axes.set(xlabel="minutes of training")
    return drawn(figure, "Where the budget went", ", ".join(f"{k} {v:.1f} minutes" for k, v in minutes.items()))


def metrics_by_epoch(history: Mapping[int, EpochRecord]) -> Iterator[Figure]:
    """Learning rate, loss and metrics of a training by epoch, on training and validation images."""
    for name in METRICS if len(history) > 1 else ():
        figure = canvas(height=2.4)
        axes = figure.subplots()
        for prefix, label, color in (("train_", "training", BLUE), ("val_", "validation", ORANGE), ("", name, BLUE)):
            known = {e: m[prefix + name] for e, m in sorted(history.items()) if prefix + name in m}
            if known:
                axes.plot(list(known), list(known.values()), color=color, label=label)
        if not axes.lines:
            continue
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(fontsize=8)
        yield drawn(figure, f"{name} of the best trial", f"{name} over {len(history)} epochs")


def importance(values: Mapping[str, Importance]) -> Figure:
    """Bars with intervals, the most important parameter first."""
    figure = canvas(height=max(2.0, 0.28 * len(values) + 0.8))
    axes = figure.subplots()
    shares, lows, highs = (np.array(column) for column in zip(*reversed(list(values.values())), strict=True))
    spread = {"xerr": [shares - lows, highs - shares], "error_kw": {"ecolor": GRAY, "capsize": 2}}
    bars = axes.barh(list(values)[::-1], shares, color=BLUE, **spread)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.margins(x=0.12)
    axes.set(xlabel=f"importance, with its {WITHIN:.0%} interval")
    text = ", ".join(f"{name} {v.share:.2f} ({v.low:.2f} to {v.high:.2f})" for name, v in values.items())
    return drawn(figure, "Importance of each parameter", f"{text}; in brackets {WITHIN:.0%} intervals")


def slices(
    frame: pd.DataFrame, distributions: dict[str, BaseDistribution], names: Sequence[str], metric: str
) -> Iterator[Figure]:
    """Score against each parameter, over the trials that have it."""
    for name in names[:SLICES]:
        known = frame.dropna(subset=[name])
        figure = canvas(height=2.6)
        axes = figure.subplots()
        for origin, part in known.groupby("origin"):
            axes.plot(_places(part[name], distributions[name]), part["score"], "o", ms=4, color=COLORS[str(origin)])
        _scale(axes.xaxis, distributions[name], axes.set_xscale)
        axes.set(xlabel=name, ylabel=metric)
        best = known.loc[known["score"].idxmax(), name]
        yield drawn(figure, name, f"{len(known)} trials have {name}; the best of them at {_short(best)}")


def pairs(
    frame: pd.DataFrame,
    distributions: dict[str, BaseDistribution],
    found: dict[tuple[str, str], float],
    metric: str,
    shown: int = 2,
) -> Iterator[Figure]:
    """Scores over the plane of two parameters."""
    for (first, second), strength in list(found.items())[:shown]:
        known = frame.dropna(subset=[first, second]).sort_values("score")
        figure = canvas()
        axes = figure.subplots()
        places = (_places(known[n], distributions[n]) for n in (first, second))
        points = axes.scatter(*places, c=known["score"], cmap=PALETTE, s=24)
        _scale(axes.xaxis, distributions[first], axes.set_xscale)
        _scale(axes.yaxis, distributions[second], axes.set_yscale)
        axes.set(xlabel=first, ylabel=second)
        figure.colorbar(points, label=metric)
        yield drawn(
            figure,
            f"{first} with {second}",
            f"{strength:.0%} of the joint effect of {first} and {second} is not the sum of both",
        )


def parallel(
    frame: pd.DataFrame, distributions: dict[str, BaseDistribution], names: Sequence[str], metric: str
) -> Figure:
    """Each trial as a line through its parameters, colored by score, with gaps for parameters it lacks."""
    names = [name for name in names if name in frame][:LINES]
    values = coded(frame, {name: distributions[name] for name in names}).to_numpy()
    order = np.argsort(frame["score"].to_numpy())
    values = np.where(values < 0, np.nan, values)[order]
    score = frame["score"].to_numpy()[order]
    figure = canvas(11.2, 4.2)
    axes = figure.subplots()
    shade = Normalize(score.min(), max(score.max(), score.min() + 1e-9))
    palette = colormaps[PALETTE]
    for line, value in zip(values, score, strict=True):
        axes.plot(line, color=palette(shade(value)), lw=0.9, alpha=0.7, marker="o", ms=2)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks([0, 1], ["low", "high"])
    figure.colorbar(ScalarMappable(shade, palette), ax=axes, label=metric)
    return drawn(
        figure,
        "All trials: each a line through its parameters, lowest to highest value",
        f"{len(frame)} trials over {len(names)} parameters; brighter is better",
        wide=True,
    )


def _places(values: Any, distribution: BaseDistribution) -> np.ndarray:
    """Positions on an axis: numbers as they are, choices by index with jitter."""
    if not isinstance(distribution, CategoricalDistribution):
        return np.array(values, float)
    choices = list(distribution.choices)
    index = np.array([choices.index(v) if v in choices else np.nan for v in values], float)
    return index + np.random.default_rng(0).uniform(-0.15, 0.15, len(index))


def _scale(axis: Any, distribution: BaseDistribution, set_scale: Callable[[str], None]) -> None:
    if isinstance(distribution, CategoricalDistribution):
        names = [_short(choice) for choice in distribution.choices]
        turned = {"rotation": 30, "ha": "right"} if axis.axis_name == "x" and len(names) > 3 else {}
        axis.set_ticks(range(len(names)), names, fontsize=8, **turned)
    elif isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
        set_scale("log")
        axis.set_major_formatter(LogFormatter())  # others write formulas
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    elif isinstance(distribution, IntDistribution):
        axis.get_major_locator().set_params(integer=True)


def _short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 18 else f"{text[:17]}…"
