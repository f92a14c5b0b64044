"""Which Ray cluster a command joins. Light, so that the first line of a command can tell it."""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

CHECK_SECONDS = 2.0  # that a cluster of this machine has to answer
AS_JOINED = "; --address local stays out of it"  # said where nobody has asked for it


def resolve_address(address: str | None) -> str | None:
    """The address of the Ray cluster to join, or None for one of this command's own.

    As in `ray.init`, it is `address`, or else RAY_ADDRESS, or else the cluster of `ray start` on this machine.
    """
    address = address or os.environ.get("RAY_ADDRESS") or started_here()
    return None if address in (None, "local") else address


def started_here() -> str | None:
    """The address of the cluster that this user has started, or joined, on this machine with `ray start`, if it runs.

    Ray keeps it in a file, which stays behind if the cluster is killed.
    """
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
    place = next((os.environ[name] for name in variables if name in os.environ), "/tmp")
    file = Path(place, "ray", "ray_current_cluster")
    with suppress(OSError, ValueError):
        if file.stat().st_uid == os.getuid():
            address = file.read_text().strip()
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=CHECK_SECONDS).close()
            return address
    return None


def describe_start(address: str | None) -> str:
    """The first line of a command, which is followed by imports that take seconds."""
    cluster = resolve_address(address)
    place = "this machine" if cluster is None else f"the Ray cluster at {cluster}"
    asked = address or os.environ.get("RAY_ADDRESS")
    return f"running on {place}; loading PyTorch, Ray and Optuna{'' if cluster is None or asked else AS_JOINED}"
