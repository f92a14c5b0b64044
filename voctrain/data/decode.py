"""From files to squares of one size, decoded in parallel once and kept in the cache folder."""

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from voctrain.data.layouts import VOC_CLASSES, VOID, Listing, read_image
from voctrain.data.split import stratified_split

FORMAT = 1  # of the cache file and of what is computed for it: raise it with every change of either
NEAREST = Image.Resampling.NEAREST


def fingerprint(listing: Listing) -> str:
    """32 hex digits of the set's content: ids, labels, and the name below the root and the bytes of each file."""

    def digest(path: Path) -> bytes:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    labels = None if listing.labels is None else listing.labels.tolist()
    total = hashlib.blake2b(json.dumps([listing.ids, listing.test_ids, labels]).encode(), digest_size=16)
    with ThreadPoolExecutor() as pool:
        for path, content in zip(listing.files, pool.map(digest, listing.files), strict=True):
            total.update(path.relative_to(listing.root).as_posix().encode() + b"\0" + content)
    return total.hexdigest()


def decode_images(
    listing: Listing, image_size: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, np.ndarray]:
    """Decode and resize all images; the arrays of `Data` by their names, `masks` only where there are any.

    Raises `ValueError` for fewer labeled images than classes and for a file that is damaged or of the wrong kind.
    """
    num_labeled, num_test, size = len(listing.ids), len(listing.test_ids), image_size
    if num_labeled < len(VOC_CLASSES):
        raise ValueError(
            f"there must be at least {len(VOC_CLASSES)} labeled images, one a class, but {str(listing.root)!r} has"
            f" {num_labeled}: add some"
        )
    images, test_images = (np.empty((n, size, size, 3), np.uint8) for n in (num_labeled, num_test))
    sizes, test_sizes = (np.empty((n, 2), np.int32) for n in (num_labeled, num_test))
    labels = np.empty((num_labeled, len(VOC_CLASSES)), np.uint8)
    masks = {"masks": np.full((num_labeled, size, size), VOID, np.uint8)} if any(listing.masks) else {}

    def labeled(i: int) -> None:
        image, mask, labels[i] = listing.read(i)
        images[i], sizes[i] = square(image, size), image.shape[:2]
        if mask is not None:
            masks["masks"][i] = square(mask, size, NEAREST)

    def unlabeled(i: int) -> None:
        image = read_image(listing.test_images[i])
        test_images[i], test_sizes[i] = square(image, size), image.shape[:2]

    with ThreadPoolExecutor() as pool:
        reading = itertools.chain(pool.map(labeled, range(num_labeled)), pool.map(unlabeled, range(num_test)))
        for done, _ in enumerate(reading, 1):
            progress(done, num_labeled + num_test)
    train, val = stratified_split(labels)
    arrays = {"images": images, "labels": labels, "train": train, "val": val, "test_images": test_images}
    return arrays | masks | {"sizes": sizes, "test_sizes": test_sizes}


def square(image: np.ndarray, size: int, resample: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """Resize (H, W) or (H, W, 3) to `size` x `size` without keeping the aspect.

    Bilinear means PIL's, which averages over the area where it shrinks.
    """
    return np.asarray(Image.fromarray(image).resize((size, size), resample))


def cached(path: Path, build: Callable[[], dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays that the file `path` holds; built and written to it first where it is missing or broken.

    Also returns a warning if it cannot be written. Several processes may do this at once.
    """
    with suppress(Exception), np.load(path) as file:  # whatever torn bytes raise; the checksums of zip find them
        return dict(file), ()
    arrays = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as temporary:
            np.savez(Path(temporary) / path.name, **arrays)
            os.replace(Path(temporary) / path.name, path)
    except OSError as error:
        return arrays, (
            f"images are decoded at each start, for the cache cannot be written ({error}): set XDG_CACHE_HOME",
        )
    return arrays, ()


def warn_about(listing: Listing, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """What the user should know about a set that is valid: lines about classes and masks."""
    lines = []
    labels = arrays["labels"]
    sides = [("train", labels[arrays["train"]].any(0)), ("validation", labels[arrays["val"]].any(0))]
    for c, name in enumerate(VOC_CLASSES):
        absent = [side for side, present in sides if not present[c]]
        if len(absent) == 2:
            lines.append(f"class {name!r} has no positive image: its score is left out")
        elif absent:
            lines.append(f"class {name!r} has no positive image in {absent[0]}: too few images to share")
    if "masks" in arrays and (missing := listing.masks.count(None)):
        lines.append(f"{missing} of {len(listing.ids)} labeled images have no mask: all of their pixels are void")
    return tuple(lines)
