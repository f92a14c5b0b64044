"""How true the time left was: finished runs are replayed, and asked at each hundredth of their time from 25 to 94.

python tests/benchmarks/time_left.py RUN …: prints JSON, a line a run that was not interrupted: the seconds it took; the
part of the moments at which the time left was within 30 % of what it proved to be (`within`); its lowest and highest
ratio to that (`left`); and those of the whole time, elapsed and left, to what that proved to be (`whole`).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.report.evidence import epochs_of
from search.run_folder.records import read_run
from search.running.publishing import trial_log
from search.study.journal import read_study
from search.study.time_left import Plan, seconds_left
from search.study.trials import portfolio_numbers, started_trials


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    for run in parser.parse_args().runs:
        print(json.dumps({"run": run.resolve().name, **accuracy(run)}))


def accuracy(run: Path) -> dict[str, float | list[float]]:
    """The measures above."""
    facts, study = read_run(run), read_study(run / "study.journal")
    trials = started_trials(study)
    if not all(t.state.is_finished() for t in trials):
        raise SystemExit(f"error: {run} has not ended")
    begins, ends = ([t.timestamp() for t in times] for times in zip(*map(_times, trials), strict=True))
    whole = max(ends) - min(begins)
    concurrent = max(1, round((sum(ends) - sum(begins)) / whole))
    plan = Plan.of(facts["options"], concurrent=concurrent, whole=portfolio_numbers(study))
    logs = {t.number: epochs_of(trial_log(run, t.number)) for t in trials}
    elapsed = whole * np.arange(0.25, 0.95, 0.01)
    left = np.array([seconds_left(plan, *as_of(min(begins) + moment, trials, logs)) for moment in elapsed])
    ratio = left / (whole - elapsed)
    return {
        "seconds": round(whole),
        "within": round(float(np.mean(np.abs(ratio - 1) <= 0.3)), 3),
        "left": np.quantile(ratio, (0, 1)).round(2).tolist(),
        "whole": np.quantile((elapsed + left) / whole, (0, 1)).round(2).tolist(),
    }


def _times(trial: FrozenTrial) -> tuple[datetime, datetime]:
    return trial.datetime_start, trial.datetime_complete


def as_of(
    now: float, trials: Sequence[FrozenTrial], logs: Mapping[int, dict[int, dict[str, float]]]
) -> tuple[list[FrozenTrial], dict[int, float]]:
    """The trials as they stood at a moment, and by number the seconds that running ones had trained."""
    known, spent = [], {}
    for trial in trials:
        begin, end = (time.timestamp() for time in _times(trial))
        if end <= now:
            known.append(trial)
        elif begin <= now:
            seconds = {epoch: entry["seconds"] for epoch, entry in logs[trial.number].items()}
            done = {epoch: value for epoch, value in seconds.items() if begin + value <= now}
            scores = {epoch: trial.intermediate_values[epoch] for epoch in done}
            running = create_trial(state=TrialState.RUNNING, intermediate_values=scores)
            running.number = trial.number
            known.append(running)
            spent |= {trial.number: max(done.values())} if done else {}
    return known, spent


if __name__ == "__main__":
    main()
