"""The command line of `search.run`: light, so that --help answers at once."""

import argparse
import math
import os
import re
import signal
from collections.abc import Callable
from typing import Any

from search.command_line import outlive_readers

TASK_NAMES = ("classify", "segment", "attack")
SAMPLERS = ("tpe", "random", "qmc", "gp")
DEFAULTS: dict[str, Any] = {
    "data": "sample",
    "use_val": False,
    "trials": 50,
    "epochs": None,  # 27; the sample's own defaults are smaller
    "image_size": None,  # 300
    "sampler": "tpe",
    "seed": 0,
    "time_budget": None,
    "concurrent": None,
    "cpus_per_trial": None,
    "gpus_per_trial": None,
    "address": None,
    "out": "runs",
    "name": None,
    "resume": None,
    "warm_start": None,
    "space": None,
    "set": [],
    "weights": "none",
    "victim": None,
    "transfer": None,
    "goal": "fake",
    "min_ssim": 0.85,
    "max_ssim": None,  # 0.5, of the goal privacy
    "dry_run": False,
    "quiet": False,
}
# What may differ when a run is continued; the rest is the run's own. Files may have moved: they are checked to be the
# same.
CHANGEABLE = {
    *("data", "victim", "weights"),
    *("trials", "time_budget", "concurrent", "cpus_per_trial", "gpus_per_trial", "address"),
    *("dry_run", "quiet", "resume"),
}
# Of some arguments, the only tasks that take them.
TASKS_OF = {
    "weights": ("classify", "segment"),
    **dict.fromkeys(("victim", "transfer", "goal", "min_ssim", "max_ssim"), ("attack",)),
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def without_traceback(main: Callable[[], int]) -> int:
    """The exit status of a command, which Ctrl-C may end anywhere, and a reader of its output that leaves never."""
    outlive_readers()
    try:
        return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def resolve_address(address: str | None) -> str | None:
    """The address of the Ray cluster to join: `address`, else RAY_ADDRESS, as in `ray.init`; None for this machine."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def announce_start(address: str | None) -> None:
    """Say where Ray will run, at once: the imports that follow take seconds."""
    cluster = resolve_address(address)
    place = "this machine" if cluster is None else f"the Ray cluster at {cluster}"
    print(f"running on {place}; loading PyTorch, Ray and Optuna", flush=True)


def whole(low: int) -> Any:
    """An argument type: a whole number of at least `low`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {low}, but got {text!r}")
        return int(text)

    return parse


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf or (value > 1 and value != int(value)):
        raise argparse.ArgumentTypeError(f"must be 0, a fraction or a whole number of GPUs, but got {text!r}")
    return value


def part(text: str) -> float:
    """An argument type: a number between 0 and 1, both excluded."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1, but got {text!r}")
    return value


def seconds(text: str) -> float:
    """Seconds of a time such as 90s, 45m, 2h or 1h30m."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if (
        not text
        or not match
        or not (total := sum(float(n or 0) * f for n, f in zip(match.groups(), (3600, 60, 1), strict=True)))
    ):
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 45m, 2h or 1h30m, but got {text!r}")
    return total


def run_parser() -> Parser:
    """The parser of `search.run`; it leaves out what was not typed, see `DEFAULTS`."""
    parser = Parser(
        prog="python -m search.run",
        description="Search the hyperparameters of a task; keep the best checkpoint.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("task", choices=TASK_NAMES)
    add("--data", metavar="DIR", help="a VOC folder (Kaggle or devkit layout), voc2009, or sample (default)")
    add("--use-val", action="store_true", help="devkit: the labeled images are train.txt and val.txt")
    add("--trials", type=whole(1), metavar="N", help="trials in all, those of a continued run included (50)")
    add("--epochs", type=whole(1), metavar="N", help="epochs of a trial that is not pruned (27; the sample's are 15)")
    add("--image-size", type=whole(28), metavar="PX", help="side of the square images (300; the sample's is 64)")
    add("--sampler", choices=SAMPLERS, help="tpe (default); gp prunes nothing")
    add("--seed", type=whole(0), metavar="N", help="of the proposals and of the trainings (0)")
    add("--time-budget", type=seconds, metavar="TIME", help="such as 45m or 2h, earlier parts of the run included")
    add("--concurrent", type=whole(1), metavar="N", help="trials at a time (one a GPU, else one a CPU core)")
    add("--cpus-per-trial", type=whole(1), metavar="N", help="(the cores divided by --concurrent)")
    add(
        "--gpus-per-trial",
        type=share,
        metavar="F",
        help="may be a fraction (the GPUs divided by --concurrent, at most 1)",
    )
    add("--address", metavar="ADDR", help="Ray cluster to join, or local (RAY_ADDRESS, else local)")
    add("--out", metavar="DIR", help="where run folders go (runs)")
    add("--name", metavar="NAME", help="of the run folder (the task and the time)")
    add("--resume", metavar="RUN", help="continue or extend this run; only trials, time and resources may change")
    add("--warm-start", metavar="RUN", help="try the best configurations of another run first")
    add("--space", metavar="FILE.py", help="a search space of your own: suggest(trial, problem), as in spaces/")
    add(
        "--set", nargs="+", action="extend", metavar="key=value", help="pin searched parameters or configuration fields"
    )
    add("--weights", metavar="W", help="none (default), imagenet, published (segment), a weights file, or a run")
    of_attack = parser.add_argument_group("attack only")
    attack = of_attack.add_argument
    attack("--victim", metavar="V", help="a classify run or its best.pt (the newest classify run in --out)")
    attack("--transfer", metavar="V", help="another one, which the best attack is tried on when the run ends")
    attack("--goal", metavar="GOAL", help="fake (default), invert, hide:CLASS, add:CLASS or privacy")
    attack("--min-ssim", type=part, metavar="F", help="similarity to the images at which attacks are judged (0.85)")
    attack("--max-ssim", type=part, metavar="F", help="goal privacy: similarity at which an image is hidden (0.5)")
    add("--dry-run", action="store_true", help="say what would run, and how long, and stop")
    add("--quiet", action="store_true", help="print only the result")
    return parser
