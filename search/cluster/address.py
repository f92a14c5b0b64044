"""Which Ray cluster a command joins. Light, so that the first line of a command can tell it."""

import os


def resolve_address(address: str | None) -> str | None:
    """The address of the Ray cluster to join: `address`, or RAY_ADDRESS as in `ray.init`; None for this machine."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def describe_start(address: str | None) -> str:
    """The first line of a command, which is followed by imports that take seconds."""
    cluster = resolve_address(address)
    place = "this machine" if cluster is None else f"the Ray cluster at {cluster}"
    return f"running on {place}; loading PyTorch, Ray and Optuna"
