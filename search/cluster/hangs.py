"""Workers that no longer get anywhere."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster.nodes import nodes_of_trials
from search.cluster.pickling import NotPickled
from search.run_folder.paths import RunPaths
from search.text import duration

HANG_EPOCHS, HANG_SECONDS = 20, 300.0  # a worker hangs after 20 times its longest epoch, but never earlier
LOOK_SECONDS = 5.0


@dataclass
class Pace:
    """How long the epochs of a training take by its own clock: a continued one reports its earlier epochs at once."""

    training: int | str
    since: float  # of time.monotonic, when its last epoch was reported
    seconds: float  # of training, up to then
    longest: float  # seconds of an epoch
    address: str  # of its worker's node
    pid: int

    @property
    def limit(self) -> float:
        """Seconds after which its worker hangs."""
        return max(HANG_SECONDS, HANG_EPOCHS * self.longest)


@ray.remote(num_cpus=0)
def end_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)  # a stopped process hears nothing else


class Hangs(NotPickled, tune.Callback):
    """Ends workers that hang, from their first report on: Tune then has others continue their trainings."""

    def __init__(self, paths: RunPaths):
        self.paths = paths
        self.paces: dict[str, Pace] = {}  # by Tune's id
        self.looked = time.monotonic()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "epoch" not in result:
            return
        before, seconds = self.paces.get(trial.trial_id), result["seconds"]
        longest = seconds / result["epoch"]
        if before is not None:
            longest = max(longest, before.longest, seconds - before.seconds)
        address, pid = result["node_ip"], result["pid"]
        self.paces[trial.trial_id] = Pace(trial.config["training"], time.monotonic(), seconds, longest, address, pid)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.paces.pop(trial.trial_id, None)

    on_trial_error = on_trial_recover = on_trial_complete

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        now = time.monotonic()
        if now - self.looked > HANG_SECONDS / 2:  # it was this process that stood still
            for pace in self.paces.values():
                pace.since = now
        if now - self.looked > LOOK_SECONDS:
            self.looked = now
            for pace in self.paces.values():
                if now - pace.since > pace.limit:
                    self._end(pace, now)

    def _end(self, pace: Pace, now: float) -> None:
        waited, usual = duration(now - pace.since), duration(pace.longest)
        for node in nodes_of_trials():
            if node.address == pace.address:
                place = NodeAffinitySchedulingStrategy(node.id, soft=False)
                end_process.options(scheduling_strategy=place).remote(pace.pid)
                text = f"no epoch for {waited}, although none has taken longer than {usual}: the worker is ended"
                self.paths.note(pace.training, text)
                pace.since = now  # if it is still there, it is ended again after as long
                return
