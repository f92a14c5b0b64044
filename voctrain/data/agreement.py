"""Whether the labels, the masks and the palettes of a set agree, and teach anything."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from voctrain.data.class_names import VOID, ClassList, Color, fold, in_short
from voctrain.data.discovery import annotated_names, check_void
from voctrain.data.layouts.listing import Listing
from voctrain.data.mask_files import gray_values, open_mask, palette_bytes, palette_numbers


def check_number(listing: Listing) -> None:
    """Raise `ValueError` unless there are images to train on and to validate on."""
    if len(listing.examples) < 2:
        raise ValueError(
            f"a set must have at least 2 labeled images, to train and to validate, but {str(listing.root)!r} has"
            f" {len(listing.examples)}: add more"
        )


def check_labels(listing: Listing, labels: np.ndarray, masked: np.ndarray) -> None:
    """Raise `ValueError` if labels and masks teach nothing, or contradict each other.

    labels: (N, C). masked: the same, but of what the masks contain where there are any.
    """
    masks = {i: e.mask for i, e in enumerate(listing.examples) if isinstance(e.mask, Path)}
    kinds = _kinds(listing)
    if not labels.any() or kinds == {0}:
        check_void(listing)
    if not labels.any():
        raise ValueError(
            f"a set must have a labeled image with a class, but in {str(listing.root)!r} no image has any of"
            f" {in_short(listing.classes.names)}: check the masks, the annotations or the table"
        )
    if listing.masked and len(kinds) < 2:
        kind = " and ".join("background" if kind == 0 else listing.classes.names[kind - 1] for kind in kinds) or "void"
        raise ValueError(
            f"masks must have pixels of at least two kinds, but all in {str(listing.root)!r} are {kind}: check the"
            " masks, or remove them to learn from the labels alone"
        )
    _check_palettes(list(masks.values()), listing.classes)
    wrong = contradicting(listing, masked)
    compared = sum(listing.examples[i].annotation is not None or listing.examples[i].names is not None for i in masks)
    if len(wrong) > compared / 2 and compared > 2:
        raise ValueError(
            f"annotations and masks must name the same classes, but {len(wrong)} of {compared} differ, such as"
            f" {wrong[0]}: list the classes in the order of the mask values with --classes FILE"
        )


def _kinds(listing: Listing) -> set[int]:
    """The class numbers in the masks without void, until there are two."""
    kinds: set[int] = set()
    for i, example in enumerate(listing.examples):
        if example.mask is not None and len(kinds) < 2:
            mask = listing.read(i)[1]
            kinds |= set() if mask is None else {*np.unique(mask).tolist()} - {VOID}
    return kinds


def _check_palettes(paths: Sequence[Path], classes: ClassList) -> None:
    """Raise `ValueError` if masks are read by value, although a color has other values, or a value other colors, in
    other files. Colors that fill several entries of a palette say nothing, and grays may be the values themselves.
    """

    def told(path: Path) -> tuple[bool, list[tuple[int, Color]]]:
        """Whether a mask is read by value, and the values with their colors."""
        raw = open_mask(path)
        entries = Counter(() if raw.palette is None else map(tuple, raw.palette.tolist()))
        pairs = [(value, color) for value, color in raw.colors() if entries[color] == 1]
        return palette_numbers(raw, classes) is None and gray_values(raw, classes) is raw, pairs

    with ThreadPoolExecutor() as pool:
        if len({*pool.map(palette_bytes, paths)} - {None}) < 2:
            return
        palettes = list(zip(paths, pool.map(told, paths), strict=True))
    first: dict[Color, tuple[int, Path, bool]] = {}
    meant: dict[int, tuple[Color, Path]] = {}
    repair = "list the colors in a labelmap.txt, one name:red,green,blue:: per line"
    for path, (by_value, pairs) in palettes:
        for value, color in pairs:
            other, origin, too = first.setdefault(color, (value, path, by_value))
            if other != value and (by_value or too):
                raise ValueError(
                    f"a color must have the same value in all masks, but {color} is {other} in {origin} and {value} in"
                    f" {path}: {repair}"
                )
            if by_value and len({*color}) > 1 and (known := meant.setdefault(value, (color, path)))[0] != color:
                raise ValueError(
                    f"a value must have the same color in all masks, but {value} is {known[0]} in {known[1]} and"
                    f" {color} in {path}: {repair}"
                )


def contradicting(listing: Listing, masked: np.ndarray) -> list[str]:
    """The examples whose annotation or table names other classes than their mask, each with the names.

    masked: the labels (N, C) in the masks, see `check_labels`.
    """
    with_mask = {i: example for i, example in enumerate(listing.examples) if isinstance(example.mask, Path)}
    annotations = annotated_names(listing, [i for i, example in with_mask.items() if example.names is None])
    tables = {i: example.names for i, example in with_mask.items() if example.names is not None}
    found = []
    for i, names in sorted((annotations | tables).items()):
        annotated = {fold(name) for name in names}
        seen = {fold(name) for name, positive in zip(listing.classes.names, masked[i], strict=True) if positive}
        if annotated != seen:
            there, here = (", ".join(sorted(side)) or "no class" for side in (annotated, seen))
            found.append(f"{listing.examples[i].id} ({there} against {here})")
    return found
