"""Every command-line option, declared once: its name, type, default, help and rules.

A task adds its own options in a subclass, in search/tasks/<task>.py. Nothing here imports torch, Ray or Optuna.
"""

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

import spaces
from search.command_line import (
    Parser,
    gpu_share,
    integer,
    make_parser,
    option,
    options_of,
    seconds,
    tracker,
)
from voctrain.config import RESIZE

TASK_NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(spaces.__path__)))
SAMPLERS = ("tpe", "random", "qmc", "gp")


@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """Where trainings run, and with how much of it."""

    concurrent: int | None = option(
        None,
        "trials that run at the same time",
        parse=integer(1),
        metavar="N",
        group="resources",
        shown="as many as the GPUs have room for, or one per CPU core",
        resumable=True,
    )
    cpus_per_trial: int | None = option(
        None,
        "CPU cores of each trial",
        parse=integer(1),
        metavar="N",
        group="resources",
        shown="all cores divided by --concurrent",
        resumable=True,
    )
    gpus_per_trial: float | None = option(
        None,
        "share of a GPU of each trial, from 0 to 1",
        parse=gpu_share,
        metavar="F",
        group="resources",
        shown="all GPUs divided by --concurrent, at most 1",
        resumable=True,
    )
    address: str | None = option(
        None,
        "Ray cluster to join, or local",
        metavar="ADDR",
        group="resources",
        shown="the variable RAY_ADDRESS, or the cluster of ray start on this machine, or local",
        resumable=True,
        per_call=True,
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ResourceOptions):
    """The options of `search.run` that all tasks share."""

    data: str = option(
        "sample",
        "a folder of images with labels or masks, voc2009, or sample",
        metavar="DIR",
        group="data",
        resumable=True,
    )
    classes: str | None = option(
        None,
        "class names, one per line, or a labelmap.txt",
        metavar="FILE",
        group="data",
        shown="the set's own list",
    )
    mask_value: tuple[str, ...] = option(
        (),
        "what mask values mean: 255=1 or 7=cell (0 is background, 255 void)",
        metavar="VALUE=CLASS",
        many=True,
        group="data",
        shown="class numbers",
    )
    use_val: bool = option(False, "devkit layout: the labeled images are those of train.txt and val.txt", group="data")
    val: str | None = option(
        None,
        "validation images: a file of ids, val.txt (the set's own part), or K/N (fold K of N)",
        metavar="WHICH",
        group="data",
        shown="a stratified fifth",
    )
    group_by: str | None = option(
        None,
        r"keep images together whose ids agree in the first group of this expression, such as '(patient\d+)_'",
        metavar="REGEX",
        group="data",
        shown="the set's own groups, if any",
    )
    skip_bad: bool = option(False, "leave out files that cannot be read, and say how many", group="data")
    corrections: str | None = option(
        None,
        "a table with columns image, class and action, as search.audit writes it: ignore leaves an image out, flip"
        " changes a label",
        metavar="audit.csv",
        group="data",
        shown="none",
    )
    image_size: int | None = option(
        None,
        "side of the square images, in pixels",
        parse=integer(28),
        metavar="PX",
        group="data",
        shown="300; 64 for the sample",
    )
    store_size: int | None = option(
        None,
        "side of the images that random crops are taken from, in pixels",
        parse=integer(28),
        metavar="PX",
        group="data",
        shown="1.5 times --image-size",
    )
    resize: str | None = option(
        None,
        "how images become squares: squash them, pad them with black, or crop their center",
        choices=RESIZE,
        group="data",
        shown="squash; in an attack, the victim's",
    )

    trials: int = option(
        50,
        "total number of trials, including those of a continued run",
        parse=integer(1),
        metavar="N",
        group="search",
        resumable=True,
    )
    epochs: int | None = option(
        None,
        "epochs of a trial that is not pruned",
        parse=integer(1),
        metavar="N",
        group="search",
        shown="27, or 9 from pretrained weights; 15 for the sample",
    )
    time_budget: float | None = option(
        None,
        "stop after this time, such as 45m or 2h, including earlier parts of the run",
        parse=seconds,
        metavar="TIME",
        group="search",
        shown="unlimited",
        resumable=True,
    )
    sampler: str = option(
        "tpe",
        "what proposes configurations; gp learns from complete trials only, so it prunes nothing",
        choices=SAMPLERS,
        group="search",
    )
    seed: int = option(0, "random seed for sampling and training", parse=integer(0), metavar="N", group="search")
    space: str | None = option(
        None,
        "your own search space: a file that defines suggest(trial, problem), as in spaces/",
        metavar="FILE.py",
        group="search",
        shown="the task's",
    )
    set: tuple[str, ...] = option(
        (),
        "fix searched parameters or configuration fields",
        metavar="key=value",
        group="search",
        many=True,
        shown="none",
    )

    out: str = option(
        "runs", "folder of the run folders, or a URI such as s3://BUCKET/FOLDER", metavar="DIR", group="run"
    )
    name: str | None = option(
        None, "name of the run folder", metavar="NAME", group="run", shown="the task and the time", per_call=True
    )
    resume: str | None = option(
        None,
        "continue or extend this run; only the number of trials, the time budget and the resources may change",
        metavar="RUN",
        group="run",
        shown="start a new run",
        resumable=True,
        per_call=True,
    )
    warm_start: str | None = option(
        None,
        "try the best configurations of another run first",
        metavar="RUN",
        group="run",
        shown="no run",
    )
    log: str | None = option(
        None,
        "also log all trials to Weights & Biases or MLflow",
        parse=tracker,
        metavar="wandb:PROJECT|mlflow:URI",
        group="run",
        shown="the run folder only, with events for TensorBoard",
        resumable=True,
    )
    dry_run: bool = option(
        False,
        "print what would run and how long it would take, then stop",
        group="run",
        resumable=True,
        per_call=True,
    )
    quiet: bool = option(False, "print only the result", group="run", resumable=True, per_call=True)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class PretrainedOptions(SearchOptions):
    """The options of a task whose networks may start from pretrained weights."""

    weights: str | None = option(
        None,
        "initial weights: imagenet (the default), the tag of such weights in torchvision or timm, none (the default of"
        " the sample, whose images are drawn), published (whole segmenters), a weights file, or a run",
        metavar="W",
        group="model",
        resumable=True,
    )


def task_options(task: str) -> type[SearchOptions]:
    """The options of `search.run` for a task. Tasks are found by name, in search/tasks/."""
    return importlib.import_module(f"search.tasks.{task}").TASK.options


def run_parser() -> Parser:
    """The parser of `search.run`, with the options of all tasks."""
    users: dict[str, set[str]] = {}  # tasks by group of options
    for task in TASK_NAMES:
        for name, how in options_of(task_options(task)).items():
            if name not in options_of(SearchOptions):
                users.setdefault(how.group, set()).add(task)
    parser = make_parser(
        "python -m search.run",
        "Search the hyperparameters of a task and keep the best checkpoint.",
        "  python -m search.run classify --trials 50\n"
        "  python -m search.run classify --data DIR --weights imagenet --image-size 224 --time-budget 2h",
        SearchOptions,
        *map(task_options, TASK_NAMES),
        titles={group: f"{group} ({' and '.join(sorted(tasks))})" for group, tasks in users.items()},
    )
    parser.add_argument("task", choices=TASK_NAMES, help="what to search")
    return parser
