"""The classes of a set without a class list: what only the content of its files tells."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from voctrain.data.class_names import (
    MOST_MASK_CLASSES,
    VOC_CLASSES,
    VOID,
    ClassList,
    are_vocs,
    canonical,
    fold,
    in_short,
    merged,
    object_names,
)
from voctrain.data.layouts.listing import Listing
from voctrain.data.mask_files import Seen, is_lossy, look

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
        void = {value: forced.get(VOID, VOID) for value in (65535, -1)}  # in deep masks
        meaning = {**void, **forced}
        return replace(seen, values=seen.values and tuple(sorted({meaning.get(v, v) for v in seen.values})))

    with ThreadPoolExecutor() as pool:
        found = zip(masks, pool.map(read, masks.values()), strict=True)
        return {i: seen for i, seen in found if seen is not None}


def _only_void(seen: Iterable[Seen]) -> bool:
    """Whether masks contain void but no class."""
    values = [mask.values for mask in seen]
    used = {value for found in values if found is not None for value in found}
    return VOID in used and used <= {0, VOID} and None not in values


def check_void(listing: Listing) -> None:
    """Raise `ValueError` if the masks of a listing with classes contain void but no class."""
    masks = {i: e.mask for i, e in enumerate(listing.examples) if isinstance(e.mask, Path)}
    if _only_void(_seen(masks, listing.classes.forced).values()):
        raise ValueError(_ONLY_VOID.format(str(listing.root)))


def _by_content(
    listing: Listing,
    masks: Mapping[int, Seen],
    named: Mapping[int, set[str]],
    names: tuple[str, ...],
    forced: Mapping[int, int],
) -> ClassList:
    used = {i: {*mask.values} - {0, VOID} for i, mask in masks.items() if mask.values is not None}
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
        if not values:  # `check_labels` refuses the masks, or they are bad
            return ClassList(canonical(names), "the annotations", forced=forced)
        return replace(_matched(listing, used, named, names, values), forced=forced)
    if names and colored is None and not _in_vocs_order(used, named):
        with suppress(ValueError):  # some of VOC's names in another order, or contradictions
            return replace(_matched(listing, used, named, names, values), forced=forced)
    vocs = colored is not None or any(mask.vocs for mask in masks.values())
    if names or (vocs and (most <= len(VOC_CLASSES) or scattered)):
        return replace(VOC, forced=forced)
    if most == 0 or most > MOST_MASK_CLASSES or scattered:
        has, repair = "are all background", "check the masks"
        if values:
            has = f"have the value{'s' * (len(values) > 1)} {in_short([str(value) for value in values])}"
            repair = f"say what {'each means' if len(values) > 1 else 'it means'} with --mask-value {values[0]}=NAME"
        elif not masks:
            has, repair = "cannot be read", "list the classes with --classes FILE to see what is wrong with each"
        raise ValueError(
            f"the classes must be known, but {str(listing.root)!r} has neither a class list nor names, and its masks"
            f" {has}: {repair}"
        )
    unnamed = ("object",) if most == 1 else tuple(f"class_{i}" for i in range(1, most + 1))
    return ClassList(unnamed, "the values of the masks, which nothing names", forced=forced)


def _in_vocs_order(used: Mapping[int, set[int]], named: Mapping[int, set[str]]) -> bool:
    """Whether most masks, if any, have VOC's numbers of the names in the annotation of the same image."""
    both = [(used[i], {VOC.number(name) for name in named[i]}) for i in used if i in named]
    return 2 * sum(masked == annotated for masked, annotated in both) >= len(both)


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
    masked = np.array([[v in here for v in values] for here, _ in both], float).reshape(len(both), len(values))
    annotated = np.array([[n in here for n in folded] for _, here in both], float).reshape(len(both), len(names))
    together = masked.T @ annotated
    overlap = together / np.maximum(masked.sum(0)[:, None] + annotated.sum(0) - together, 1)  # (values, names)
    if len(values) > len(names) or (len(names) > 1 and not both):
        raise ValueError(
            f"the order of the classes must be known, but {str(listing.root)!r} has {len(values)} mask values and"
            f" annotations of {in_short(names)}: list the names in the order of the values with --classes FILE"
        )
    from scipy.optimize import linear_sum_assignment  # here, because it takes long to load

    padded = np.zeros((len(names), len(names)))  # a row per value, and one per name without a value
    padded[: len(values)] = overlap
    order = linear_sum_assignment(-padded)[1]
    order[len(values) :].sort()
    # Exporters often number the classes alphabetically: if that fits as well, it decides between equally good orders.
    alphabetical = padded.trace() >= padded[np.arange(len(names)), order].sum() - 1e-9
    if alphabetical:
        order = np.arange(len(names))
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
    unsure = int((lost[: len(values)] < 1e-9).any(1).sum())  # classes that could change places
    if both and unsure and not (alphabetical and unsure <= len(values) / 2):
        raise ValueError(
            f"the order of the classes must be known, but {ordered[one]!r} and {ordered[other]!r} occur in the same"
            f" images of {str(listing.root)!r}: list the names in the order of the values with --classes FILE"
        )
    numbers = {value: number for number, value in enumerate(values, 1) if value != number}
    source = "the annotations, matched with the masks" + ", in alphabetical order where these do not tell" * (
        unsure > 0
    )
    return ClassList(tuple(ordered), source, numbers)
