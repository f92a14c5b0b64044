"""Which labeled images are for validation: those of the user's own list or of a fold, or a stratified fifth of all."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voctrain.data.class_names import in_short
from voctrain.data.dataset import FOLD, OWN_VAL
from voctrain.data.image_files import Index, composed
from voctrain.data.layouts.listing import Listing
from voctrain.data.split import stratified_folds, stratified_split
from voctrain.data.text_files import read_lines

HEADS = ("id", "image", "filename", "file", "file_name", "name")  # first lines of lists that are tables


class Split:
    """How the labeled images of a listing are divided, checked before any of them is decoded.

    Args:
        val: "val.txt" (the set's own validation part), "K/N" (fold K of N, counted from 1), a file that lists ids, or
            ids; None: a stratified fifth.
        skipped: ids that a list may have although they are not in the listing.
        group_by: a regular expression. Ids in which its first group (without one, the whole match) is the same belong
            together. It takes the place of the set's own groups.

    Raises:
        ValueError: an id is unknown, a part would be empty, the expression is invalid or groups nothing, or a group
            that the user asked for is in both parts of a list.
    """

    def __init__(
        self,
        listing: Listing,
        val: str | Sequence[str] | None = None,
        group_by: str | None = None,
        skipped: Sequence[str] = (),
    ):
        self.listing, self.fold = listing, _fold(val)
        self.groups = listing.groups if group_by is None else _matched(listing.ids, group_by)
        self.val: np.ndarray | None = None  # indices that the user gave
        if isinstance(val, str) and self.fold is None:
            self.val = _own_part(listing) if val == OWN_VAL else _listed(listing, Path(val).expanduser(), skipped)
            if group_by is not None and (both := self.straddling(self.val)):
                raise ValueError(
                    f"a group of --group-by must be on one side, but {len(both)} are in {val} and outside of it, such"
                    f" as {both[0]!r}: leave out one of the options, or correct the list"
                )
        elif val is not None and self.fold is None:
            if unknown := set(val).difference(listing.ids):
                raise ValueError(f"val must contain ids of labeled images, but {min(unknown)!r} is not one: remove it")
            chosen = set(val)
            self.val = np.array([i for i, name in enumerate(listing.ids) if name in chosen], np.int64)

    def indices(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sorted int64 indices of the training and the validation images, by their labels (N, C)."""
        if self.val is not None:
            return np.setdiff1d(np.arange(len(labels)), self.val), self.val
        masked = np.array([[example.mask is not None] for example in self.listing.examples], np.uint8)
        if not masked.all():  # both sides get their share of the masks
            labels = np.concatenate([labels, masked], axis=1)
        if self.fold is None:
            return stratified_split(labels, groups=self.groups)
        number, folds = self.fold
        val = stratified_folds(labels, folds, groups=self.groups)[number - 1]
        return np.setdiff1d(np.arange(len(labels)), val), val

    def warnings(self, val: np.ndarray) -> tuple[str, ...]:
        """What the user should know if these are the validation images."""
        both = self.straddling(val)
        told = f"{len(both)} groups have images in both training and validation: {in_short(both)}"
        return (f"{told}: the score may be too high",) if both else ()

    def straddling(self, val: np.ndarray) -> list[str]:
        """The groups that have images both in these and in the others."""
        if self.groups is None:
            return []
        chosen = set(val.tolist())
        inside = {self.groups[i] for i in chosen}
        return sorted(inside & {group for i, group in enumerate(self.groups) if i not in chosen})


def check_parts(labels: np.ndarray, *parts: np.ndarray) -> None:
    """Raise `ValueError` if the training or the validation images, by index, have no class at all; labels (N, C)."""
    for name, part in zip(("training", "validation"), parts, strict=True):
        if len(part) and not labels[part].any():
            raise ValueError(
                f"training and validation each need an image with a class, but none of the {len(part)} {name} images"
                " has one: label more images, or choose others with --val"
            )


def _fold(val: str | Sequence[str] | None) -> tuple[int, int] | None:
    """K and N of "K/N"; None for anything else. Raises `ValueError` unless 1 ≤ K ≤ N and N ≥ 2."""
    match = re.fullmatch(FOLD, val) if isinstance(val, str) else None
    if match is None:
        return None
    number, folds = int(match[1]), int(match[2])
    if not 1 <= number <= folds or folds < 2:
        raise ValueError(f"--val K/N is fold K of N, counted from 1, and N is at least 2, but got {val}: use 1/5")
    return number, folds


def _own_part(listing: Listing) -> np.ndarray:
    own = set(listing.val_ids)
    if not own:
        raise ValueError(
            f"--val val.txt needs the set's own validation part, a val.txt or a folder valid, but {str(listing.root)!r}"
            " has none: leave it out, or give a file of ids"
        )
    return _checked([i for i, name in enumerate(listing.ids) if name in own], listing, OWN_VAL)


def _listed(listing: Listing, path: Path, skipped: Sequence[str]) -> np.ndarray:
    if not path.is_file():
        raise ValueError(
            f"--val takes a file with an id per line, val.txt, or K/N such as 1/5, but there is no file {str(path)!r}"
        )
    known = _index((*listing.ids, *skipped))
    lines = read_lines(path)
    found = {line: known.find(line) for line in lines}
    if lines and found[lines[0]] is None and re.split(r"[\s,;]", lines[0].casefold())[0].strip("\"'") in HEADS:
        del found[lines[0]]
    if unknown := [line for line, name in found.items() if name is None]:
        tests = _index(listing.test_ids)
        hidden = next((name for line in unknown if (name := tests.find(line))), None)
        raise ValueError(
            f"--val must list labeled images, but {len(unknown)} of {len(found)} lines of {path} are not, such as"
            f" {unknown[0][:80]!r}: "
            + ("remove them" if hidden is None else f"remove them, or add labels ({hidden} is a test image)")
        )
    index = {composed(name): i for i, name in enumerate(listing.ids)}
    return _checked(sorted({index[name] for name in found.values() if name in index}), listing, str(path))


def _index(ids: Sequence[str]) -> Index:
    """Finds ids in the forms that lists use."""
    return Index(Path(), [Path(f"{name}.png") for name in ids])


def _checked(val: list[int], listing: Listing, origin: str) -> np.ndarray:
    if not 0 < len(val) < len(listing.examples):
        raise ValueError(
            f"some labeled images must be for training and some for validation, but {origin} has {len(val)} of"
            f" {len(listing.examples)}: correct it"
        )
    return np.array(val, np.int64)


def _matched(ids: Sequence[str], pattern: str) -> tuple[str, ...]:
    """The group of each id; an id that does not match is its own."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"--group-by must be a regular expression, but {pattern!r} is not ({error}): correct it"
        ) from None
    matches = [expression.search(name) for name in ids]
    found = [None if match is None else match[1 if expression.groups else 0] for match in matches]
    if set(found) == {None} or len(set(found)) == 1:
        says = "matches none" if found[0] is None else "puts all in one group"
        raise ValueError(
            f"--group-by must divide the ids into groups, but {pattern!r} {says} of {in_short(ids, 3)}: correct it"
        )
    return tuple(f"image {name}" if key is None else f"group {key}" for name, key in zip(ids, found, strict=True))
