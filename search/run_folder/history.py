"""What is kept of a training while it runs: its history, one JSON object per epoch with all digits, and its log."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

EpochRecord = dict[str, float]  # epoch, seconds, memory_gb, lr, train_… and val_… metrics


def start_history(file: Path) -> None:
    """Empty the history: a training that is continued reports its earlier epochs again. A full disk is ignored."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")


def append_epoch(file: Path, epoch: Mapping[str, float]) -> None:
    """Add an epoch. A full disk is ignored: no later result depends on this file."""
    with suppress(OSError), open(file, "a") as lines:
        lines.write(json.dumps(dict(epoch)) + "\n")


def read_history(file: Path) -> dict[int, EpochRecord]:
    """The metrics by epoch; empty if there is no file. A line that a full disk has cut off is skipped."""
    epochs: dict[int, EpochRecord] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            epochs[int(record["epoch"])] = record
    return epochs


def write_log(file: Path, text: str) -> None:
    """Add lines to the log of a training, which is for people. A full disk is ignored."""
    with suppress(OSError), open(file, "a") as lines:
        lines.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
