"""Image files to square arrays of one size, decoded in parallel once and kept in the cache folder."""

import dataclasses
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voctrain.data.class_names import VOID, in_short
from voctrain.data.discovery import check_labels, contradicting
from voctrain.data.image_files import read_image
from voctrain.data.layouts.listing import Listing
from voctrain.data.resizing import NEAREST, resize_square
from voctrain.data.split import stratified_split

FORMAT = 1  # version of the cached arrays: increment it when their names or the way they are computed change


def fingerprint(listing: Listing) -> str:
    """32 hex digits that depend on the ids, labels and classes, and the relative path and the bytes of each file."""

    def digest(path: Path) -> bytes:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    classes = dataclasses.asdict(replace(listing.classes, source=""))
    names = [None if example.names is None else sorted(example.names) for example in listing.examples]
    said = repr((listing.ids, listing.test_ids, names, classes))
    total = hashlib.blake2b(said.encode(), digest_size=16)
    with ThreadPoolExecutor() as pool:
        for path, content in zip(listing.files, pool.map(digest, listing.files), strict=True):
            total.update(path.relative_to(listing.root).as_posix().encode() + b"\0" + content)
    return total.hexdigest()


def decode_images(
    listing: Listing,
    image_size: int,
    resize: str = "squash",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Decode and resize all images. Returns the arrays of `Data` by name; `masks` only if the set has any.

    `progress` is called with the number of decoded images and the total. Raises `ValueError` for a file that is
    damaged or malformed, and for a set that can teach nothing.
    """
    num_labeled, num_test, size = len(listing.examples), len(listing.tests), image_size
    if num_labeled < 2:
        raise ValueError(
            f"a set must have at least 2 labeled images, to train and to validate, but {str(listing.root)!r} has"
            f" {num_labeled}: add more"
        )
    images, test_images = (np.empty((n, size, size, 3), np.uint8) for n in (num_labeled, num_test))
    sizes, test_sizes = (np.empty((n, 2), np.int32) for n in (num_labeled, num_test))
    labels = np.empty((num_labeled, len(listing.classes.names)), np.uint8)
    masks = {"masks": np.full((num_labeled, size, size), VOID, np.uint8)} if listing.masked else {}

    def labeled(i: int) -> None:
        image, mask, labels[i] = listing.read(i)
        images[i], sizes[i] = resize_square(image, size, resize=resize), image.shape[:2]
        if mask is not None:
            masks["masks"][i] = resize_square(mask, size, NEAREST, resize=resize, fill=VOID)

    def unlabeled(i: int) -> None:
        image = read_image(listing.tests[i].image)
        test_images[i], test_sizes[i] = resize_square(image, size, resize=resize), image.shape[:2]

    with ThreadPoolExecutor() as pool:
        reading = itertools.chain(pool.map(labeled, range(num_labeled)), pool.map(unlabeled, range(num_test)))
        for done, _ in enumerate(reading, 1):
            progress(done, num_labeled + num_test)
    check_labels(listing, labels)
    known = np.array([[example.mask is not None] for example in listing.examples], np.uint8)
    # Where only some images have masks, both sides get their share of them.
    train, val = stratified_split(labels if known.all() else np.concatenate([labels, known], axis=1))
    arrays = {"images": images, "labels": labels, "train": train, "val": val, "test_images": test_images}
    return arrays | masks | {"sizes": sizes, "test_sizes": test_sizes}


def decode_readable(
    listing: Listing, image_size: int, resize: str, progress: Callable[[int, int], None]
) -> dict[str, np.ndarray]:
    """As `decode_images`, without the images whose files are bad; `kept` and `kept_tests`, bool, say which are left."""

    def readable(read: Callable[[], object]) -> bool:
        try:
            read()
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        kept = list(pool.map(lambda i: readable(lambda: listing.read(i)), range(len(listing.examples))))
        kept_tests = list(pool.map(lambda test: readable(lambda: read_image(test.image)), listing.tests))
    arrays = decode_images(listing.only(kept, kept_tests), image_size, resize, progress)
    return arrays | {"kept": np.array(kept, bool), "kept_tests": np.array(kept_tests, bool)}


def without_bad(listing: Listing, arrays: dict[str, np.ndarray]) -> tuple[Listing, list[str]]:
    """The listing that `decode_readable` kept, and a warning if that is not all."""
    kept, kept_tests = arrays["kept"].tolist(), arrays["kept_tests"].tolist()
    whole = zip((*listing.examples, *listing.tests), (*kept, *kept_tests), strict=True)
    bad = [example.id for example, good in whole if not good]
    told = [f"{len(bad)} images are left out because their files are bad: {in_short(bad)}"] if bad else []
    return listing.only(kept, kept_tests), told


def read_or_build(
    path: Path, build: Callable[[], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Read the arrays in the .npz file `path`; if it is missing or damaged, build them and write it.

    Returns the arrays, and a warning if the file could not be written. Several processes may call this at once.
    """
    with suppress(Exception), np.load(path) as file:  # damaged files raise many types; zip's checksums detect them
        return dict(file), ()
    arrays = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as temporary:
            named: dict[str, Any] = arrays  # else pyright matches arrays with the options of savez
            np.savez(Path(temporary) / path.name, **named)
            os.replace(Path(temporary) / path.name, path)
    except OSError as error:
        return arrays, (
            f"images must be decoded at each start because the cache is not writable ({error}): set XDG_CACHE_HOME",
        )
    return arrays, ()


def content_warnings(listing: Listing, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """What the user should know about a valid set, one line per kind."""
    lines = list(listing.notes)
    labels, names = arrays["labels"], listing.classes.names
    counts = [labels[arrays[side]].sum(0) for side in ("train", "val")]
    for c, name in enumerate(names):
        absent = [side for side, count in zip(("train", "validation"), counts, strict=True) if not count[c]]
        if len(absent) == 2:
            lines.append(f"class {name!r} has no positive image: it is left out of the scores")
        elif absent:
            lines.append(f"class {name!r} has no positive image in {absent[0]}: it has too few images to split")
    if "masks" in arrays and (missing := len(listing.examples) - listing.masked):
        lines.append(
            f"{missing} of {len(listing.examples)} labeled images have no mask: classification learns from all"
            f" {len(listing.examples)}, segmentation from the other {listing.masked}"
        )
    if contradictions := contradicting(listing, labels):
        lines.append(
            f"{len(contradictions)} annotations and masks name different classes, such as {contradictions[0]}: the"
            " masks count"
        )
    return tuple(lines)
