"""Machines of several shapes, with GPUs that only Ray believes in. Run with `pytest -n 0 -m faults`."""

import os
import subprocess
import sys

import pytest
from ray.cluster_utils import Cluster

from search.trial.device import FAKE_GPUS
from tests.search.runs import rows_of

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("machines", "trials", "shown"),
    [
        (((16, 1),), 2, ("a trial takes up to", " of its time: 2 share one\n", "2 at a time")),
        (((8, 2), (4, 0)), 2, ("2 at a time",)),
        (((8, 4), (8, 4)), 3, ("3 at a time",)),
        (((2, 0), (2, 1)), 1, ("1 at a time",)),  # the GPU is not where most CPUs are free
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) and isinstance(value[0], tuple) else "",
)
def test_default_arguments_suit_every_shape(machines, trials, shown, dataset, space, tmp_path, monkeypatch):
    monkeypatch.setenv(FAKE_GPUS, "1")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = [{"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": 2**28} for cpus, gpus in machines]
    cluster = Cluster(initialize_head=True, head_node_args={**nodes[0], "include_dashboard": False})
    try:
        for node in nodes[1:]:
            cluster.add_node(**node)
        words = ("--data", dataset, "--space", space, "--out", tmp_path, "--name", "run", "--address", cluster.address)
        words = (*words, "--image-size", 32, "--epochs", 1, "--trials", trials)
        done = subprocess.run(
            [sys.executable, "-m", "search.run", "classify", *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "RAY_ADDRESS": ""},
            timeout=200,
        )
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done
    assert done.stderr == ""
    for text in shown:
        assert text in done.stdout
    assert [row["state"] for row in rows_of(tmp_path / "run")] == ["complete"] * trials
