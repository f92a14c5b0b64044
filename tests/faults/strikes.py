"""The faults that can strike a search, and a search that is started again after each."""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from search.running.checking import check_run
from tests.faults.drivers import Driver, trials_of

EPOCHS = 9


class Search:
    """A search that is started again until it is done."""

    def __init__(self, root: Path, name: str, rng: random.Random, options: argparse.Namespace):
        self.folder, self.rng, self.options = root / name, rng, options
        self.restarted: set[int] = set()  # trials whose checkpoint has been damaged
        self.statuses: list[int] = []  # of its drivers
        self.wrong: list[str] = []
        self.start()

    def start(self) -> None:
        arguments: tuple[object, ...] = ("--resume", self.folder)
        if not (self.folder / "run.json").exists():
            arguments = ("--data", self.folder.parent / "set", "--image-size", 32, "--epochs", EPOCHS, "--seed", 5)
            arguments = (*arguments, "--trials", self.options.trials, "--set", "architecture=simple")
            arguments = (*arguments, "--out", self.folder.parent, "--name", self.folder.name)
        self.driver, self.status = Driver(self.folder, *arguments, concurrent=self.options.concurrent), None

    def end(self) -> int:
        """The exit status of the driver, once it has ended. Its last words are judged."""
        if self.status is None:
            self.status, said = self.driver.end(), self.driver.said()
            self.statuses.append(self.status)
            if "Traceback" in said or said.count("error: ") > 1:
                self.wrong.append(f"status {self.status} and more than a line: {said[-2000:]}")
            if self.status in (1, 2) and "error: " not in said and self.driver.reader.returncode == 0:
                self.wrong.append(f"status {self.status} without a line: {said[-2000:]}")
        return self.status

    def ended(self) -> int:
        """The number of trials that have ended."""
        with contextlib.suppress(OSError):  # not there yet, or no space for a copy
            return sum(trial.state.is_finished() for trial in trials_of(self.folder))
        return 0

    def processes(self, name: str) -> list[int]:
        """Those that Ray has started for the driver and that have this in their command line."""
        return [pid for pid, command in self.driver.others() if name in command]


# Each fault returns whether it has struck. The first ones leave it to the search how to go on.


def kill_worker(search: Search) -> bool:
    return _signal(search.processes("ray::classify"), signal.SIGKILL, search)


def stop_worker(search: Search) -> bool:
    return _signal(search.processes("ray::classify"), signal.SIGSTOP, search)


def _signal(processes: list[int], number: signal.Signals, search: Search) -> bool:
    with contextlib.suppress(ProcessLookupError):
        if processes:
            os.kill(search.rng.choice(processes), number)
            return True
    return False


def kill_raylet(search: Search) -> bool:
    return _signal(search.processes("/raylet/raylet "), signal.SIGKILL, search)


def kill_gcs(search: Search) -> bool:
    if not search.processes("ray::classify"):  # while it starts, Ray itself tells of the loss, after a minute
        return False
    return _signal(search.processes("/gcs/gcs_server "), signal.SIGKILL, search)


def close_output(search: Search) -> bool:
    search.driver.reader.kill()
    return True


def fill_disk(search: Search) -> bool:
    ballast = search.folder.parent / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    time.sleep(search.rng.uniform(0.5, 3))
    ballast.unlink()
    return True


def start_another(search: Search) -> bool:
    """A second driver of the same run is refused."""
    if not (search.folder / "run.json").exists():
        return False
    command = [sys.executable, "-m", "search.run", "classify", "--resume", str(search.folder)]
    other = subprocess.run(command, capture_output=True, text=True)
    if search.driver.running() and (other.returncode, "is used by another process" in other.stderr) != (2, True):
        search.wrong.append(f"a second driver ended with {other.returncode}: {other.stderr}")
    return search.driver.running()


def kill_driver(search: Search) -> bool:
    return _end(search, signal.SIGKILL)


def terminate_driver(search: Search) -> bool:
    return _end(search, signal.SIGTERM)


def interrupt_driver(search: Search) -> bool:
    return _end(search, signal.SIGINT)


def hang_up(search: Search) -> bool:
    return _end(search, signal.SIGHUP)


def _end(search: Search, number: signal.Signals) -> bool:
    alive = search.driver.running()
    search.driver.process.send_signal(number)
    status = search.end()
    if alive and status not in (-number, 128 + number, 0):
        search.wrong.append(f"signal {number} ended it with {status}: {search.driver.said()[-2000:]}")
    return alive


# The others damage files while no driver runs.


def tear_journal(search: Search) -> bool:
    """Cut the last line of the journal, as a crash of the machine does."""
    if not (search.folder / "run.json").exists():
        return False
    kill_driver(search)
    journal = search.folder / "study.journal"
    content = journal.read_bytes().rstrip(b"\n")
    os.truncate(journal, search.rng.randint(content.rindex(b"\n") + 1, len(content)))
    return True


def damage_checkpoint(search: Search) -> bool:
    if not list(search.folder.glob("checkpoints/*/*.pt")):
        return False
    kill_driver(search)
    if not (files := sorted(search.folder.glob("checkpoints/*/*.pt"))):
        return False
    file = search.rng.choice(files)
    search.restarted.add(int(file.parent.name))
    _damage(file, search.rng)
    if search.rng.random() < 0.5:  # otherwise the search finds out by itself
        _repair(search, file)
    return True


def damage_best(search: Search) -> bool:
    file = search.folder / "best.pt"
    if not file.exists():
        return False
    kill_driver(search)
    _damage(file, search.rng)
    _repair(search, file)
    return True


def damage_record(search: Search) -> bool:
    record = search.folder / "run.json"
    if not record.exists():
        return False
    kill_driver(search)
    os.truncate(record, search.rng.randrange(record.stat().st_size))
    search.start()
    if search.end() != 2 or "search.check" not in search.driver.said():
        search.wrong.append(f"a damaged run.json is not named: {search.driver.said()[-2000:]}")
    _repair(search, record)
    return True


def _damage(file: Path, rng: random.Random) -> None:
    """Cut a file, or flip a byte of it."""
    content = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        file.write_bytes(content[: rng.randrange(len(content))])
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)


def _repair(search: Search, file: Path) -> None:
    found = [str(damage) for damage in check_run(search.folder, repair=True)]
    if not any("repaired" in line for line in found):
        search.wrong.append(f"damage of {file} is not repaired: {found}")
    if left := list(check_run(search.folder, repair=False)):
        search.wrong.append(f"after the repair of {file}: {left}")


FAULTS: dict[Callable[[Search], bool], int] = {  # with their weights
    kill_worker: 12,
    stop_worker: 5,
    kill_raylet: 2,
    kill_gcs: 2,
    close_output: 3,
    fill_disk: 4,
    start_another: 2,
    kill_driver: 4,
    terminate_driver: 1,
    interrupt_driver: 1,
    hang_up: 1,
    tear_journal: 2,
    damage_checkpoint: 3,
    damage_best: 1,
    damage_record: 1,
}
