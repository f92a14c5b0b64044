"""The token of a Ray cluster. Ray itself would print why it is refused for 20 seconds."""

import os
from contextlib import closing

import grpc
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]  # Cython
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

MODE = "RAY_AUTH_MODE"
ANSWER_SECONDS = 10.0


class TokenRefused(ValueError):
    """The cluster requires a token that this user does not have. The message is one line."""


def use_token(address: str) -> None:
    """Let this process use its token if the cluster at `address`, host:port, requires one.

    Raises `TokenRefused`, and `ConnectionError` if no cluster answers.
    """
    if _accepts(address):
        return
    os.environ.setdefault(MODE, "token")
    Config.initialize("")  # reads the variable again
    if not AuthenticationTokenLoader.instance().has_token() or not _accepts(address):
        raise TokenRefused(
            f"the Ray cluster at {address} requires its token: put what `ray get-auth-token` prints on its head node"
            f" into ~/.ray/auth_token here, and leave {MODE} unset"
        )


def _accepts(address: str) -> bool:
    """Whether the cluster accepts what this process sends."""
    with closing(init_grpc_channel(address)) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise ConnectionError(error.details()) from None
        return True
