"""The connection to Ray: a cluster for as long as it is needed."""

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster.environment import set_environment, worker_environment
from search.text import first_line

CONNECTION: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
START_ATTEMPTS = 2


class RayStartError(RuntimeError):
    """Ray did not start on this machine. The message is one line."""


@contextmanager
def own_connection() -> Iterator[None]:
    """Disconnect from Ray afterwards, and end a cluster that was started, unless there was a connection before."""
    before = ray.is_initialized()
    try:
        yield
    finally:
        if not before:
            ray.shutdown()


def available(address: str | None, folder: Path) -> list[dict[str, float]]:
    """CPUs and GPUs of this machine, or of each node of the Ray cluster at `address`, to which it connects.

    Raises `ValueError` if there is no such cluster or its nodes do not share `folder`.
    """
    if address is None:
        # macOS has no sched_getaffinity.
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{"CPU": cpus, "GPU": torch.cuda.device_count()}]
    connect(address, 0)
    check_shared(folder)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def connect(address: str | None, cpus: int) -> str:
    """Connect to the Ray cluster at `address`, or start one on this machine, which ends with this process.

    Returns where the dashboard is. Raises `ValueError` if there is no such cluster and `RayStartError` if Ray does not
    start here; on a loaded machine its processes may time out, so it gets a second try.
    """
    set_environment()
    context = _start(cpus) if address is None else _join(address)
    for noisy in ("ray.tune", "tensorboardX"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    url = context.dashboard_url
    return f"dashboard http://{url} (token: ray get-auth-token)" if url else "no dashboard"


def _start(cpus: int) -> Any:
    cause: Exception = RuntimeError()
    for _ in range(START_ATTEMPTS):
        try:
            return ray.init("local", num_cpus=cpus, include_dashboard=True, **CONNECTION)
        except Exception as error:  # a bare one if Ray's processes time out
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
        return ray.init(address, runtime_env={"env_vars": worker_environment()}, **CONNECTION)
    except Exception as error:
        raise ValueError(
            f"no Ray cluster at {address} ({first_line(error)}): correct --address or RAY_ADDRESS, set"
            " RAY_AUTH_MODE=token if the cluster requires its token, or run on this machine with --address local"
        ) from None


@ray.remote(num_cpus=0)
def can_write_beside(file: str) -> bool:
    """Whether a worker sees this file of the driver's, and may write to its folder."""
    return os.path.exists(file) and os.access(os.path.dirname(file), os.W_OK)


def check_shared(folder: Path) -> None:
    """Raise `ValueError` for a cluster whose nodes do not share `folder`, where checkpoints and logs are written."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for node, can_write in ask_nodes(can_write_beside, file.name):
            if not can_write:
                raise ValueError(
                    f"node {node} cannot read or write {folder}, where checkpoints are written: give --out a folder"
                    " that all nodes share"
                )


def ask_nodes(question: Any, *arguments: object) -> Iterator[tuple[str, Any]]:
    """The host name of each node of the cluster, and its answer: the result of a remote function there."""
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            yield (
                node["NodeManagerHostname"],
                ray.get(question.options(scheduling_strategy=strategy).remote(*arguments)),
            )
