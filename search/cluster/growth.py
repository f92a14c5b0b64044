"""Nodes that join and leave a cluster while it trains."""

import threading
import time
from typing import Any

import ray
from ray import tune
from ray.autoscaler.sdk import request_resources
from ray.tune.search import ConcurrencyLimiter

from search.cluster.nodes import Node, check_nodes, nodes_of_trials
from search.cluster.pickling import NotPickled
from search.cluster.resources import Resources, room
from search.cluster.sharing import all_can_map
from search.run_folder.paths import RunPaths
from search.text import one_line
from search.trial.device import MachineError
from voctrain.data import Data

LOOK_SECONDS = 5.0  # between two looks at the nodes


class Growth(NotPickled, tune.Callback):
    """Lets as many trials run as the nodes have room for. A node that joins counts once it has been checked.

    If one cannot run trials, `failure` tells why: Ray would give it some.
    """

    def __init__(self, limiter: ConcurrencyLimiter, resources: Resources, paths: RunPaths, data: Data):
        assert resources.most is not None
        self.limiter, self.resources, self.paths, self.data = limiter, resources, paths, data
        self.most = resources.most
        self.checked = {node.id for node in nodes_of_trials()}
        self.check: threading.Thread | None = None
        self.looked = time.monotonic()
        self.failure: MachineError | None = None

    def __enter__(self) -> None:
        if self.resources.asks:
            trial = {"CPU": self.resources.cpus, "GPU": self.resources.gpus}
            request_resources(bundles=[{name: n for name, n in trial.items() if n}] * self.most)

    def __exit__(self, *exception: object) -> None:
        if self.resources.asks and ray.is_initialized():
            request_resources(bundles=[])

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked, nodes = time.monotonic(), nodes_of_trials()
        there = [node.resources for node in nodes if node.id in self.checked]
        space = room(there, self.resources.cpus, self.resources.gpus)
        self.limiter.max_concurrent = max(1, min(self.most, space))
        joined = [node for node in nodes if node.id not in self.checked]
        if joined and (self.check is None or not self.check.is_alive()):
            self.check = threading.Thread(target=self._check, args=(joined,), daemon=True)
            self.check.start()

    def _check(self, nodes: list[Node]) -> None:
        try:
            check_nodes(nodes, self.paths)
            if self.data.file is not None and not all_can_map(nodes, self.data.file):
                raise ValueError(
                    f"a node has joined that does not see {self.data.file.path}: keep it, and a continued run sends all"
                    " nodes a copy, or remove it"
                )
        except Exception as error:
            self.failure = MachineError(one_line(error))
        self.checked |= {node.id for node in nodes}
