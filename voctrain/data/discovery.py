"""The classes of a set without a class list, and whether its labels agree: what only the content of the files tells."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from voctrain.data.class_names import (
    MOST_MASK_CLASSES,
    VOC_CLASSES,
    VOID,
    ClassList,
    Color,
    are_vocs,
    canonical,
    fold,
    in_short,
    merged,
    object_names,
)
from voctrain.data.layouts.listing import Listing
from voctrain.data.mask_files import Seen, is_lossy, look, open_mask, palette_bytes, palette_numbers

VOC = ClassList(VOC_CLASSES, "VOC's list")
WHITE_MARKS = ", marked by mask value 255"


def with_classes(listing: Listing) -> Listing:
    """The listing with its classes: its own list; else those that its annotations and masks name; else VOC's.

    Raises `ValueError` if they cannot be told, and for masks that only have the values 0 and 255, of which the second
    is void, unless there is exactly one class.
    """
    masks = {i: e.mask for i, e in enumerate(listing.examples) if isinstance(e.mask, Path)}
    classes = listing.class_list or ClassList((), "")
    if not classes.names:
        named = annotated_names(listing)
        names = merged(name for found in named.values() for name in found)
        if not masks:
            classes = VOC if are_vocs(names) else ClassList(canonical(names), "the annotations")
        else:
            classes = _by_content(listing, _seen(masks, classes.forced), named, names, classes.forced)
    elif masks and len(classes.names) == 1 and not classes.colors and not classes.forced:
        marks = {VOID: 1} if _only_void(_seen(masks, {}).values()) else {}
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


def _seen(masks: Mapping[int, Path], forced: Mapping[int, int]) -> dict[int, Seen]:
    """What is seen in each mask, by the index of its example, with the user's mask values; without bad files."""

    def read(path: Path) -> Seen | None:
        try:
            seen = look(path)
        except ValueError:  # it is reported where the masks are read for their content
            return None
        values = seen.values and tuple(sorted({forced.get(value, value) for value in seen.values}))
        return replace(seen, values=values)

    with ThreadPoolExecutor() as pool:
        found = zip(masks, pool.map(read, masks.values()), strict=True)
        return {i: seen for i, seen in found if seen is not None}


def _only_void(seen: Iterable[Seen]) -> bool:
    """Whether masks contain void but no class."""
    values = [mask.values for mask in seen]
    used = {value for found in values if found is not None for value in found}
    return VOID in used and used <= {0, VOID} and None not in values


def _by_content(
    listing: Listing,
    masks: Mapping[int, Seen],
    named: Mapping[int, set[str]],
    names: tuple[str, ...],
    forced: Mapping[int, int],
) -> ClassList:
    used = {i: {*mask.values} - {0, VOID, 65535, -1} for i, mask in masks.items() if mask.values is not None}
    values = sorted(set().union(*used.values()))
    most = max(values, default=0)
    if not values and _only_void(masks.values()):
        if len(names) == 1:
            return ClassList(names, "the annotations" + WHITE_MARKS, forced={VOID: 1, **forced})
        raise ValueError(_ONLY_VOID.format(str(listing.root)))
    colored = next((i for i, mask in masks.items() if mask.values is None), None)
    if colored is not None and not are_vocs(names):
        raise ValueError(
            f"the classes of colors must be known, but {listing.examples[colored].mask} has colors that are not VOC's:"
            " list them in a labelmap.txt, one name:red,green,blue:: per line"
        )
    scattered = len(values) < most / 2  # not the numbers of classes
    lossy = next((e.mask for e in listing.examples if isinstance(e.mask, Path) and is_lossy(e.mask)), None)
    if lossy is not None and (scattered or len(values) > max(len(names), 1)):
        raise ValueError(f"masks must keep their values, but {lossy} is a JPEG: save masks as PNG")
    if names and not are_vocs(names):
        return replace(_matched(listing, used, named, names, values), forced=forced)
    vocs = colored is not None or any(mask.vocs for mask in masks.values())
    if names or (vocs and (most <= len(VOC_CLASSES) or scattered)):
        return replace(VOC, forced=forced)
    if most == 0 or most > MOST_MASK_CLASSES or scattered:
        has = f"{len(values)} values up to {most}" if most else "no classes"
        raise ValueError(
            f"the classes must be known, but {str(listing.root)!r} has neither a class list nor names, and its masks"
            f" have {has}: list the classes with --classes FILE"
        )
    unnamed = ("object",) if most == 1 else tuple(f"class_{i}" for i in range(1, most + 1))
    return ClassList(unnamed, "the values of the masks, which nothing names", forced=forced)


_ONLY_VOID = (
    "mask value 255 is void, which is ignored, but the masks in {!r} contain only 0 and 255: if 255 marks your objects,"
    " pass --mask-value 255=1, or 255=NAME"
)


def _matched(
    listing: Listing,
    used: Mapping[int, set[int]],
    named: Mapping[int, set[str]],
    names: Sequence[str],
    values: list[int],
) -> ClassList:
    """The names in annotations in the order of the mask values that occur in the same images."""
    both = [(used[i], {fold(name) for name in named[i]}) for i in used if i in named]
    folded = [fold(name) for name in names]
    masked = np.array([[v in here for v in values] for here, _ in both], float).reshape(-1, len(values))
    annotated = np.array([[n in here for n in folded] for _, here in both], float).reshape(-1, len(names))
    together = masked.T @ annotated
    overlap = together / np.maximum(masked.sum(0)[:, None] + annotated.sum(0) - together, 1)  # (values, names)
    if len(values) == 0 or len(values) > len(names) or (len(names) > 1 and not both):
        raise ValueError(
            f"the order of the classes must be known, but {str(listing.root)!r} has {len(values)} mask values and"
            f" annotations of {in_short(names)}: list the names in the order of the values with --classes FILE"
        )
    from scipy.optimize import linear_sum_assignment  # here, because it takes long to load

    padded = np.zeros((len(names), len(names)))  # a row per value, and one per name without a value
    padded[: len(values)] = overlap
    order = linear_sum_assignment(-padded)[1]
    order[len(values) :].sort()
    chosen = padded[:, order]
    own = chosen.diagonal()
    lost = own + own[:, None] - chosen - chosen.T + np.eye(len(names))  # (i, j): by swapping the names of both
    ordered = [names[int(column)] for column in order]
    worst = int(own[: len(values)].argmin())
    if both and own[worst] < 0.5:
        raise ValueError(
            f"annotations and masks must name the same classes, but value {values[worst]} and {ordered[worst]!r} rarely"
            " occur together: list the names with --classes FILE"
        )
    one, other = divmod(int(lost[: len(values)].argmin()), len(names))
    if both and lost[one, other] < 1e-9:
        raise ValueError(
            f"the order of the classes must be known, but {ordered[one]!r} and {ordered[other]!r} occur in the same"
            f" images of {str(listing.root)!r}: list the names in the order of the values with --classes FILE"
        )
    numbers = {value: number for number, value in enumerate(values, 1) if value != number}
    return ClassList(tuple(ordered), "the annotations, matched with the masks", numbers)


def check_labels(listing: Listing, labels: np.ndarray) -> None:
    """Raise `ValueError` if labels (N, C) and masks teach nothing, or contradict each other."""
    masks = {i: e.mask for i, e in enumerate(listing.examples) if isinstance(e.mask, Path)}
    kinds = _kinds(listing)
    if (not labels.any() or kinds == {0}) and _only_void(_seen(masks, listing.classes.forced).values()):
        raise ValueError(_ONLY_VOID.format(str(listing.root)))
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
    wrong = contradicting(listing, labels)
    compared = sum(example.mask is not None and example.annotation is not None for example in listing.examples)
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
        return palette_numbers(raw, classes) is None, pairs

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
