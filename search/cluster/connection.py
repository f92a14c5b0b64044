"""Ray: a cluster for as long as it is needed, and Tune executing what the study asks for."""

import logging
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    # Workers keep what they free: without it a tenth of a CPU training goes into page faults (see glibc's mallopt).
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_MMAP_THRESHOLD_": str(2**31),
    # No noise, and nothing of Tune's that we do not use.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # Tune's own snapshots: we never read them
    "RAY_AIR_NEW_OUTPUT": "0",
}
os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})

import ray  # noqa: E402  reads the settings above
import torch  # noqa: E402

CONNECTION = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
START_ATTEMPTS = 2


class RayStartError(RuntimeError):
    """Ray did not start on this machine. The message is one line."""


def available(address: str | None, folder: Path) -> list[dict[str, float]]:
    """CPUs and GPUs of this machine, or of each node of the Ray cluster at `address`, to which it connects.

    Raises `ValueError` if there is no such cluster or its nodes do not share `folder`.
    """
    if address is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has it not
        return [{"CPU": cpus, "GPU": torch.cuda.device_count()}]
    connect(address, 0)
    check_shared(folder)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def connect(address: str | None, cpus: int) -> str:
    """Connect to the Ray cluster at `address`, or start one on this machine, which ends with this process.

    Returns where the dashboard is. Raises `ValueError` if there is no such cluster and `RayStartError` if Ray does not
    start here; on a loaded machine its processes may time out, so it gets a second try.
    """
    context = _start(cpus) if address is None else _join(address)
    for noisy in ("ray.tune", "tensorboardX"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    url = context.dashboard_url
    return f"dashboard http://{url} (token: ray get-auth-token)" if url else "no dashboard"


def _start(cpus: int) -> Any:
    cause = None
    for _ in range(START_ATTEMPTS):
        try:
            return ray.init("local", num_cpus=cpus, include_dashboard=True, **CONNECTION)
        except Exception as error:  # a bare one where Ray's processes time out
            ray.shutdown()
            cause = error
    raise RayStartError(
        f"Ray did not start on this machine in {START_ATTEMPTS} attempts ({first_line(cause)}): free memory and"
        " processors, look at Ray's logs in /tmp/ray/session_latest/logs, and run the command again"
    )


def _join(address: str) -> Any:
    try:
        if place := re.fullmatch(r"([^:/]+):(\d+)", address):  # Ray itself would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        return ray.init(address, **CONNECTION)
    except Exception as error:
        raise ValueError(
            f"no Ray cluster at {address} ({first_line(error)}): correct --address or RAY_ADDRESS, set"
            " RAY_AUTH_MODE=token if the cluster requires its token, or run on this machine with --address local"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of what an error says, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@ray.remote(num_cpus=0)
def shares(file: str) -> bool:
    """Whether a worker sees this file of the driver's, and may write beside it."""
    return os.path.exists(file) and os.access(os.path.dirname(file), os.W_OK)


def check_shared(folder: Path) -> None:
    """Refuse a cluster whose nodes do not share `folder`: checkpoints and logs go there."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not ray.get(shares.options(scheduling_strategy=strategy).remote(file.name)):
                raise ValueError(
                    f"node {node['NodeManagerHostname']} does not see, or cannot write, what this machine has in"
                    f" {folder}, where checkpoints go: give --out on a file system that all nodes share"
                )
