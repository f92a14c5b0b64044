import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_ADDRESS"] = "local"  # not the cluster of whoever runs the tests

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Golden numbers and exact resume hold for a fixed thread count."""
    torch.set_num_threads(1)
