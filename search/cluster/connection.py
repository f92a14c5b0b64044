"""The connection to Ray: a cluster for as long as it is needed."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants, worker
from ray.autoscaler.sdk import request_resources

from search.cluster.environment import runtime_environment, set_environment
from search.cluster.head import TokenRefused, is_plain, lacking, use_token
from search.cluster.nodes import Node, check_nodes, nodes_of_trials
from search.cluster.resources import room
from search.options import ResourceOptions
from search.reporter import Reporter
from search.run_folder.paths import RunPaths
from search.text import first_line

CONNECTION: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "ignore_reinit_error": True}
START_ATTEMPTS = 2
SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # its effect is the same on Linux


class RayStartError(RuntimeError):
    """Ray did not start on this machine. The message is one line."""


@contextmanager
def own_connection() -> Iterator[None]:
    """Disconnect from Ray afterwards, and end a cluster that was started, unless there was a connection before."""
    before, anywhere, say = ray.is_initialized(), ray_constants.ENABLE_RAY_CLUSTER, worker.print_to_stdstream
    try:
        yield
    finally:
        worker.print_to_stdstream = say
        if not before:
            ray.shutdown()
            ray_constants.ENABLE_RAY_CLUSTER = anywhere


def available(
    address: str | None, paths: RunPaths, options: ResourceOptions, reporter: Reporter
) -> list[dict[str, float]]:
    """CPUs and GPUs of this machine, or of each node of the Ray cluster at `address`, to which it connects.

    Waits for the first node of a cluster that has none yet for trials. Raises `ValueError` if there is no such cluster,
    or a node of it cannot run trials or does not reach `paths`.
    """
    if address is None:
        # macOS has no sched_getaffinity.
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{"CPU": cpus, "GPU": torch.cuda.device_count()}]
    connect(address, 0)
    nodes = nodes_of_trials() or _first_nodes(options, reporter)
    check_nodes(nodes, paths)
    return [node.resources for node in nodes]


def _first_nodes(options: ResourceOptions, reporter: Reporter) -> list[Node]:
    """Wait for a node that a trial can run on; an autoscaler is asked for one."""
    cpus, gpus = options.cpus_per_trial or 1, options.gpus_per_trial or 0
    wanted = f"{cpus} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    reporter.status(f"no node of the cluster has {wanted} for trials yet: waiting for one")
    request_resources(bundles=[{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}])
    try:
        while True:
            nodes = nodes_of_trials()
            if room([node.resources for node in nodes], cpus, gpus):
                return nodes
            time.sleep(1)
    finally:
        request_resources(bundles=[])


def connect(address: str | None, cpus: int) -> str:
    """Connect to the Ray cluster at `address`, or start one on this machine, which ends with this process.

    Returns where the dashboard is. Raises `ValueError` if there is no such cluster and `RayStartError` if Ray does not
    start here; on a loaded machine its processes may time out, so it gets a second try.
    """
    set_environment()
    worker.print_to_stdstream = lambda *args, **kwargs: None  # paragraphs about lost workers, amid our display
    context = _start(cpus) if address is None else _join(address)
    for noisy in ("ray.tune", "tensorboardX"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    url = context.dashboard_url
    return f"open the dashboard at http://{url} with the token of ray get-auth-token" if url else "no dashboard"


def _start(cpus: int) -> Any:
    if ray.is_initialized():  # by our caller
        return ray.init("local", **CONNECTION)
    ray_constants.ENABLE_RAY_CLUSTER = False  # its processes listen on loopback only
    before, cause = os.environ.get(SWITCH), Exception()
    os.environ[SWITCH] = "0"
    try:
        for _ in range(START_ATTEMPTS):
            try:
                context: Any = ray.init("local", num_cpus=cpus, include_dashboard=True, **CONNECTION)
                os.chmod(context.address_info["session_dir"], 0o700)  # logs and sockets
                return context
            except Exception as error:  # a bare one if Ray's processes time out
                ray.shutdown()
                cause = error
    finally:
        del os.environ[SWITCH]
        if before is not None:
            os.environ[SWITCH] = before
    raise RayStartError(
        f"Ray did not start on this machine in {START_ATTEMPTS} attempts ({first_line(cause)}): {lacking()}, look at"
        f" Ray's logs in {get_default_ray_temp_dir()}/session_latest/logs, and run the command again"
    )


def _join(address: str) -> Any:
    try:
        if is_plain(address):  # Ray itself would try for minutes
            use_token(address)
        return ray.init(address, runtime_env=runtime_environment(), **CONNECTION)
    except TokenRefused:
        raise
    except Exception as error:
        raise ValueError(
            f"no Ray cluster at {address} ({first_line(error)}): correct --address or RAY_ADDRESS, or run on this"
            " machine with --address local"
        ) from None
