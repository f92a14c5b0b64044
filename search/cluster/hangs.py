"""Workers that no longer get anywhere."""

import math
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray._private import state
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster.pickling import NotPickled
from search.run_folder.paths import RunPaths
from search.text import duration

HANG_EPOCHS, HANG_SECONDS = 20, 300.0  # a worker hangs after 20 times its longest epoch, but never earlier
FIRST_SECONDS = 1800.0  # the same before its first epoch has ended, after 20 times the longest of all trainings
LOOK_SECONDS = 5.0


@dataclass
class Pace:
    """How long the epochs of a training take by its own clock: a continued one reports its earlier epochs at once."""

    worker: ActorHandle
    training: int | str
    since: float  # of time.monotonic, when it started or its last epoch was reported
    seconds: float = 0.0  # of training, up to then
    longest: float = 0.0  # seconds of an epoch; 0 before the first one has ended


@ray.remote(num_cpus=0, max_retries=0)  # a later try could find another process under this id
def end_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)  # a stopped process hears nothing else


class Hangs(NotPickled, tune.Callback):
    """Ends workers that hang, once any epoch has ended: Tune then has others continue their trainings."""

    def __init__(self, paths: RunPaths):
        self.paths = paths
        self.paces: dict[str, Pace] = {}  # by Tune's id
        self.longest = 0.0  # epoch of all trainings, in seconds; 0 before one has ended
        self.looked = time.monotonic()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._see(trial)
        if "epoch" not in result or (pace := self.paces.get(trial.trial_id)) is None:
            return
        longest = max(pace.longest, result["seconds"] / result["epoch"])
        if pace.longest:
            longest = max(longest, result["seconds"] - pace.seconds)
        pace.since, pace.seconds, pace.longest = time.monotonic(), result["seconds"], longest
        self.longest = max(longest, self.longest)

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
            for trial in trials:
                self._see(trial)
            for pace in self.paces.values():
                usual = pace.longest or self.longest or math.inf
                if now - pace.since > max(HANG_SECONDS if pace.longest else FIRST_SECONDS, HANG_EPOCHS * usual):
                    self._end(pace, now - pace.since, usual)
                    pace.since = now  # if it is still there, it is ended again after as long

    def _see(self, trial: Any) -> None:
        """Note which worker a training has got, if any. Tune's callbacks tell of it only once it has answered."""
        worker, known = trial.temporary_state.ray_actor, self.paces.get(trial.trial_id)
        if worker is None or trial.is_finished():
            self.paces.pop(trial.trial_id, None)
        elif known is None or known.worker is not worker:
            self.paces[trial.trial_id] = Pace(worker, trial.config["training"], time.monotonic())

    def _end(self, pace: Pace, waited: float, usual: float) -> None:
        found = state.actors(pace.worker._actor_id.hex())
        if found.get("State") == "ALIVE":
            place = NodeAffinitySchedulingStrategy(found["Address"]["NodeID"], soft=False)
            end_process.options(scheduling_strategy=place).remote(found["Pid"])
            text = f"no epoch for {duration(waited)}, although none has taken longer than {duration(usual)}"
            self.paths.note(pace.training, f"{text}: the worker is ended")
