"""The competition's submission: run-length codes in a CSV (SEED.md §1)."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def encode(mask: np.ndarray) -> str:
    """The code `start length start length …` of a boolean array, row-major, starts from 1; "" where nothing is set."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel()))


def decode(code: str, shape: tuple[int, ...]) -> np.ndarray:
    """The boolean array of `shape` that `code` stands for.

    Raises `ValueError` unless the runs are whole numbers, ascending, apart, and inside the array.
    """
    try:
        runs = np.array(code.split(), dtype=np.int64)
    except ValueError:
        raise ValueError(f"a code holds whole numbers only, but got {code[:40]!r}") from None
    if len(runs) % 2:
        raise ValueError(f"a code holds pairs of start and length, but got {len(runs)} numbers")
    starts, lengths = runs[::2] - 1, runs[1::2]
    ends = starts + lengths
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    if len(runs) and (starts[0] < 0 or (lengths < 1).any() or (starts[1:] <= ends[:-1]).any() or ends[-1] > mask.size):
        raise ValueError(f"the runs of a code must be ascending, apart and within {mask.size} places: {code[:40]!r}")
    for start, end in zip(starts, ends, strict=True):
        mask[start:end] = True
    return mask.reshape(shape)


def write_submission(path: Path, rows: Iterable[tuple[str, np.ndarray, np.ndarray | None]]) -> None:
    """Write the two rows of each test image: (id, decided classes (20,) bool, label map (H, W) 0..20 or None).

    Without a label map the segmentation row is empty. Raises `ValueError` for a label map with another value.
    """
    with open(path, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["Id", "Predicted"])
        for name, classes, label_map in rows:
            table.writerow([f"{name}_classification", encode(classes)])
            table.writerow([f"{name}_segmentation", "" if label_map is None else encode(planes(label_map))])


def planes(label_map: np.ndarray, num_classes: int = 20) -> np.ndarray:
    """The boolean stack (num_classes, H, W) of a label map (H, W): plane j is where it is j + 1."""
    if label_map.max(initial=0) > num_classes:
        raise ValueError(
            f"a label map to submit holds 0..{num_classes}, but got {label_map.max()}: void is not a class"
        )
    return label_map == np.arange(1, num_classes + 1)[:, None, None]
