"""The victim of a search for attacks: found, and checked before anything starts."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from voctrain.attack import check_victim
from voctrain.attack.goals import parse_goal
from voctrain.attack.victim import digits_victim, load_victim
from voctrain.data import DIGITS, Data
from voctrain.models.weights import load_file


def find_victim(given: str | None, out: str) -> Path:
    """The checkpoint of a classifier: the given file or run's best.pt, else that of the newest run in `out`.

    Raises `ValueError` where there is none.
    """
    if given is not None:
        path = Path(given).resolve()
        if path.is_dir() and not (path / "best.pt").is_file():
            raise ValueError(f"--victim {given} holds no best.pt: give a classify run that has scored")
        if not path.exists():
            raise ValueError(f"--victim {given} is neither a run nor a file: give a classify run or its best.pt")
        return path / "best.pt" if path.is_dir() else path
    runs = [file.parent for file in Path(out).glob("*/best.pt") if _task(file.parent) == "classify"]
    if not runs:
        raise ValueError(
            f"an attack needs a victim, but there is no classify run in {out}: make one with"
            " python -m search.run classify, or give --victim RUN"
        )
    return (max(runs, key=lambda run: (run / "best.pt").stat().st_mtime) / "best.pt").resolve()


def image_size_of(victim: Path) -> int:
    """The size, in pixels, that the victim was trained with."""
    return int(load_file(victim).get("image_size", 300))


def digest(victim: str | None) -> str | None:
    """Of the victim's file, 32 hex digits; None where there is no victim."""
    if victim is None:
        return None
    with open(victim, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def attack_fields(arguments: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """What is fixed of all configurations of a run. Raises `ValueError` for a victim or a goal that cannot be."""
    if arguments["data"] in DIGITS and arguments["victim"] is None:
        victim = digits_victim(data, arguments["image_size"])
    else:
        victim = Path(arguments["victim"])
    for file in filter(None, (victim, arguments["transfer"])):
        check_victim(file, load_victim(file).classes, data)
    if "standard_error" in load_file(victim):
        raise ValueError(f"{victim} is a final model, which has seen the validation images: give its run's best.pt")
    seen = _train_ids(victim.parent) & {data.ids[i] for i in data.val}
    if seen:
        raise ValueError(
            f"the victim was trained on {len(seen)} of the validation images, such as {min(seen)}: give --data and"
            " --use-val as its run has them"
        )
    parse_goal(arguments["goal"], data.classes)
    fields = {name: arguments[name] for name in ("goal", "min_ssim", "max_ssim") if arguments[name] is not None}
    return {"victim": str(victim), **fields}


def _task(run: Path) -> str | None:
    with suppress(OSError, ValueError):
        return json.loads((run / "run.json").read_text()).get("task")
    return None


def _train_ids(run: Path) -> set[str]:
    """The images that a run trained on, as far as it says."""
    with suppress(OSError, ValueError, KeyError):
        return set(json.loads((run / "run.json").read_text())["split"]["train"])
    return set()
