"""Whether a Ray cluster answers, and takes our token. Ray itself would print why it does not for 20 seconds."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants, worker
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]  # Cython
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from search.text import size

MODE = "RAY_AUTH_MODE"
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 5.0  # between two looks at a cluster in use
LOOK_HERE_SECONDS = 0.5  # at Ray's processes on this machine: two seconds after the raylet dies, Ray prints its log
NEEDED = 100_000_000  # bytes of shared memory, and on the disk of Ray's folder; with less, its processes crash
VITAL = {ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER}
PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own
LOST_PART = 0.5  # of Ray's patience, after which a cluster counts as lost


class TokenRefused(ValueError):
    """The cluster requires a token that this user does not have. The message is one line."""


def use_token(address: str) -> None:
    """Let this process use its token if the cluster at `address`, host:port, requires one.

    Raises `TokenRefused`, and `ConnectionError` if no cluster answers.
    """
    if cluster_id(address) is not None:
        return
    os.environ.setdefault(MODE, "token")
    Config.initialize("")  # reads the variable again
    if not AuthenticationTokenLoader.instance().has_token() or cluster_id(address) is None:
        raise TokenRefused(
            f"the Ray cluster at {address} requires its token: put what `ray get-auth-token` prints on its head node"
            f" into ~/.ray/auth_token here, and leave {MODE} unset"
        )


def cluster_id(address: str) -> bytes | None:
    """The id of the cluster at `address`; None if it refuses our token. Raises `ConnectionError` if none answers."""
    with closing(init_grpc_channel(address)) as channel:
        try:
            answer = NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return None
            raise ConnectionError(error.details()) from None
        return answer.cluster_id


class HeadWatch:
    """While it is entered, calls `on_loss` with a line about it if the cluster at `address` is gone or another one.

    address: None for one on this machine, of which a process may be killed to save memory.

    Ray itself would end this process after a minute, with lines of its own.
    """

    def __init__(self, address: str | None, on_loss: Callable[[str], None]):
        self.address, self.on_loss, self.over = address, on_loss, threading.Event()

    def __enter__(self) -> None:
        if self.address is None:
            threading.Thread(target=self._watch_processes, daemon=True).start()
        elif not self.address.startswith("ray://"):
            found = ray.get_runtime_context().gcs_address
            threading.Thread(target=self._watch, args=(found,), daemon=True).start()

    def __exit__(self, *exception: object) -> None:
        self.over.set()

    def _watch_processes(self) -> None:
        while not self.over.wait(LOOK_HERE_SECONDS):
            node: Any = vars(worker)["_global_node"]  # this process's own, if it has started one
            if node is not None and (dead := VITAL & {kind for kind, _ in node.dead_processes()}):
                return self._lost(f"Ray's {min(dead)} on this machine has been killed: {lacking()}")
        return None

    def _watch(self, address: str) -> None:
        known, answered = None, time.monotonic()
        patience = float(os.environ.get(PATIENCE, 60))
        while not self.over.wait(LOOK_SECONDS):
            with suppress(ConnectionError):
                found, answered = cluster_id(address) or known, time.monotonic()
                if known not in (None, found):
                    return self._lost(f"the Ray cluster at {address} has been restarted: start it again")
                known = found
            if (waited := time.monotonic() - answered) > LOST_PART * patience:
                return self._lost(f"the Ray cluster at {address} has not answered for {waited:.0f} s: start it again")
        return None

    def _lost(self, cause: str) -> None:
        if not self.over.is_set():
            self.on_loss(cause)


def lacking() -> str:
    """What Ray may have lacked on this machine, and what to do."""
    for place in (Path("/dev/shm"), Path(get_default_ray_temp_dir())):
        there = next(p for p in (place, *place.parents) if p.exists())
        if place.parent.exists() and (free := shutil.disk_usage(there).free) < NEEDED:
            return f"no space left on {place}, {size(free)} free, and Ray needs {size(NEEDED)}: free some"
    return "free memory and processors"


def is_plain(address: str) -> bool:
    """Whether this is host:port."""
    return re.fullmatch(r"[^:/]+:\d+", address) is not None
