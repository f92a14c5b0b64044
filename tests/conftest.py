import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_ADDRESS"] = "local"  # not the cluster of whoever runs the tests

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Golden numbers and exact resume hold for a fixed thread count."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Bucket:
    """Of an object server on this machine."""

    uri: str
    server: Any

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Stop the server for a while."""
        self.server.stop()
        self.server._server.server_close()  # which `stop` leaves open
        try:
            yield
        finally:
            self.server.start()


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A bucket, with its endpoint and credentials in the environment."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, server._port = server.get_host_and_port()  # it comes back there
    access = {"AWS_ENDPOINT_URL": f"http://{host}:{server._port}", "AWS_REGION": "us-east-1"}
    access |= {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "do-not-tell"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in access.items():
            patch.setenv(name, value)
        FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")[0].create_dir("bucket")
        yield Bucket("s3://bucket", server)
    server.stop()
