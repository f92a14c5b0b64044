"""One call of `search.run`, checked as far as it can be before anything starts."""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search.cluster.connection import available
from search.cluster.resources import Resources, share_resources
from search.options import CHANGEABLE, DEFAULTS, TASKS_OF, resolve_address
from search.run_folder.files import typed
from search.run_folder.records import read_run
from search.running.live import reading, say
from search.running.publishing import lock
from search.session.problem import NAMED_WEIGHTS, Problem, load_space, make_problem, parse_settings
from search.study.journal import read_study
from search.study.sampler import PRUNING_SAMPLERS
from search.study.time_left import Plan
from search.study.trials import started_trials
from search.tasks import TASKS
from search.tasks.victims import digest, find_victim, image_size_of
from voctrain.data import DIGITS, Data, load

IMAGE_SIZE, EPOCHS = 300, 27
SAMPLE_IMAGE_SIZE, SAMPLE_EPOCHS = 64, 15  # of the built-in sample: minutes, not hours
DIGITS_SIZE = 28
PUBLISHED = "published segmentation weights, trained on COCO's masks of VOC's classes: a track of its own"
PACKAGES = ("voc-search", "torch", "torchvision", "ray", "optuna", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Session:
    """What a checked call will do."""

    folder: Path
    resumed: bool
    arguments: dict[str, Any]  # all of them, resolved
    facts: dict[str, Any]  # run.json
    data: Data
    problem: Problem
    address: str | None  # of the Ray cluster to join; None starts one on this machine
    resources: Resources
    ended: int  # trials of its earlier parts

    @property
    def complete(self) -> bool:
        """Whether all of its trials have ended already."""
        return self.ended >= self.arguments["trials"]

    @property
    def plan(self) -> Plan:
        """What it will do, for telling how long it takes."""
        whole = range(len(self.problem.portfolio()))
        return Plan.of(self.arguments, concurrent=self.resources.concurrent, whole=whole)

    @property
    def command(self) -> str:
        """What a person types to go on."""
        return f"python -m search.run {self.facts['task']} --resume {typed(self.folder)}"


def prepare(given: Mapping[str, Any]) -> Session:
    """Check a call and load its data. given: the arguments that were typed.

    Raises `ValueError` or `OSError`, in one line, for a mistake of the user; nothing has been written then.
    """
    for name in given:
        if given["task"] not in TASKS_OF.get(name, (given["task"],)):
            raise ValueError(f"--{name.replace('_', '-')} goes with {' and '.join(TASKS_OF[name])} only: leave it out")
    resumed = given.get("resume") is not None
    if resumed:
        folder = Path(given["resume"]).resolve()
        facts = read_run(folder)
        arguments = _continued_arguments(given, facts, folder)
        lock(folder)
    else:
        arguments = _new_arguments(given)
        folder = _new_folder(arguments)
    task = TASKS[arguments["task"]]
    load_space(arguments["space"], task)
    if not resumed and (source := arguments["warm_start"]) is not None:
        if (other := read_run(Path(source)))["task"] != task.name:
            raise ValueError(f"--warm-start takes a run of the same task, but {source} is {other['task']}")
        read_study(Path(source) / "study.journal")
    settings = parse_settings(arguments["set"])

    address = resolve_address(arguments["address"])
    if arguments["data"] == "sample":
        announce(arguments, "using the built-in sample, a synthetic data set of 20 classes; use yours with --data DIR")
    progress = reading(lambda text: announce(arguments, text))
    data = load(arguments["data"], image_size=arguments["image_size"], use_val=arguments["use_val"], progress=progress)
    for warning in data.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments["weights"] == "published":
        announce(arguments, PUBLISHED)
    if arguments["sampler"] not in PRUNING_SAMPLERS:
        announce(arguments, f"--sampler {arguments['sampler']} learns from complete trials only: nothing is pruned")
    if resumed:
        if facts["data"]["fingerprint"] != data.fingerprint:
            raise ValueError(
                f"the data at {arguments['data']} are not those of {given['resume']}: give the same set with --data,"
                " or start a new run"
            )
        data = data.with_split(facts["split"]["train"], facts["split"]["val"])

    announce(arguments, "checking the search space")
    writable = next(p for p in (folder, *folder.parents) if p.exists())
    resources = share_resources(available(address, writable), arguments)
    device = "cuda" if resources.gpus else "cpu"
    problem = make_problem(
        task,
        data,
        space=arguments["space"],
        settings=settings,
        device=facts.get("device", device) if resumed else device,  # a space's choices must stay what they are
        seed=arguments["seed"],
        epochs=arguments["epochs"],
        image_size=arguments["image_size"],
        **task.fields(arguments, data),
    )
    for name in ("victim", "weights"):
        if resumed and name in facts and _digest_of(problem, name) != facts[name]:
            raise ValueError(
                f"--{name} {problem.fixed[name]} is no longer what this run began with: give that file, or start a new"
                " run"
            )
    facts = {**facts, "arguments": arguments} if resumed else _new_facts(arguments, data, problem)
    ended = sum(t.state.is_finished() for t in started_trials(read_study(folder / "study.journal"))) if resumed else 0
    return Session(folder, resumed, arguments, facts, data, problem, address, resources, ended)


def announce(arguments: Mapping[str, Any], text: str) -> None:
    """Say what begins now, unless the user wants only the result."""
    if not arguments["quiet"]:
        say(text)


def claim(session: Session) -> Session:
    """Make a new run's folder; where an unnamed one has been taken in the meantime, another beside it."""
    folder = session.folder
    for number in itertools.count(2) if not session.resumed else ():
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if session.arguments["name"] is not None:
                raise ValueError(_taken(folder)) from None
            folder = session.folder.with_name(f"{session.folder.name}-{number}")
    return replace(session, folder=folder)


def _taken(folder: Path) -> str:
    return f"{folder} exists: continue it with --resume {typed(folder)}, or give another --name"


def _new_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {**DEFAULTS, **given}
    if arguments["data"] in DIGITS and arguments["task"] != "attack":
        raise ValueError(f"--data {arguments['data']} goes with attack only: give a VOC folder")
    if arguments["task"] == "attack" and (arguments["data"] not in DIGITS or arguments["victim"] is not None):
        victim = find_victim(arguments["victim"], arguments["out"])
        arguments["victim"] = str(victim)
        arguments["image_size"] = arguments["image_size"] or image_size_of(victim)
    elif arguments["data"] in DIGITS:
        arguments["image_size"] = arguments["image_size"] or DIGITS_SIZE
    if arguments["transfer"] is not None:
        arguments["transfer"] = str(find_victim(arguments["transfer"], arguments["out"]))
    if arguments["image_size"] is None:
        arguments["image_size"] = SAMPLE_IMAGE_SIZE if arguments["data"] == "sample" else IMAGE_SIZE
    if arguments["epochs"] is None:
        arguments["epochs"] = SAMPLE_EPOCHS if arguments["data"] == "sample" else EPOCHS
    if arguments["weights"] not in NAMED_WEIGHTS:
        weights = Path(arguments["weights"])
        if weights.is_dir():  # a run; its final model has seen the validation images
            weights /= "best.pt"
            if not weights.is_file():
                raise ValueError(f"--weights {arguments['weights']} holds no best.pt: give a run that has scored")
        arguments["weights"] = str(weights.resolve())
    if arguments["data"] not in ("sample", "voc2009", *DIGITS):
        arguments["data"] = str(Path(arguments["data"]).resolve())
    return arguments


def _continued_arguments(given: Mapping[str, Any], facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The run's own arguments, with what may change as it was typed now."""
    before = facts["arguments"]
    if given["task"] != facts["task"]:
        raise ValueError(f"{given['resume']} is a run of {facts['task']}, not of {given['task']}: say {facts['task']}")
    # The cluster of an earlier part may be gone, and joining another one by chance is never meant.
    asked = _new_arguments({**before, "address": None, "dry_run": False, "quiet": False, **given})
    fixed = set(asked) - CHANGEABLE
    if before["weights"] in NAMED_WEIGHTS or asked["weights"] in NAMED_WEIGHTS:
        fixed.add("weights")
    for name in given:
        if name in fixed and asked[name] != before[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} of this run is {before[name]!r} and cannot become {asked[name]!r}:"
                " leave it out, or start a new run"
            )
    if before["space"] is not None:
        asked["space"] = str(folder / "space.py")
    return asked


def _new_folder(arguments: dict[str, Any]) -> Path:
    name = arguments["name"] or f"{arguments['task']}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = (Path(arguments["out"]) / name).resolve()
    if folder.exists() and arguments["name"] is not None:
        raise ValueError(_taken(folder))
    parent = next(p for p in folder.parents if p.exists())
    if not parent.is_dir() or not _writable(parent):
        raise ValueError(f"cannot write in {parent}: give --out a folder that you may write to")
    return folder


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _new_facts(arguments: dict[str, Any], data: Data, problem: Problem) -> dict[str, Any]:
    """run.json of a new run."""
    input_size, size = problem.task.module.input_size, arguments["image_size"]
    resized = {name: input_size(name, size) for name in problem.architectures}
    return {
        "task": arguments["task"],
        "metric": problem.task.metric,
        "arguments": arguments,
        "epochs": arguments["epochs"],
        "seed": arguments["seed"],
        "data": {
            "fingerprint": data.fingerprint,
            "labeled": len(data.ids),
            "test": len(data.test_ids),
        },
        "classes": list(data.classes),
        "split": {"train": [data.ids[i] for i in data.train], "val": [data.ids[i] for i in data.val]},
        "baseline": problem.task.baseline(data, problem.fixed),
        "victim": _digest_of(problem, "victim"),
        "weights": _digest_of(problem, "weights"),
        "device": problem.facts["device"],
        "resized_to": {name: seen for name, seen in resized.items() if seen != size},
        "track": PUBLISHED if arguments["weights"] == "published" else None,
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES},
        "git": _revision(),
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": 0.0,
    }


def _digest_of(problem: Problem, name: str) -> str | None:
    """Of the file that a configuration field names; None where it names none."""
    file = problem.fixed.get(name)
    return None if file in NAMED_WEIGHTS else digest(file)


def _revision(root: Path = Path(__file__).parents[1]) -> str | None:
    """The git revision of this code, with + if it has been changed since; None unless `root` is its own checkout.

    An installed package may lie below somebody else's repository, whose revision says nothing of it.
    """

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        return git("describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
