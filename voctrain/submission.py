"""The Kaggle competition's submission file: run-length codes in a CSV with two rows per test image.

The row `{Id}_classification` encodes the C decisions; `{Id}_segmentation` encodes the boolean stack (C, H, W) at the
image's original size, whose plane j is 1 where the label map is j + 1. The score is the mean Dice over all rows. The
competition has VOC's 20 classes. Written by hand because the encoding is row-major and 1-based; pycocotools encodes
columns.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def encode(mask: np.ndarray) -> str:
    """Encode a boolean array as `start length start length …`, row-major, with 1-based starts; "" if nothing is set."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel()))


def decode(code: str, shape: tuple[int, ...]) -> np.ndarray:
    """Decode a run-length code into a boolean array of `shape`.

    Raises `ValueError` unless the runs are integers, ascending, separated, and inside the array.
    """
    try:
        runs = np.array(code.split(), dtype=np.int64)
    except ValueError:
        raise ValueError(f"a run-length code must contain only integers, but got {code[:40]!r}") from None
    if len(runs) % 2:
        raise ValueError(f"a run-length code must contain pairs of start and length, but got {len(runs)} numbers")
    starts, lengths = runs[::2] - 1, runs[1::2]
    ends = starts + lengths
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    if len(runs) and (starts[0] < 0 or (lengths < 1).any() or (starts[1:] <= ends[:-1]).any() or ends[-1] > mask.size):
        raise ValueError(f"runs must be ascending, separated and within {mask.size} positions, but got {code[:40]!r}")
    for start, end in zip(starts, ends, strict=True):
        mask[start:end] = True
    return mask.reshape(shape)


def write_submission(path: Path, rows: Iterable[tuple[str, np.ndarray, np.ndarray | None]]) -> None:
    """Write two CSV rows per test image.

    Args:
        path: the CSV file to write.
        rows: per image its id, decisions (C,) bool, and label map (H, W) of 0..C. If the label map is None, the code
            of the segmentation row is empty.

    Raises:
        ValueError: a label map has a value above C.
    """
    with open(path, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["Id", "Predicted"])
        for name, classes, label_map in rows:
            table.writerow([f"{name}_classification", encode(classes)])
            code = "" if label_map is None else encode(planes(label_map, len(classes)))
            table.writerow([f"{name}_segmentation", code])


def planes(label_map: np.ndarray, num_classes: int) -> np.ndarray:
    """One-hot planes (num_classes, H, W), bool, of a label map (H, W): plane j is True where the map is j + 1.

    Raises `ValueError` for a value above `num_classes`.
    """
    if label_map.max(initial=0) > num_classes:
        raise ValueError(
            f"a submitted label map must contain 0..{num_classes}, but got {label_map.max()}: replace void by a class"
        )
    return label_map == np.arange(1, num_classes + 1)[:, None, None]
