"""Nodes that join and leave a cluster while it trains."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter

from search.cluster.nodes import Node, check_nodes, nodes_of_trials
from search.cluster.pickling import NotPickled
from search.cluster.resources import Resources, room
from search.cluster.sharing import all_can_map
from search.trial.device import MachineError
from voctrain.data import Data

LOOK_SECONDS = 5.0  # between two looks at the nodes


class Growth(NotPickled, tune.Callback):
    """Lets as many trials run as the nodes have room for. A node that joins counts once it has been checked.

    If it cannot run trials, `failure` tells why: Ray would give it some.
    """

    def __init__(self, limiter: ConcurrencyLimiter, resources: Resources, folder: Path, data: Data):
        self.limiter, self.resources, self.folder, self.data = limiter, resources, folder, data
        self.checked = {node.id for node in nodes_of_trials()}
        self.check: Future[None] | None = None
        self.checking: set[str] = set()
        self.looked = time.monotonic()
        self.failure: MachineError | None = None
        self.pool = ThreadPoolExecutor(1)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        if self.check is not None:
            self._finish_check()
        elif time.monotonic() - self.looked > LOOK_SECONDS:
            self.looked, nodes = time.monotonic(), nodes_of_trials()
            there = [node.resources for node in nodes if node.id in self.checked]
            self.limiter.max_concurrent = max(1, room(there, self.resources.cpus, self.resources.gpus))
            if joined := [node for node in nodes if node.id not in self.checked]:
                self.checking, self.check = {node.id for node in joined}, self.pool.submit(self._check, joined)

    def _check(self, nodes: list[Node]) -> None:
        check_nodes(nodes, self.folder)
        if self.data.file is not None and not all_can_map(nodes, self.data.file):
            names = ", ".join(node.name for node in nodes)
            raise ValueError(f"{names} joined the cluster and does not see {self.data.file.path}, which the others do")

    def _finish_check(self) -> None:
        assert self.check is not None
        if self.check.done():
            if error := self.check.exception():
                self.failure = MachineError(str(error))
            self.checked |= self.checking
            self.check = None
