"""Environment variables of Ray's processes. They are set by a call, never by an import."""

import os

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


def set_environment() -> None:
    """Set what the user has not set. Ray reads it when it starts, and its processes on this machine inherit it."""
    for name, value in {**WORKERS, **DRIVER}.items():
        os.environ.setdefault(name, value)


def worker_environment() -> dict[str, str]:
    """The variables that the workers of an existing cluster need, as set here."""
    return {name: os.environ.get(name, value) for name, value in WORKERS.items()}
