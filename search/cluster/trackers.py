"""Experiment trackers: Ray's own callbacks for Weights & Biases and MLflow, which a failure of theirs switches off."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback

from search.cluster.pickling import NotPickled
from search.text import first_line

# MLflow itself asks a server that is away for minutes, and the search would wait.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

UPLOAD_SECONDS = 60  # that Weights & Biases gets at the end of a search for what is not sent yet


def check_tracker(log: str) -> None:
    """Raise `ValueError` unless this tracker, wandb:PROJECT or mlflow:URI, can be used from here."""
    name, _, place = log.partition(":")
    if find_spec(name) is None:
        raise ValueError(f"--log {name} needs {name}: install it with pip install -e '.[{name}]'")
    try:
        if name == "wandb":
            WandbLoggerCallback(project=place).setup()
        else:
            from mlflow import MlflowClient

            _be_impatient()
            MlflowClient(place).search_experiments(max_results=1)
    except Exception as error:  # of any kind
        repair = (
            "run `wandb login`, or set WANDB_API_KEY" if name == "wandb" else "correct the URI, or start the server"
        )
        raise ValueError(f"--log {log} cannot be used ({first_line(error)}): {repair}") from None


def make_tracker(log: str | None, folder: Path, warn: Callable[[str], None]) -> "Tracker | None":
    """The tracker of the run in `folder`, under whose name it groups trials. warn: called if it fails."""
    if log is None:
        return None
    name, _, place = log.partition(":")
    if name == "wandb":
        where = {"group": folder.name, "dir": str(folder), "mode": os.environ.get("WANDB_MODE")}
        return Tracker(WandbLoggerCallback(project=place, upload_timeout=UPLOAD_SECONDS, **where), warn)
    _be_impatient()
    return Tracker(MLflowLoggerCallback(place, experiment_name=folder.name), warn)


def _be_impatient() -> None:
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)


def _passed_on(event: str) -> Callable[..., None]:
    def method(self: "Tracker", *args: Any, **info: Any) -> None:
        if self.callback is not None:
            try:
                getattr(self.callback, event)(*args, **info)
            except Exception as error:  # Tune would end the search
                self.callback = None
                self.warn(f"--log has ended, and the search goes on without it: {first_line(error)}")

    return method


class Tracker(NotPickled, tune.Callback):
    """Passes Tune's events on to another callback until that fails."""

    def __init__(self, callback: tune.Callback, warn: Callable[[str], None]):
        self.callback: tune.Callback | None = callback
        self.warn = warn

    setup = _passed_on("setup")
    on_trial_start = _passed_on("on_trial_start")
    on_trial_restore = _passed_on("on_trial_restore")
    on_trial_result = _passed_on("on_trial_result")
    on_trial_complete = _passed_on("on_trial_complete")
    on_trial_error = _passed_on("on_trial_error")
    on_experiment_end = _passed_on("on_experiment_end")
