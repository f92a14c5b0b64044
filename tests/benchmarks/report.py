"""How long the report of a large run takes, and how large it is.

python tests/benchmarks/report.py RUN: a copy of the run whose study holds its trials again and again, 500 in all.
Prints JSON: trials, seconds (of the whole command), megabytes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import create_trial

from search.run_folder.records import read_run
from search.study.journal import open_study, read_study
from search.study.trials import started_trials

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--trials", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        ignored = shutil.ignore_patterns("checkpoints", "ray", "study.journal*", "final")
        shutil.copytree(arguments.run, run, ignore=ignored)
        fill(run, started_trials(read_study(arguments.run / "study.journal")), arguments.trials)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "search.report", str(run)], check=True, cwd=ROOT, stdout=sys.stderr)
        seconds = time.perf_counter() - started
        size = (run / "report.html").stat().st_size / 1e6
        print(json.dumps({"trials": arguments.trials, "seconds": round(seconds, 1), "megabytes": round(size, 2)}))


def fill(run: Path, trials: list[optuna.trial.FrozenTrial], count: int) -> None:
    """A study of so many trials: those of a run, repeated with scores a little different."""
    rng = np.random.default_rng(0)
    study = open_study(run / "study.journal", optuna.samplers.RandomSampler(), read_run(run).id)
    for i in range(count):
        trial = trials[i % len(trials)]
        scores = {epoch: value * rng.uniform(0.9, 1.1) for epoch, value in trial.intermediate_values.items()}
        complete = trial.state == optuna.trial.TrialState.COMPLETE
        study.add_trial(
            create_trial(
                state=trial.state,
                value=max(scores.values(), default=0.0) if complete else None,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
                intermediate_values=scores,
            )
        )


if __name__ == "__main__":
    main()
