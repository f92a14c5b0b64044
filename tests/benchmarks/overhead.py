"""What the search costs on top of its trainings, as JSON: a real search, then its trainings again in a bare loop.

The bare loop trains the configurations of the search's trials, in their order and each for as many epochs, in as many
processes with as many threads, and does nothing else. It runs right after the search; both take minutes, so the figures
mean something only on a machine that has nothing else to do.

extra_seconds_per_trial: from the first training's start to the end of the command, less the bare loop, over the trials.
Before it are start_seconds: imports, data, the start of Ray and its workers; the bare loop's are not counted either. Of
the difference, training_seconds are those that the trainings themselves took longer (of both processes together), and
shutdown_seconds lie after the report.
driver_cpu: CPU time of the started process over that period; ray_cpu: of what Ray runs beside it and the workers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from search.cluster.connection import available
from search.cluster.resources import share_resources
from search.reporter import Reporter
from search.run_folder.paths import RunPaths
from search.run_folder.records import RunRecord, read_run
from search.study.journal import read_study
from search.study.trials import Attr, started_trials
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import Data, load

CORES = len(os.sched_getaffinity(0))
POLL_SECONDS = 0.02
SAMPLE_SECONDS = 0.5  # between two looks at the CPU times
TICK = os.sysconf("SC_CLK_TCK")


class CpuTimes:
    """CPU seconds of a process and its descendants, those that ended included as far as they were seen."""

    def __init__(self, root: int):
        self.root = root
        self.processes: dict[int, tuple[str, float]] = {}  # kind, seconds

    def sample(self) -> dict[str, float]:
        """Seconds up to now by kind: driver (the root), workers (which train) and ray (all others)."""
        parents, seconds = {}, {}
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = file.read_text().rpartition(")")[2].split()
                pid = int(file.parent.name)
                parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK
        family = {self.root} & parents.keys()
        while children := {p for p, parent in parents.items() if parent in family} - family:
            family |= children
        for pid in family:
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                kind = "driver" if pid == self.root else "workers" if title.startswith(b"ray::") else "ray"
                if not title and pid in self.processes:  # one that has just ended
                    kind, _ = self.processes[pid]
                self.processes[pid] = kind, seconds[pid]
        return {k: sum(s for kind, s in self.processes.values() if kind == k) for k in ("driver", "workers", "ray")}


def run_search(arguments: list[str], run: Path) -> dict[str, float]:
    """Run `search.run`: wall seconds of its parts, and CPU seconds from the first training's start on."""
    with open(run.parent / "search.log", "w+") as log:
        begun, wall = time.monotonic(), time.time()
        command = [sys.executable, "-m", "search.run", "classify", *arguments]
        driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        times = CpuTimes(driver.pid)
        while driver.poll() is None and not any(run.glob("logs/*")):
            time.sleep(POLL_SECONDS)
        started, first = time.monotonic(), times.sample()
        last, due = first, started
        while driver.poll() is None:
            if time.monotonic() > due:
                last, due = times.sample(), time.monotonic() + SAMPLE_SECONDS
            time.sleep(POLL_SECONDS)
        ended = time.monotonic()
        if driver.returncode:
            log.seek(0)
            raise SystemExit(f"the search ended with {driver.returncode}:\n{log.read()}")
    reported = begun + (run / "report.html").stat().st_mtime - wall
    seconds = {"start": started - begun, "search": ended - started, "shutdown": ended - reported}
    return seconds | {f"{kind}_cpu": last[kind] - first[kind] for kind in last}


def trainings(run: Path) -> list[tuple[dict[str, Any], int]]:
    """Configuration and epochs of each trial, by number; a trial that diverged did so in an epoch more."""
    trials = started_trials(read_study(run / "study.journal"))
    return [(t.user_attrs[Attr.CONFIG], len(t.intermediate_values) + (Attr.ERROR in t.user_attrs)) for t in trials]


def bare_loop(jobs: list[tuple[dict[str, Any], int]], record: RunRecord) -> tuple[float, float, float]:
    """Train them all: wall seconds, and wall and CPU seconds of the trainings themselves."""
    options = record.options
    resources = share_resources(available(None, RunPaths(Path()), options, Reporter()), options, trials=options.trials)
    concurrent, threads = resources.concurrent, resources.cpus
    data = load(options.data, image_size=record.image_size, use_val=options.use_val)
    data = data.with_split(record.split.train, record.split.val)
    context = get_context("spawn")
    ready = context.Barrier(concurrent + 1)
    with context.Pool(concurrent, set_up, (data, threads, ready)) as pool:
        ready.wait()
        begun = time.monotonic()
        parts = list(pool.imap_unordered(train, jobs, chunksize=1))
        return time.monotonic() - begun, sum(wall for wall, _ in parts), sum(cpu for _, cpu in parts)


def set_up(data: Data, threads: int, ready: Barrier) -> None:
    torch.set_num_threads(threads)
    train.data = data
    ready.wait()


def train(job: tuple[dict[str, Any], int]) -> tuple[float, float]:
    """Wall and CPU seconds of one training."""
    config, epochs = job
    begun, cpu = time.monotonic(), time.process_time()
    with suppress(FloatingPointError, torch.OutOfMemoryError):
        for _ in islice(classify.train(ClassifyConfig.from_dict(config), train.data), epochs):
            pass
    return time.monotonic() - begun, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the search costs beside training; prints JSON.")
    parser.add_argument("--data", metavar="DIR", default="sample")
    parser.add_argument("--trials", type=int, metavar="N", default=50)
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--image-size", type=int, metavar="PX")
    parser.add_argument("--seed", type=int, metavar="N", default=0)
    parser.add_argument("--out", metavar="DIR", help="an existing folder to keep the run in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(args.out or temporary).resolve() / "overhead"
        given = vars(args) | {"out": str(run.parent), "name": run.name}
        flags = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None]
        search = run_search([text for flag in flags for text in flag], run)
        jobs = trainings(run)
        bare, bare_training, bare_cpu = bare_loop(jobs, read_run(run))
        reported = [t.user_attrs.get(Attr.SECONDS, 0.0) for t in started_trials(read_study(run / "study.journal"))]
    result = {
        "trials": len(jobs),
        "epochs": sum(epochs for _, epochs in jobs),
        "extra_seconds_per_trial": (search["search"] - bare) / len(jobs),
        "driver_cpu": {
            "of_one_core": search["driver_cpu"] / search["search"],
            "of_the_machine": search["driver_cpu"] / search["search"] / CORES,
        },
        "ray_cpu_of_the_machine": search["ray_cpu"] / search["search"] / CORES,
        "start_seconds": search["start"],
        "search_seconds": search["search"],
        "shutdown_seconds": search["shutdown"],
        "bare_seconds": bare,
        "training_seconds": {"search": sum(reported), "bare": bare_training},
        "worker_cpu_seconds": {"search": search["workers_cpu"], "bare": bare_cpu},
        "cores": CORES,
        "torch": torch.__version__,
    }
    print(json.dumps(_rounded(result), indent=1))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
