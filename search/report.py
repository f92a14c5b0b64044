"""report.html: a run on one page, without any other file."""

import html
from pathlib import Path
from typing import Any

import optuna

from search import study as studies
from search.files import replace
from search.live import duration
from search.tasks import TASKS

STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 8px}"
)


def write_report(folder: Path, study: optuna.Study, facts: dict[str, Any]) -> None:
    """Write the report of a run: what it searched, its best trial, and every trial with its scores by epoch."""
    ranked = studies.ranked(study)
    failed = [t for t in studies.started(study) if studies.score(t) is None]
    head = [
        ("data", f"{facts['data']['path']}, {facts['data']['labelled']} labelled images"),
        (TASKS[facts["task"]].baseline_name, f"{facts['metric']} {facts['baseline'][facts['metric']]:.4f}"),
        ("time", duration(facts["seconds"])),
        ("trials", str(len(ranked) + len(failed))),
    ]
    rows = [_row(t) for t in (*ranked, *failed)]
    columns = ("trial", "state", facts["metric"], "epoch", "scores by epoch", "parameters")
    page = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(folder.name)}</h1><table>{''.join(_cells(row, 'td') for row in head)}</table>"
        f"<h2>Trials, best first</h2><table>{_cells(columns, 'th')}{''.join(rows)}</table>\n"
    )
    replace(folder / "report.html", lambda file: file.write_text(page))


def _row(trial: optuna.trial.FrozenTrial) -> str:
    value = studies.score(trial)
    cells = (
        trial.number,
        studies.state_name(trial),
        "" if value is None else f"{value:.4f}",
        studies.best_epoch(trial) or "",
    )
    params = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items())
    curve = _sparkline([v for _, v in sorted(trial.intermediate_values.items())])
    return _cells(cells, "td").removesuffix("</tr>") + f"<td>{curve}</td><td>{html.escape(params)}</td></tr>"


def _cells(values: Any, tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values) + "</tr>"


def _sparkline(values: list[float], width: int = 160, height: int = 28) -> str:
    """Scores in [0, 1] by epoch as a small line."""
    top = max(values, default=0) or 1.0
    points = " ".join(
        f"{width * i / max(1, len(values) - 1):.1f},{height - height * max(0.0, v) / top:.1f}"
        for i, v in enumerate(values)
    )
    return f"<svg width={width} height={height}><polyline points='{points}' fill=none stroke='#27c'/></svg>"
