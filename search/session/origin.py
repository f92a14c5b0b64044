"""The record of a new run: all that decides its result, and where it comes from."""

import hashlib
import subprocess
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import search
from search.options import SearchOptions
from search.run_folder.records import RunRecord, SetRecord, Split
from search.session.problem import Problem
from search.tasks.pretrained import is_named
from voctrain.data import Data

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "scikit-learn")
SEEN_MASKS = "published segmentation weights, trained on COCO's masks of VOC's classes: a track of its own"


def new_record(options: SearchOptions, data: Data, problem: Problem) -> RunRecord:
    """run.json of a new run."""
    task, size = problem.task, problem.fixed["image_size"]
    first = next((entry for _, entry in problem.portfolio()), {})
    recipe = {name: first[name] for name in ("architecture",) if name in first}
    baseline = task.baseline(data, {**recipe, **problem.fixed})
    resized = {name: task.module.input_size(name, size) for name in problem.architectures}
    return RunRecord(
        task=task.name,
        metric=task.metric,
        options=options,
        data=SetRecord(data.fingerprint, len(data.ids), len(data.test_ids)),
        classes=data.classes,
        split=Split(tuple(data.ids[i] for i in data.train), tuple(data.ids[i] for i in data.val)),
        baseline=baseline.metrics,
        baseline_name=baseline.name,
        digests=digests(problem),
        device=problem.info["device"],
        resized_to={name: seen for name, seen in resized.items() if seen != size},
        left_out=problem.left_out,
        provenance={name: task.provenance(problem.fixed | {"architecture": name}) for name in problem.architectures},
        track=SEEN_MASKS if task.has_seen_masks(problem.fixed) else None,
        versions=versions(),
        git=git_revision(),
        id=uuid.uuid4().hex,
        created=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def versions() -> dict[str, str]:
    """Of Python, and of the packages that decide a result."""
    own = {"python": sys.version.split()[0], "voc-search": search.__version__}
    return own | {name: version(name) for name in PACKAGES}


def digests(problem: Problem) -> dict[str, str]:
    """The digests of the files that configuration fields name, by field."""
    files = {name: problem.fixed.get(name) for name in problem.task.files}
    return {name: file_digest(file) for name, file in files.items() if file is not None and not is_named(file)}


def file_digest(file: str) -> str:
    """32 hex digits."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def git_revision(root: Path = Path(__file__).parents[2]) -> str | None:
    """The git revision of this code, with + if it has been changed since; None unless `root` is its own checkout.

    An installed package may lie below somebody else's repository, whose revision would be wrong.
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
