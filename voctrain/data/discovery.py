"""The classes of a set without a class list, and whether its labels agree: what only the content of the files tells."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.optimize import linear_sum_assignment

from voctrain.data.class_names import (
    MOST_MASK_CLASSES,
    VOC_CLASSES,
    VOID,
    ClassList,
    are_vocs,
    canonical,
    fold,
    in_short,
    is_background,
    object_names,
)
from voctrain.data.layouts.listing import Listing
from voctrain.data.mask_files import RawMask, open_mask
from voctrain.data.palette import voc_palette

VOC = ClassList(VOC_CLASSES, "VOC's list")
WHITE_MARKS = ", marked by mask value 255"


def with_classes(listing: Listing) -> Listing:
    """The listing with its classes: its own list; else those that its annotations and masks name; else VOC's.

    Raises `ValueError` if they cannot be told, and for masks that only have the values 0 and 255, of which the second
    is void, unless there is exactly one class.
    """
    masks = [(i, e.mask) for i, e in enumerate(listing.examples) if isinstance(e.mask, Path)]
    classes = listing.class_list
    if classes is None:
        named = annotated_names(listing)
        if not masks:
            names = sorted({name for found in named.values() for name in found}, key=fold)
            classes = VOC if are_vocs(names) else ClassList(canonical(names), "the annotations")
        else:
            values = _values([path for _, path in masks])
            classes = _by_content(listing, [i for i, _ in masks], values, named)
    elif masks and len(classes.names) == 1 and not classes.colors and not classes.forced:
        marks = {VOID: 1} if _only_void(_values([path for _, path in masks])) else {}
        classes = replace(classes, forced=marks, source=classes.source + WHITE_MARKS * bool(marks))
    if len(classes.names) > MOST_MASK_CLASSES and masks:
        raise ValueError(
            f"masks can have at most {MOST_MASK_CLASSES} classes, but {listing.root} has {len(classes.names)}: merge"
            " some"
        )
    return listing.with_classes(classes)


def annotated_names(listing: Listing, index: Iterable[int] | None = None) -> dict[int, set[str]]:
    """The names in the XML annotation of each of these examples that has a readable one, by index; default: all."""

    def read(path: Path) -> set[str] | None:
        try:
            return {name for name in object_names(path) if name}
        except (OSError, ElementTree.ParseError, LookupError, ValueError):
            return None

    wanted = range(len(listing.examples)) if index is None else index
    paths = {i: path for i in wanted if (path := listing.examples[i].annotation) is not None}
    with ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(read, paths.values()), strict=True))
    return {i: names for i, names in found.items() if names is not None}


def _values(paths: Sequence[Path]) -> list[tuple[RawMask, list[int]]]:
    """What is known of each mask: the file without its pixels, and the values in it (none if RGB or bad)."""

    def read(path: Path) -> tuple[RawMask, list[int]]:
        try:
            raw = open_mask(path)
        except ValueError:  # it is reported where the masks are read for their content
            return RawMask(path, np.empty((0, 0), np.uint8)), []
        used = raw.values() if raw.pixels.ndim == 2 else []
        return replace(raw, pixels=raw.pixels[:0]), used

    with ThreadPoolExecutor() as pool:
        return list(pool.map(read, paths))


def _only_void(masks: Sequence[tuple[RawMask, list[int]]]) -> bool:
    """Whether the masks contain void but no class."""
    used = {value for _, values in masks for value in values}
    return VOID in used and used <= {0, VOID} and all(values for _, values in masks)


def _by_content(
    listing: Listing,
    index: Sequence[int],
    masks: Sequence[tuple[RawMask, list[int]]],
    named: dict[int, set[str]],
) -> ClassList:
    names = sorted({name for found in named.values() for name in found if not is_background(name)}, key=fold)
    values = sorted({value for _, used in masks for value in used} - {0, VOID, 65535, -1})
    if not values and _only_void(masks):
        if len(names) == 1:
            return ClassList(tuple(names), "the annotations" + WHITE_MARKS, forced={VOID: 1})
        raise ValueError(
            f"mask value 255 is void, which is ignored, but the masks in {str(listing.root)!r} contain only 0 and 255:"
            " if 255 marks your objects, pass --mask-value 255=1, or 255=NAME"
        )
    if names and not are_vocs(names):
        return _matched(listing, index, [used for _, used in masks], named, names, values)
    vocs_colors = any(_has_vocs_colors(raw, used) for raw, used in masks)
    if (names or vocs_colors) and max(values, default=0) <= len(VOC_CLASSES):
        return VOC
    most = max(values, default=0)
    if most == 0 or most > MOST_MASK_CLASSES:
        raise ValueError(
            f"the classes must be known, but {str(listing.root)!r} has neither a class list nor names, and its masks"
            f" have {'the value ' + str(most) if most else 'no classes'}: list the classes with --classes FILE"
        )
    return ClassList(tuple(f"class_{i}" for i in range(1, most + 1)), "the values of the masks, which nothing names")


def _has_vocs_colors(raw: RawMask, used: Sequence[int]) -> bool:
    """Whether a mask is RGB, or its palette gives VOC's colors to the classes in it."""
    if raw.pixels.ndim == 3:
        return True
    classes = [value for value in used if 0 < value < VOID]
    if raw.palette is None or not classes:
        return False
    voc = {tuple(color) for color in voc_palette()[1 : len(VOC_CLASSES) + 1].tolist()}
    return all(value < len(raw.palette) and tuple(raw.palette[value].tolist()) in voc for value in classes)


def _matched(
    listing: Listing,
    index: Sequence[int],
    used: Sequence[list[int]],
    named: dict[int, set[str]],
    names: list[str],
    values: list[int],
) -> ClassList:
    """The names in annotations in the order of the mask values that occur in the same images."""
    both = [(set(values_here), named[i]) for i, values_here in zip(index, used, strict=True) if i in named]
    either = [[sum(v in a or n in b for a, b in both) for n in names] for v in values]
    together = [[sum(v in a and n in b for a, b in both) for n in names] for v in values]
    overlap = np.array(together) / np.maximum(either, 1)
    if len(values) == 0 or len(values) > len(names) or (len(names) > 1 and not both):
        raise ValueError(
            f"the order of the classes must be known, but {str(listing.root)!r} has {len(values)} mask values and"
            f" annotations of {in_short(names)}: list the names in the order of the values with --classes FILE"
        )
    rows, columns = linear_sum_assignment(-overlap)
    worst = int(overlap[rows, columns].argmin())
    if both and overlap[rows[worst], columns[worst]] < 0.5:
        raise ValueError(
            f"annotations and masks must name the same classes, but value {values[rows[worst]]} and"
            f" {names[columns[worst]]!r} rarely occur together: list the names with --classes FILE"
        )
    ordered = [names[c] for c in columns] + [name for i, name in enumerate(names) if i not in columns]
    numbers = {value: number for number, value in enumerate(values, 1) if value != number}
    return ClassList(tuple(ordered), "the annotations, matched with the masks", numbers)


def check_labels(listing: Listing, labels: np.ndarray) -> None:
    """Raise `ValueError` if labels (N, C) teach nothing, or are not those of most annotations."""
    if not labels.any():
        raise ValueError(
            f"a set must have a labeled image with a class, but in {str(listing.root)!r} no image has any of"
            f" {in_short(listing.classes.names)}: check the masks, the annotations or the table"
        )
    wrong = contradicting(listing, labels)
    compared = sum(example.mask is not None and example.annotation is not None for example in listing.examples)
    if len(wrong) > compared / 2 and compared > 2:
        raise ValueError(
            f"annotations and masks must name the same classes, but {len(wrong)} of {compared} differ, such as"
            f" {wrong[0]}: list the classes in the order of the mask values with --classes FILE"
        )


def contradicting(listing: Listing, labels: np.ndarray) -> list[str]:
    """The examples whose annotation names other classes than their mask, each with the names; labels (N, C)."""
    both = [i for i, example in enumerate(listing.examples) if example.mask is not None and example.names is None]
    named = annotated_names(listing, both)
    found = []
    for i, names in named.items():
        annotated = {fold(name) for name in names}
        masked = {fold(name) for name, positive in zip(listing.classes.names, labels[i], strict=True) if positive}
        if annotated != masked:
            there, here = (", ".join(sorted(side)) or "no class" for side in (annotated, masked))
            found.append(f"{listing.examples[i].id} ({there} against {here})")
    return found
