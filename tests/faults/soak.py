"""Random faults at random moments of a search, until all of its trials have ended; then everything must be there once.

    python -m tests.faults.soak --seeds 10                       # forty faults of all kinds in each of ten searches
    python -m tests.faults.soak --seeds 10 --faults 10 --trials 12 --concurrent 1 --only kill_driver

Prints one JSON line for each seed; "wrong" must be empty. With --concurrent 1 the study must also be that of a search
that nobody has disturbed. The full disk is a mounted one, which needs root on Linux; elsewhere it is left out.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from search.run_folder.lock import lock
from search.run_folder.paths import RunPaths
from search.running.checking import check_run
from search.study.trials import Attr
from tests.faults.drivers import check_best, trials_of
from tests.faults.strikes import EPOCHS, FAULTS, Search, fill_disk
from tests.search.runs import data_of, rows_of
from voctrain.data.sample import make_sample
from voctrain.deploy import load
from voctrain.metrics.classification import classify_metrics

DISK = 64  # MB
GIVE_UP = 80  # drivers


def disturb(search: Search, faults: list[Callable[[Search], bool]]) -> Counter[str]:
    """Let the faults strike while the trials advance, then let the search end. Returns those that have struck."""
    struck: Counter[str] = Counter()
    trials = search.options.trials
    waiting = deque((0.9 * i * trials / len(faults), fault) for i, fault in enumerate(faults))
    while len(search.statuses) < GIVE_UP:
        if waiting and search.ended() >= waiting[0][0]:
            time.sleep(search.rng.random() * (0.5 if search.processes("ray::classify") else 10))  # a start takes longer
            if waiting[0][1](search):
                _, fault = waiting.popleft()
                struck[fault.__name__] += 1
                print(f"{time.strftime('%X')} {search.ended()} of {trials}, {fault.__name__}", file=sys.stderr)
        if search.driver.running():
            time.sleep(0.1)
        elif search.end() == 0 and (not waiting or search.ended() == trials):
            return struck
        else:
            search.start()
    search.wrong.append(f"{GIVE_UP} drivers were not enough")
    return struck


def judge(search: Search) -> Iterator[str]:
    """What is wrong with a search that has ended."""
    folder, trials = search.folder, trials_of(search.folder)
    if [trial.number for trial in trials] != list(range(search.options.trials)):
        yield f"its trials are {[trial.number for trial in trials]}"
    if len({json.dumps(trial.user_attrs[Attr.CONFIG], sort_keys=True) for trial in trials}) != len(trials):
        yield "a configuration has run twice"
    if len(rows_of(folder)) != len(trials):
        yield "trials.csv has other trials"
    for trial in trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            yield f"trial {trial.number} is {trial.state.name}: {trial.user_attrs}"
        if sorted(trial.intermediate_values) != list(range(1, len(trial.intermediate_values) + 1)):
            yield f"trial {trial.number} has the epochs {sorted(trial.intermediate_values)}"
        if trial.number not in search.restarted and (lost := lost_epochs(folder, trial.number)):
            yield f"trial {trial.number} has lost epochs: {lost}"
    try:
        check_best(folder, trials)
        data, best = data_of(folder), torch.load(folder / "best.pt", weights_only=True)
        images = torch.from_numpy(data.images[data.val]).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            score = classify_metrics(data.labels[data.val], load(folder / "best.pt")(images).numpy())["val_mAP"]
        if abs(score - best["score"]) > 0.01:
            yield f"the weights in best.pt score {score}, not {best['score']}"
        lock(RunPaths(folder)).release()
        meant = [str(RunPaths(folder).checkpoint(number)) for number in search.restarted]  # of trials that had ended
        yield from (d for d in map(str, check_run(folder, repair=False)) if not d.startswith(tuple(meant)))
    except (AssertionError, ValueError, OSError) as error:
        yield f"{type(error).__name__}: {error}"


def lost_epochs(folder: Path, trial: int) -> list[str]:
    """The epochs that were trained again although their state had been saved, which is after each one but the last.

    A process that continues a training first tells its earlier epochs, all with the seconds that they took together.
    """
    lost, reached = [], 0
    for life in RunPaths(folder).log(trial).read_text().split("training ")[1:]:
        told = [(int(epoch), seconds) for epoch, seconds in re.findall(r"epoch (\d+), seconds ([\d.e+]+)", life)]
        again = sum(seconds == told[0][1] for _, seconds in told) if reached and told else 0
        if told and again < min(reached, EPOCHS - 1):
            lost.append(f"{again + 1} to {reached}")
        reached = max(reached, *(epoch for epoch, _ in told), 0)
    return lost


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of its own on a folder; yields whether that was possible."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", folder], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def soak(seed: int, options: argparse.Namespace) -> dict[str, object]:
    rng, started = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak") as place, small_disk(Path(place)) as has_disk:
        root = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        make_sample(root / "set", num_labeled=120, num_unlabeled=1, max_size=40)
        weights = {fault: weight for fault, weight in FAULTS.items() if has_disk or fault is not fill_disk}
        if options.only:
            weights = {fault: 1 for fault in weights if fault.__name__ in options.only}
        search = Search(root, "run", rng, options)
        struck = disturb(search, rng.choices(list(weights), list(weights.values()), k=options.faults))
        wrong = [*search.wrong, *judge(search)]
        if options.concurrent == 1:
            undisturbed = Search(root, "undisturbed", rng, options)
            disturb(undisturbed, [])
            wrong += differences(trials_of(undisturbed.folder), trials_of(search.folder))
        if wrong and options.keep:
            shutil.copytree(root, Path(options.keep, str(seed)), symlinks=True)
    return {
        "seed": seed,
        "trials": options.trials,
        "faults": dict(sorted(struck.items())),
        "drivers": dict(sorted(Counter(search.statuses).items())),
        "seconds": round(time.monotonic() - started),
        "wrong": wrong,
    }


def differences(expected: list[FrozenTrial], found: list[FrozenTrial]) -> Iterator[str]:
    for one, other in zip(expected, found, strict=True):
        for field in ("params", "state", "values", "intermediate_values"):
            if getattr(one, field) != getattr(other, field):
                yield f"trial {one.number}: {field} {getattr(other, field)}, undisturbed {getattr(one, field)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="number of searches")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=40, help="in each search")
    parser.add_argument("--trials", type=int, default=60, help="of each search")
    parser.add_argument("--concurrent", type=int, default=2, help="trials at a time")
    parser.add_argument("--only", nargs="+", help="these kinds of faults, by the names of their functions")
    parser.add_argument("--keep", help="a folder for the runs of searches with which something is wrong")
    options, wrong = parser.parse_args(), False
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell's background jobs, nohup's, and their children ignore them
        signal.signal(number, signal.SIG_DFL)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        result = soak(seed, options)
        wrong |= bool(result["wrong"])
        print(json.dumps(result), flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
