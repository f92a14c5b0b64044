"""What is in a set and what is wrong with it: counts, shapes, colors, warnings, all bad files at once, and a sheet."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from voctrain.contact_sheet import Tile, sheet
from voctrain.data.agreement import check_labels, check_number
from voctrain.data.class_names import VOID, in_short
from voctrain.data.decode import content_warnings, contradictions
from voctrain.data.image_files import read_image
from voctrain.data.layouts.listing import Listing, labels_in
from voctrain.data.palette import voc_palette
from voctrain.data.resizing import NEAREST, resize_square
from voctrain.data.validation import Split, check_parts

SHOWN = 24  # images on the contact sheet
THUMB = 128  # pixels
BAR = 40  # characters


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one image once it is read."""

    size: tuple[int, int]  # height, width
    mean: np.ndarray  # (3,) of the pixels, 0..255
    square_mean: np.ndarray  # (3,)
    labels: np.ndarray | None = None  # uint8 (C,)
    masked: np.ndarray | None = None  # uint8 (C,), in the mask
    pixels: np.ndarray | None = None  # (256,) pixels of each mask value


@dataclass(frozen=True, eq=False)
class Description:
    """A set as it is read: the good images, and the messages of the bad ones."""

    listing: Listing  # without the bad images
    facts: tuple[Facts, ...]  # of its labeled images
    test_facts: tuple[Facts, ...]
    bad: tuple[str, ...]  # a message for each bad image

    def check(self) -> None:
        """Raise `ValueError` for what a search refuses once all files are read."""
        check_number(self.listing)
        check_labels(self.listing, self._rows("labels"), self._rows("masked"))
        check_parts(self._rows("labels"), *self._split())

    def _rows(self, name: str) -> np.ndarray:
        """This fact of all labeled images, uint8 (N, C)."""
        rows = [getattr(fact, name) for fact in self.facts]
        return np.array(rows, np.uint8).reshape(-1, len(self.listing.classes.names))

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        labels = self._rows("labels")
        return Split(self.listing).indices(labels) if len(labels) > 1 else (np.arange(len(labels)), np.arange(0))

    def lines(self) -> Iterator[str]:
        """The description, for people."""
        listing, classes = self.listing, self.listing.classes
        labels, (train, val) = self._rows("labels"), self._split()
        yield f"{listing.root}: {listing.layout} layout"
        yield str(classes)
        yield (
            f"images   {len(labels)} labeled ({len(train)} train, {len(val)} validation),"
            f" {len(listing.tests)} test, {listing.masked} with masks"
        )
        yield from self._shapes()
        yield "classes  images"
        counts = labels.sum(0, dtype=int)
        width = max(12, *map(len, classes.names))
        for name, count in zip(classes.names, counts, strict=True):
            yield f"  {name:<{width}} {count:>5}  {'#' * round(BAR * count / max(counts.max(), 1))}".rstrip()
        pixels = sum((fact.pixels for fact in self.facts if fact.pixels is not None), np.zeros(256))
        if pixels.any():
            rare = [name for name, n in zip(classes.names, pixels[1:], strict=False) if 0 < n < 1e-3 * pixels.sum()]
            yield f"pixels   {pixels[0] / pixels.sum():.1%} background, {pixels[VOID] / pixels.sum():.1%} void" + (
                f"; below 0.1 %: {in_short(rare)}" if rare else ""
            )
        for warning in (*content_warnings(listing, labels, train, val), *contradictions(listing, self._rows("masked"))):
            yield f"warning: {warning}"

    def _shapes(self) -> Iterator[str]:
        facts = (*self.facts, *self.test_facts)
        if not facts:
            return
        sizes = np.array([fact.size for fact in facts])
        summary = [("min", sizes.min(0)), ("median", np.median(sizes, 0).astype(int)), ("max", sizes.max(0))]
        extremes = ", ".join(f"{name} {height} x {width}" for name, (height, width) in summary)
        yield f"sizes    {len(np.unique(sizes, axis=0))} different, height x width: {extremes}"
        mean = np.mean([fact.mean for fact in facts], axis=0)
        std = np.sqrt(np.mean([fact.square_mean for fact in facts], axis=0) - mean**2)
        shown = (" ".join(f"{value:.0f}" for value in channels) for channels in (mean, std))
        yield "colors   mean {} and standard deviation {} of red, green, blue in 0..255".format(*shown)

    def contact_sheet(self) -> Image.Image:
        """Labeled images, each with its mask if it has one, and its classes below."""
        names = np.array(self.listing.classes.names)
        chosen = np.linspace(0, len(self.facts) - 1, min(SHOWN, len(self.facts))).astype(int)
        tiles = []
        for i in dict.fromkeys(chosen.tolist()):
            image, mask, labels = self.listing.read(i)
            pictures = [resize_square(image, THUMB, resize="pad", fill=255)]
            if mask is not None:
                pictures.append(voc_palette()[resize_square(mask, THUMB, NEAREST, resize="pad", fill=VOID)])
            tiles.append(Tile(pictures, (f"{self.listing.examples[i].id}: {', '.join(names[labels.astype(bool)])}",)))
        return sheet(tiles, across=4, size=(THUMB, THUMB))


def describe(listing: Listing, progress: Callable[[int, int], None] = lambda done, total: None) -> Description:
    """Read all images of a listing with its classes. Bad ones are left out, and named by their messages.

    `progress` is called with the number of read images and the total.
    """

    def labeled(i: int) -> Facts | str:
        try:
            image, mask, labels = listing.read(i)
        except ValueError as error:
            return str(error)
        pixels = None if mask is None else np.bincount(mask.ravel(), minlength=256)
        return _facts(image, labels, labels_in(mask, labels), pixels)

    def unlabeled(i: int) -> Facts | str:
        try:
            return _facts(read_image(listing.tests[i].image))
        except ValueError as error:
            return str(error)

    total = len(listing.examples) + len(listing.tests)
    found: list[Facts | str] = []
    with ThreadPoolExecutor() as pool:
        for reading, count in ((labeled, len(listing.examples)), (unlabeled, len(listing.tests))):
            for fact in pool.map(reading, range(count)):
                found.append(fact)
                progress(len(found), total)
    read, tested = found[: len(listing.examples)], found[len(listing.examples) :]
    good = listing.only([not isinstance(f, str) for f in read], [not isinstance(f, str) for f in tested])
    bad = tuple(f for f in found if isinstance(f, str))
    return Description(good, _good(read), _good(tested), bad)


def _good(found: Sequence[Facts | str]) -> tuple[Facts, ...]:
    return tuple(fact for fact in found if isinstance(fact, Facts))


def _facts(
    image: np.ndarray,
    labels: np.ndarray | None = None,
    masked: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
) -> Facts:
    colors = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)].reshape(-1, 3).astype(np.float32)
    share = np.full(len(colors), 1 / len(colors), np.float32)  # a product is ten times faster than a mean over rows
    height, width = image.shape[:2]
    return Facts((height, width), share @ colors, share @ colors**2, labels, masked, pixels)
