"""How concurrent trials share the CPUs and GPUs of a machine or a cluster."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.options import ResourceOptions

Machine = Mapping[str, float]  # Ray's resources of a machine: CPU, GPU, …


@dataclass(frozen=True)
class Resources:
    """The share of each trial. Ray Tune asserts that the number of concurrent trials is an int."""

    concurrent: int  # trials that there is room for now, at least 1
    cpus: int  # per trial, at least 1
    gpus: float  # per trial, from 0 to 1; a fraction shares a GPU
    most: int | None = None  # trials, if nodes may join and leave; None if they may not
    asks: bool = False  # an autoscaler for the nodes that `most` trials need

    def __post_init__(self) -> None:
        assert type(self.concurrent) is int, self
        assert type(self.cpus) is int, self
        assert type(self.gpus) is float, self
        assert self.concurrent >= 1, self
        assert self.cpus >= 1, self
        assert 0 <= self.gpus <= 1, self

    def gpus_of(self, alone: bool) -> float:
        """Those of a trial that shares a GPU, or has one to itself."""
        return float(math.ceil(self.gpus)) if alone else self.gpus

    @property
    def total_cpus(self) -> int:
        return self.concurrent * self.cpus


def share_resources(
    machines: Sequence[Machine], options: ResourceOptions, *, trials: int, elastic: bool = False, per_gpu: int = 1
) -> Resources:
    """Share what the machines have among trials, each of which runs on one machine.

    options: what the user left open is None. trials: how many there are in all. elastic: whether machines may join and
    leave; then what is asked for may be more than there is room for now. per_gpu: trials that share a GPU unless the
    user has decided that.

    Raises `ValueError` if no machine has what was asked for.
    """
    concurrent, cpus, gpus = options.concurrent, options.cpus_per_trial, options.gpus_per_trial
    have = [_cpus_and_gpus(machine) for machine in machines]
    most_cpus, most_gpus, all_gpus = max(c for c, _ in have), max(g for _, g in have), sum(g for _, g in have)
    if gpus and not most_gpus:
        raise ValueError(f"--gpus-per-trial must be 0, because Ray knows of no GPU, but got {gpus:g}")
    if cpus is not None and cpus > most_cpus:
        raise ValueError(
            f"--cpus-per-trial must be at most the {most_cpus} CPUs of one machine, but got {cpus}: lower it"
        )

    if concurrent is None:  # some per GPU, else one per CPU
        concurrent = room(machines, cpus or 1, 1 / per_gpu if gpus is None else gpus) or room(machines, cpus or 1, 0.0)
    concurrent = min(concurrent, trials)
    if gpus is None:
        gpus = 1 / math.ceil(concurrent / all_gpus) if all_gpus else 0.0
    there = min(concurrent, room(machines, cpus or 1, gpus))
    if not there:
        raise ValueError(
            f"no machine has {cpus or 1} CPUs and {gpus:g} GPUs: lower --cpus-per-trial or --gpus-per-trial"
        )
    cpus = cpus or max(n for n in range(1, most_cpus + 1) if room(machines, n, gpus) >= there)
    if not elastic:
        return Resources(there, cpus, float(gpus))
    return Resources(there, cpus, float(gpus), most=min(options.concurrent or trials, trials), asks=concurrent > there)


def room(machines: Sequence[Machine], cpus: int, gpus: float) -> int:
    """How many trials with these resources can run at the same time."""
    have = map(_cpus_and_gpus, machines)
    return sum(min(c // cpus, _shares(g, gpus)) if gpus else c // cpus for c, g in have)


def _cpus_and_gpus(machine: Machine) -> tuple[int, int]:
    return int(machine.get("CPU", 0)), int(machine.get("GPU", 0))


def _shares(gpus: int, share: float) -> int:
    """How many trials can have this share of a GPU, which does not span two of them."""
    return gpus * math.floor(1 / share + 1e-9)
