"""The victim of an attack: found, and checked before anything starts."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from search.run_folder.location import local_copy
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from search.tasks.classify import TASK as VICTIM_TASK
from voctrain.attack import check_victim
from voctrain.attack.victim import digits_victim, load_victim
from voctrain.data import Data
from voctrain.models.weights_file import load_file


def find_victim(given: str | None, out: str) -> Path:
    """The checkpoint of a classifier: the given file, the given run's best.pt, or that of the newest run in `out`.

    Raises `ValueError` if there is none.
    """
    if given is not None:
        path = local_copy(given).resolve()
        file = RunPaths(path).best_weights if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            raise ValueError(f"{path} has no best.pt: give a {VICTIM_TASK.name} run that has scored")
        if not path.exists():
            raise ValueError(f"{given} is neither a run nor a file: give a {VICTIM_TASK.name} run or its best.pt")
        return file
    runs = [file.parent for file in Path(out).glob("*/best.pt") if _is_classifier(file.parent)]
    if not runs:
        raise ValueError(
            f"an attack needs a victim, but there is no {VICTIM_TASK.name} run in {out}: make one with"
            f" python -m search.run {VICTIM_TASK.name}, or give --victim RUN"
        )
    return RunPaths(max(runs, key=lambda run: RunPaths(run).best_weights.stat().st_mtime)).best_weights.resolve()


def input_of(victim: Path) -> tuple[int, str]:
    """The image size in pixels that the victim was trained with, and how its images became squares."""
    saved = load_file(victim)
    return int(saved.get("image_size", 300)), saved.get("resize", "squash")


def check_victims(victim: str | None, transfer: str | None, data: Data, image_size: int) -> Path:
    """The victim's checkpoint; without one, that of the digits. Raises `ValueError` for one that cannot be used."""
    file = digits_victim(data, image_size) if victim is None else Path(victim)
    others: Iterable[Path] = () if transfer is None else (Path(transfer),)
    for each in (file, *others):
        check_victim(each, load_victim(each).classes, data)
    if "standard_error" in load_file(file):
        raise ValueError(f"{file} is a final model, which has seen the validation images: give its run's best.pt")
    seen = _train_ids(file.parent) & {data.ids[i] for i in data.val}
    if seen:
        raise ValueError(
            f"the victim was trained on {len(seen)} of the validation images, such as {min(seen)}: give the same"
            " --data, --use-val, --val and --group-by as its run"
        )
    return file


def _is_classifier(run: Path) -> bool:
    with suppress(ValueError):
        return read_run(run).task == VICTIM_TASK.name
    return False


def _train_ids(run: Path) -> set[str]:
    """The ids of the images that a run trained on; none if it is not a run."""
    with suppress(ValueError):
        return set(read_run(run).split.train)
    return set()
