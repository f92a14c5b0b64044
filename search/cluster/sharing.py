"""How the workers of a cluster get the data."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ray

from search.cluster.nodes import Node, ask_nodes, nodes_of_trials
from voctrain.data import Data
from voctrain.data.array_file import ArrayFile, open_arrays


@ray.remote(num_cpus=0)
def can_map(prepared: tuple[Path, str]) -> bool:
    """Whether a worker sees this file of prepared images, with this checksum."""
    file, checksum = prepared
    found = open_arrays(file)
    return found is not None and found.checksum == checksum


def for_workers(data: Data, address: str | None) -> Data:
    """The data as the workers get them: as a reference to the file of prepared images, which each machine maps.

    If a node of the cluster at `address` does not see that file, Ray copies the arrays to each node instead.
    """
    if address is None or data.file is None:
        return data
    return data if all_can_map(nodes_of_trials(), data.file) else dataclasses.replace(data, file=None)


def all_can_map(nodes: Sequence[Node], file: ArrayFile) -> bool:
    """Whether these nodes see the file of prepared images."""
    return all(answer for _, answer in ask_nodes(nodes, can_map, lambda node: (file.path, file.checksum)))
