"""The competition's submission file: run-length encodings in a CSV, two rows per test image.

Written by hand because the encoding is row-major and 1-based; pycocotools encodes columns.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def encode(mask: np.ndarray) -> str:
    """Encode a boolean array as `start length start length …`, row-major, with starts from 1; "" if nothing is set."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel()))


def decode(code: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decode `code` to a boolean array of `shape`.

    Raises `ValueError` unless the runs are integers, ascending, separated, and inside the array.
    """
    try:
        runs = np.array(code.split(), dtype=np.int64)
    except ValueError:
        raise ValueError(f"a run-length code must consist of integers, but got {code[:40]!r}") from None
    if len(runs) % 2:
        raise ValueError(f"a run-length code must consist of pairs of start and length, but got {len(runs)} numbers")
    starts, lengths = runs[::2] - 1, runs[1::2]
    ends = starts + lengths
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    if len(runs) and (starts[0] < 0 or (lengths < 1).any() or (starts[1:] <= ends[:-1]).any() or ends[-1] > mask.size):
        raise ValueError(f"runs must be ascending, separated and within {mask.size} pixels, but got {code[:40]!r}")
    for start, end in zip(starts, ends, strict=True):
        mask[start:end] = True
    return mask.reshape(shape)


def write_submission(path: Path, rows: Iterable[tuple[str, np.ndarray, np.ndarray | None]]) -> None:
    """Write two rows per test image: (id, decided classes (20,) bool, label map (H, W) of 0..20 or None).

    Without a label map, the segmentation row is empty. Raises `ValueError` for a label map with other values.
    """
    with open(path, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["Id", "Predicted"])
        for name, classes, label_map in rows:
            table.writerow([f"{name}_classification", encode(classes)])
            table.writerow([f"{name}_segmentation", "" if label_map is None else encode(planes(label_map))])


def planes(label_map: np.ndarray, num_classes: int = 20) -> np.ndarray:
    """The boolean stack (num_classes, H, W) of a label map (H, W): plane j is True where the label is j + 1."""
    if label_map.max(initial=0) > num_classes:
        raise ValueError(f"a label map must be within 0..{num_classes}, but got {label_map.max()}: void is not a class")
    return label_map == np.arange(1, num_classes + 1)[:, None, None]
