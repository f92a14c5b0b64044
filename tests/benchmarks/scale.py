"""What the driver of a large search costs per trial, as JSON: a real search whose workers are simulated.

All of the driver is real: `run_search` with its study, sampler, ASHA, publishing, display (as on a terminal) and Ray
Tune itself. Only Tune's actors are replaced: they train nothing and take no time, but report as workers do and write
their weights at the rungs. The driver is therefore always busy, which no real search makes it, and all that it does at
intervals of time is shared among more trials than it would otherwise be.

Each block is the last `BLOCK` of a number of trials, and its figures are per trial: driver_ms (all but the sampler and
the simulated workers) and Tune's part of it, sampler_ms (with `of_cpu`: processor time of the main thread, which other
processes disturb less than wall-clock time), journal_bytes. files: those that the driver has opened for writing,
renamed, or deleted, and folders that it has deleted, without the journal. memory_mb is that of the process.
"""

import argparse
import dataclasses
import heapq
import itertools
import json
import math
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import ray
import torch
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.execution import tune_controller

import search.running.driver as driver
from search.cluster.asha import StudyASHA
from search.cluster.connection import CONNECTION, set_environment
from search.cluster.execution import Ticker
from search.cluster.hangs import Hangs
from search.cluster.resources import Resources
from search.cluster.searcher import StudySearcher
from search.cluster.tensorboard import TensorBoard
from search.reporter import Reporter
from search.run_folder.files import write_torch
from search.session.session import Session, claim, open_session
from search.study.quiet import quiet_optuna
from search.study.sampler import SeededSampler
from search.study.trials import asha_rungs
from search.trial.training import WEIGHTS, pack

BLOCK = 100
BLOCKS = (100, 500, 1000, 2000)


class Clock:
    """Seconds of wall-clock time and of the main thread, by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self.stack, self.since = ["tune"], self._now()

    def _now(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.thread_time()])

    def _switch(self) -> None:
        now = self._now()
        self.spent[self.stack[-1]] += now - self.since
        self.since = now

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        self._switch()
        self.stack.append(what)
        try:
            yield
        finally:
            self._switch()
            self.stack.pop()

    def watch(self, what: str, owner: type, *names: str) -> None:
        """Count the time in these methods."""
        for name in names:
            setattr(owner, name, self._counted(what, getattr(owner, name)))

    def _counted(self, what: str, method: Callable) -> Callable:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.on(what):
                return method(*args, **kwargs)

        return counted


class Event(NamedTuple):
    """Something that a simulated worker has done."""

    at: float  # in simulated seconds
    order: int
    actor: TrackedActor | None  # None: not to be forgotten with the actor's tasks
    happen: Callable[[], None]


class SimulatedWorkers:
    """In place of Tune's `RayActorManager`: actors whose trainings take no time. `session` and `clock` are set before.

    A training's score rises towards one that depends on its learning rate and on chance.
    """

    session: Session
    clock: Clock

    def __init__(self, **given: Any) -> None:
        self.events: list[Event] = []
        self.order, self.now = itertools.count(), 0.0
        self.jobs: dict[TrackedActor, dict] = {}
        self.epochs: Counter[TrackedActor] = Counter()
        self.best: dict[TrackedActor, tuple[int, dict[str, float]]] = {}  # epoch and metrics
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple] = {}

    @property
    def num_live_actors(self) -> int:
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_total_actors(self) -> int:
        return len(self.jobs)

    @property
    def num_pending_actors(self) -> int:
        return self.num_total_actors - self.num_live_actors

    @property
    def num_actor_tasks(self) -> int:
        return len(self.events)

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        return False

    def _plan(self, after: float, happen: Callable[[], None], actor: TrackedActor | None = None) -> None:
        heapq.heappush(self.events, Event(self.now + after, next(self.order), actor, happen))

    def next(self, timeout: float | None = None) -> bool:
        if not self.events:
            return False
        self.now, _, _, happen = heapq.heappop(self.events)
        happen()
        return True

    def add_actor(self, cls: Any, kwargs: dict, resource_request: Any, **calls: Callable) -> TrackedActor:
        actor = TrackedActor(next(self.order), **calls)
        self.jobs[actor] = kwargs["config"]

        def start() -> None:
            self._live_actors_to_ray_actors_resources[actor] = (None, None)
            calls["on_start"](actor)

        self._plan(1, start)
        return actor

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        self.jobs.pop(tracked_actor)
        self._live_actors_to_ray_actors_resources.pop(tracked_actor, None)
        if (on_stop := tracked_actor._on_stop) is not None:
            self._plan(0, lambda: on_stop(tracked_actor))
        return True

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        self.events = [event for event in self.events if event.actor is not tracked_actor]
        heapq.heapify(self.events)

    def cleanup(self) -> None:
        self.events.clear()

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: tuple = (),
        kwargs: dict | None = None,
        on_result: Callable[..., None] = lambda *result: None,  # of "stop"
        **ignored: Any,
    ) -> None:
        if method_name == "reset":
            self.jobs[tracked_actor] = args[0] if args else (kwargs or {})["new_config"]
            self.epochs[tracked_actor] = 0
            self._plan(0, lambda: on_result(tracked_actor, True), tracked_actor)
        elif method_name == "train":
            with self.clock.on("workers"):
                seconds, result = self._train(tracked_actor)

            def report() -> None:
                with self.clock.on("workers"):
                    self._save(tracked_actor)
                on_result(tracked_actor, result)

            self._plan(seconds, report, tracked_actor)

    def _train(self, actor: TrackedActor) -> tuple[float, dict]:
        """Simulated seconds of an epoch, and its report."""
        job, session = self.jobs[actor], self.session
        self.epochs[actor] += 1
        epoch, number, epochs = self.epochs[actor], job["training"], session.record.epochs
        rng = np.random.default_rng((number, 1))
        end = 0.5 - 0.1 * abs(math.log10(job["config"]["lr"]) + 2.5) + 0.05 * rng.normal()
        noise = 0.01 * rng.normal(size=epoch)[-1]
        score = round(float(max(0.0, end * (1 - math.exp(-3 * epoch / epochs)) + noise)), 4)
        seconds = float(rng.uniform(1, 4)) * 60 / epochs
        metrics = {session.task.metric: score} | {
            name: float(rng.random()) for name in ("train_loss", "val_loss", "val_dice", "val_macro_AP", "val_f1", "lr")
        }
        if epoch == 1 or score > self.best[actor][1][session.task.metric]:
            self.best[actor] = epoch, metrics
        report = {"epoch": epoch, "seconds": seconds * epoch, "memory_gb": 0.5, **metrics}
        own = {"time_this_iter_s": seconds, "time_total_s": seconds * epoch, "time_since_restore": seconds * epoch}
        return seconds, report | own | {
            "training_iteration": epoch,
            "iterations_since_restore": epoch,
            "done": epoch == epochs,
            "trial_id": "",
            "date": time.strftime("%Y-%m-%d_%H-%M-%S"),
            "timestamp": int(time.time()),
            "pid": os.getpid(),
            "hostname": "simulated",
            "node_ip": "127.0.0.1",
            "config": job,
        }

    def _save(self, actor: TrackedActor) -> None:
        """Write the best weights when a worker does."""
        job, (epoch, metrics), epochs = self.jobs[actor], self.best[actor], self.session.record.epochs
        score = metrics[self.session.task.metric]
        if self.epochs[actor] not in (*asha_rungs(epochs), epochs) or score <= job["min_score"]:
            return
        data, rng = self.session.data, np.random.default_rng(job["training"])
        y_true = data.labels[data.val]
        predictions = {
            "ids": np.array([data.ids[i] for i in data.val]),
            "y_true": y_true,
            "y_prob": np.clip(0.3 * y_true + 0.7 * rng.random(y_true.shape), 0, 1).astype(np.float32),
        }
        saved = {
            "task": self.session.task.name,
            "config": job["config"],
            "classes": list(data.classes),
            "image_size": self.session.record.image_size,
            "model": {"weight": torch.zeros(10_000)},
            "metrics": metrics,
            "epoch": epoch,
            "score": score,
            "predictions": pack(predictions),
        }
        write_torch(self.session.paths.checkpoint(job["training"]) / WEIGHTS, saved)


class FileCounter:
    """Counts what this process does with files, see above."""

    def __init__(self, journal: Path):
        self.count, self.counts, self.journal = 0, True, str(journal)
        sys.addaudithook(self._seen)

    def _seen(self, event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else (flags & (os.O_WRONLY | os.O_RDWR))
            self.count += bool(writes and isinstance(path, str) and not path.startswith(self.journal))
        elif event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            self.count += not str(args[0]).startswith(self.journal)


class Ledger:
    """What has been spent when each trial ended."""

    def __init__(self, clock: Clock, session: Session, files: FileCounter):
        self.clock, self.files, self.journal = clock, files, session.paths.journal
        self.rows: list[dict[str, float]] = [self._row()]
        end = StudySearcher.on_trial_complete

        def counted(*args: Any, **kwargs: Any) -> None:
            end(*args, **kwargs)
            self.rows.append(self._row())

        StudySearcher.on_trial_complete = counted

    def _row(self) -> dict[str, float]:
        row: dict[str, float] = {"files": self.files.count}
        for what in ("tune", "ours", "sampler", "workers"):
            row[what], row[f"{what}_cpu"] = self.clock.spent[what].tolist()
        row["journal"] = self.journal.stat().st_size if self.journal.exists() else 0
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return row | {"memory": pages * os.sysconf("SC_PAGE_SIZE")}

    def block(self, until: int) -> dict[str, float]:
        """Figures per trial, of the last block of these trials."""
        first, last = self.rows[max(0, until - BLOCK)], self.rows[until]
        part = {name: (last[name] - first[name]) / min(BLOCK, until) for name in last}
        ms = {name: round(1000 * part[name], 1) for name in part}
        return {
            "driver_ms": round(ms["tune"] + ms["ours"], 1),
            "driver_ms_of_cpu": round(ms["tune_cpu"] + ms["ours_cpu"], 1),
            "tune_ms": ms["tune"],
            "tune_ms_of_cpu": ms["tune_cpu"],
            "sampler_ms": ms["sampler"],
            "sampler_ms_of_cpu": ms["sampler_cpu"],
            "files": round(part["files"], 1),
            "journal_bytes": round(part["journal"]),
            "memory_mb": round(last["memory"] / 1e6, 1),
        }


def watch(clock: Clock) -> None:
    clock.watch("sampler", SeededSampler, "infer_relative_search_space", "sample_relative", "sample_independent")
    clock.watch("ours", StudySearcher, "suggest", "on_trial_result", "on_trial_complete")
    clock.watch("ours", StudyASHA, "on_trial_add", "on_trial_result", "on_trial_complete", "on_trial_remove")
    clock.watch("ours", Ticker, "on_trial_start", "on_step_end")
    for callback in (TensorBoard, Hangs):
        clock.watch("ours", callback, "on_trial_result", "on_trial_complete", "on_trial_error")
    clock.watch("ours", Hangs, "on_step_end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--concurrent", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--profile", metavar="FILE", help="also write a profile of the driver")
    arguments = parser.parse_args()
    os.environ["TTY_COMPATIBLE"] = "1"  # rich draws as on a terminal; --quiet throws it away
    with tempfile.TemporaryDirectory() as folder, quiet_optuna():
        options = {name: getattr(arguments, name) for name in ("trials", "epochs", "sampler")}
        session = open_session(
            "classify", options | {"out": folder, "quiet": True, "image_size": 32, "address": "local"}, Reporter(True)
        )
        resources = Resources(arguments.concurrent, cpus=1, gpus=0.0)
        set_environment()
        ray.init("local", num_cpus=1, include_dashboard=False, **CONNECTION)
        session = claim(dataclasses.replace(session, resources=resources))
        clock = SimulatedWorkers.clock = Clock()
        SimulatedWorkers.session = session
        watch(clock)
        ledger = Ledger(clock, session, FileCounter(session.paths.journal))
        with mock.patch.object(tune_controller, "RayActorManager", SimulatedWorkers):
            run(session, arguments.profile)
        ended = len(ledger.rows) - 1
        result = {
            "processor": re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0],
            "bfloat16": torch.cpu.get_capabilities().get("avx512_bf16", False),
            "concurrent": arguments.concurrent,
            "epochs": arguments.epochs,
            "sampler": arguments.sampler,
            "minutes": round((time.perf_counter() - START) / 60, 1),
            "after": {str(n): ledger.block(n) for n in sorted({*(b for b in BLOCKS if b < ended), ended})},
        }
        ray.shutdown()
        session.close()
    print(json.dumps(result, indent=1))


def run(session: Session, profile: str | None) -> None:
    if profile is None:
        driver.run_search(session, "")
        return
    import cProfile

    with cProfile.Profile() as profiler:
        driver.run_search(session, "")
    profiler.dump_stats(profile)


START = time.perf_counter()

if __name__ == "__main__":
    main()
