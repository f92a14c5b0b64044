"""Image files to square arrays of one size, decoded in parallel once and kept in a file that is mapped into memory."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from voctrain.data.agreement import check_labels, check_number, contradicting
from voctrain.data.array_file import ArrayFile, Shapes, Write, open_arrays, write_arrays
from voctrain.data.cache import cache_failure
from voctrain.data.class_names import VOID, in_short
from voctrain.data.image_files import read_image
from voctrain.data.layouts.listing import Listing, labels_in
from voctrain.data.resizing import NEAREST, resize_square

FORMAT = 2  # version of the cached arrays: increment it when their names or the way they are computed change


class Decoded(NamedTuple):
    """The arrays of `Data` by name, where they are, and what the user should know."""

    arrays: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    file: ArrayFile | None  # None: they are in memory


def shapes_of(listing: Listing, image_size: int, store_size: int) -> Shapes:
    """Shape and dtype of the arrays of `Data` by name; masks only if the set has any, detail only if it is larger."""
    count, tests, square = len(listing.examples), len(listing.tests), (image_size, image_size)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "images": ((count, *square, 3), "uint8"),
        "test_images": ((tests, *square, 3), "uint8"),
        "labels": ((count, len(listing.classes.names)), "uint8"),
        "sizes": ((count, 2), "int32"),
        "test_sizes": ((tests, 2), "int32"),
    }
    if listing.masked:
        shapes["masks"] = ((count, *square), "uint8")
    if store_size > image_size:
        shapes["detail"] = ((count, store_size, store_size, 3), "uint8")
        if listing.masked:
            shapes["detail_masks"] = ((count, store_size, store_size), "uint8")
    return shapes


def decode_images(
    listing: Listing,
    image_size: int,
    store_size: int,
    resize: str,
    progress: Callable[[int, int], None],
    write: Write,
) -> tuple[str, ...]:
    """Decode and resize all images, and write them as rows of the arrays; see `shapes_of`.

    Returns what the user should know about labels that contradict each other. `progress` is called with the number of
    decoded images and the total. Raises `ValueError` for a file that is damaged or malformed, and for a set that can
    teach nothing.
    """
    num_labeled, num_test = len(listing.examples), len(listing.tests)
    check_number(listing)
    sizes, test_sizes = (np.empty((n, 2), np.int32) for n in (num_labeled, num_test))
    labels, masked = (np.empty((num_labeled, len(listing.classes.names)), np.uint8) for _ in range(2))

    wanted = {("images", "masks"): image_size}
    if store_size > image_size:
        wanted["detail", "detail_masks"] = store_size

    def labeled(i: int) -> None:
        image, mask, labels[i] = listing.read(i)
        masked[i] = labels_in(mask, labels[i])
        sizes[i] = image.shape[:2]
        if mask is None:
            mask = np.full(image.shape[:2], VOID, np.uint8)
        for names, size in wanted.items():
            images, masks = names
            write(images, i, resize_square(image, size, resize=resize)[None])
            if listing.masked:
                write(masks, i, resize_square(mask, size, NEAREST, resize=resize, fill=VOID)[None])

    def unlabeled(i: int) -> None:
        image = read_image(listing.tests[i].image)
        test_sizes[i] = image.shape[:2]
        write("test_images", i, resize_square(image, image_size, resize=resize)[None])

    with ThreadPoolExecutor() as pool:
        reading = itertools.chain(pool.map(labeled, range(num_labeled)), pool.map(unlabeled, range(num_test)))
        for done, _ in enumerate(reading, 1):
            progress(done, num_labeled + num_test)
    check_labels(listing, labels, masked)
    for name, array in (("labels", labels), ("sizes", sizes), ("test_sizes", test_sizes)):
        write(name, 0, array)
    return contradictions(listing, masked)


def read_or_build(path: Path, shapes: Shapes, decode: Callable[[Write], tuple[str, ...]]) -> Decoded:
    """Map the arrays in the file `path`; if it is missing or damaged, decode the images into it first.

    If it cannot be written, the arrays are in memory. Several processes may call this at once.
    """
    try:
        file = open_arrays(path)
        if file is None:
            write_arrays(path, shapes, decode)
            file = open_arrays(path)
        if file is None:
            raise OSError(f"{path} cannot be read back")
        return Decoded(file.arrays, file.notes, file)
    except OSError as error:
        reason = error
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}

    def write(name: str, row: int, rows: np.ndarray) -> None:
        arrays[name][row : row + len(rows)] = rows

    warning = (
        f"images must be decoded at each start because the cache is not writable ({cache_failure(reason)}): free space,"
        " or set XDG_CACHE_HOME to another folder"
    )
    return Decoded(arrays, (*decode(write), warning), None)


def contradictions(listing: Listing, masked: np.ndarray) -> tuple[str, ...]:
    """What the user should know if annotations and masks name different classes; masked: see `check_labels`."""
    found = contradicting(listing, masked)
    if not found:
        return ()
    differ = f"{len(found)} annotations and masks name different classes, such as {found[0]}"
    table = any(example.names is not None and example.mask is not None for example in listing.examples)
    return (f"{differ}: {'the table counts for classification' if table else 'the masks count'}",)


def content_warnings(
    listing: Listing, labels: np.ndarray, train: np.ndarray, val: np.ndarray, skipped: Sequence[str] = ()
) -> tuple[str, ...]:
    """What else the user should know about a valid set with this split, one line per kind; labels (N, C).

    skipped: the ids of images that are left out because their files are bad.
    """
    lines = list(listing.notes)
    if skipped:
        images = "1 image with a bad file is" if len(skipped) == 1 else f"{len(skipped)} images with bad files are"
        lines.append(f"{images} left out: {in_short(skipped)}")
    trained, validated = (labels[side].sum(0) > 0 for side in (train, val))
    for absent, where, why in (
        (~trained & ~validated, "", "left out of the scores"),
        (~trained & validated, " in train", "not learned"),
        (trained & ~validated & (len(val) > 0), " in validation", "left out of the scores"),
    ):
        names = [name for name, is_absent in zip(listing.classes.names, absent.tolist(), strict=True) if is_absent]
        if len(names) == 1:
            lines.append(f"class {names[0]!r} has no positive image{where}: it is {why}")
        elif names:
            lines.append(f"{len(names)} classes have no positive image{where}: {in_short(names)} are {why}")
    if listing.masked and (missing := len(listing.examples) - listing.masked):
        lines.append(
            f"{missing} of {len(listing.examples)} labeled images have no mask: classification learns from all"
            f" {len(listing.examples)}, segmentation from the other {listing.masked}"
        )
    return tuple(lines)
