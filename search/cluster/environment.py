"""The environment of Ray's processes: variables, and our code. It is set by a call, never by an import."""

import json
import os
from typing import Any

from ray.runtime_env import RuntimeEnv

import search
import spaces
import voctrain

WORKERS = {
    # Workers keep the memory that they free: otherwise a tenth of a CPU training goes into page faults (see mallopt).
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_MMAP_THRESHOLD_": str(2**31),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
DRIVER = {
    # No noise, and nothing of Tune's that is not used.
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # Tune's own snapshots are never read
    "RAY_AIR_NEW_OUTPUT": "0",
}
PACKAGES = (search, spaces, voctrain)
SENT = (  # to existing clusters: where prepared images and pretrained weights are, and where trackers log to
    *("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME"),
    *("WANDB_BASE_URL", "WANDB_ENTITY"),
)


def set_environment() -> None:
    """Set what the user has not set. Ray reads it when it starts, and its processes on this machine inherit it."""
    for name, value in {**WORKERS, **DRIVER}.items():
        os.environ.setdefault(name, value)


def runtime_environment() -> RuntimeEnv:
    """Ray's `runtime_env` on an existing cluster: our packages and variables, so its nodes need only our dependencies.

    What the Ray job of this process sets already is left out, because Ray refuses to be told twice.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    variables = {name: os.environ.get(name, value) for name, value in WORKERS.items()}
    variables |= {name: os.environ[name] for name in SENT if name in os.environ}
    sent: dict[str, Any] = {"py_modules": [package.__path__[0] for package in PACKAGES], "excludes": ["__pycache__"]}
    sent = {name: value for name, value in sent.items() if name not in job}
    known = job.get("env_vars", {})
    return RuntimeEnv(**sent, env_vars={name: value for name, value in variables.items() if name not in known})
