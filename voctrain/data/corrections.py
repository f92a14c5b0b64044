"""What a user has decided about labels in doubt: images to leave out, and labels to flip."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voctrain.data.text_files import read_table

COLUMNS = ("image", "class", "action")  # others, such as those that search.audit adds, say nothing here
IGNORE, FLIP = "ignore", "flip"  # actions; an empty one leaves everything as it is


@dataclass(frozen=True)
class Corrections:
    """The decisions in the table `path`, by the ids of labeled images and the names of classes."""

    path: str
    ignored: frozenset[str]
    flipped: frozenset[tuple[str, str]]  # image and class; images that are left out have none

    @classmethod
    def read(cls, path: Path) -> "Corrections":
        """The rows of a table that have an action. Raises `ValueError` for anything else than such a table."""
        if not path.is_file():
            raise ValueError(f"--corrections takes a table such as audit.csv, but there is no file {str(path)!r}")
        header, rows = read_table(path)
        if missing := [name for name in COLUMNS if name not in header]:
            raise ValueError(
                f"--corrections takes a table with columns {', '.join(COLUMNS)}, but {path} has no {missing[0]}: add it"
            )
        picked = [[row[header.index(name)] for name in COLUMNS] for row in rows]
        decided = [(image, label, action.lower()) for image, label, action in picked if action]
        for image, label, action in decided:
            if action not in (IGNORE, FLIP):
                raise ValueError(
                    f"an action must be {IGNORE}, {FLIP} or empty, but {path} has {action!r} for {image}, {label}:"
                    " correct it"
                )
        ignored = frozenset(image for image, _, action in decided if action == IGNORE)
        flips = frozenset((image, label) for image, label, action in decided if action == FLIP and image not in ignored)
        return cls(str(path), ignored, flips)

    def check_images(self, ids: Sequence[str]) -> None:
        """Raise `ValueError` for an image that is not one of these."""
        named = self.ignored | {image for image, _ in self.flipped}
        if unknown := named.difference(ids):
            raise ValueError(
                f"--corrections must name labeled images by their ids, but {self.path} has {min(unknown)!r}: correct or"
                " remove it"
            )

    def applied_to(self, labels: np.ndarray, ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Labels (N, C), a copy, with the flips. Raises `ValueError` for an unknown class."""
        if unknown := {label for _, label in self.flipped}.difference(classes):
            raise ValueError(
                f"--corrections must name classes of the set, but {self.path} has {min(unknown)!r}: correct or remove"
                " it"
            )
        labels, row = labels.copy(), {name: i for i, name in enumerate(ids)}
        for image, label in self.flipped:
            if image in row:  # a bad file may have been left out
                labels[row[image], classes.index(label)] ^= 1
        return labels

    def fingerprint(self, before: str) -> str:
        """That of the data with the flips; images that are left out are not in `before`."""
        if not self.flipped:
            return before
        return hashlib.blake2b(repr((before, sorted(self.flipped))).encode(), digest_size=16).hexdigest()

    def __str__(self) -> str:
        return f"{self.path} leaves out {len(self.ignored)} images and flips {len(self.flipped)} labels"
