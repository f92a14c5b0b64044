"""Draws small image sets, and reads them with one-line errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voctrain.data import load
from voctrain.data.discovery import with_classes
from voctrain.data.layouts import read_layout
from voctrain.data.palette import voc_palette

SIZE = (20, 24)  # height, width


def scene(i, num_classes, size=SIZE):
    """Image and mask i: a bright square of class 1 + i mod C, and in every third image one of the next class."""
    rng = np.random.default_rng(i)
    image = rng.integers(0, 60, (*size, 3), np.uint8)
    mask = np.zeros(size, np.uint8)
    for k in range(2 if i % 3 == 0 and num_classes > 1 else 1):
        number, left = 1 + (i + k) % num_classes, 2 + 11 * k
        mask[4 + i % 5 : 12 + i % 5, left : left + 8] = number
        image[mask == number] = 90 + voc_palette()[number] // 2
    return image, mask


def save_mask(path, mask, palette=None):
    """Write a palette PNG, by default in VOC's colors."""
    image = Image.fromarray(mask)
    image.putpalette((voc_palette() if palette is None else np.asarray(palette, np.uint8)).tobytes())
    image.save(path)


def write_xml(path, *names):
    objects = "".join(f"<object><part><name>tip</name></part><name>{name}</name></object>" for name in names)
    path.write_text(f"<annotation><owner><name>Ann</name></owner>{objects}</annotation>", encoding="utf-8")


def write_lines(path, lines, encoding="utf-8", end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))


def devkit(root, classes, n=12, *, masks=True, xml=False, lists=True, ending="jpg", size=SIZE):
    """Draw a devkit of n labeled images; returns their ids."""
    ids = [f"img_{i:02}" for i in range(n)]
    for part in ("JPEGImages", *(["SegmentationClass"] if masks else []), *(["Annotations"] if xml else [])):
        (root / part).mkdir(parents=True)
    for i, name in enumerate(ids):
        image, mask = scene(i, len(classes), size)
        Image.fromarray(image).save(root / f"JPEGImages/{name}.{ending}")
        if masks:
            save_mask(root / f"SegmentationClass/{name}.png", mask)
        if xml:
            write_xml(root / f"Annotations/{name}.xml", *(classes[c - 1] for c in np.unique(mask) if c))
    if lists:
        write_lines(root / "ImageSets/Segmentation/train.txt", ids)
    return ids


def folders(root, n=12, num_classes=1, *, images="images/{}.jpg", masks="masks/{}.png", change=lambda mask: mask):
    """Draw images and masks as files at these places; returns the masks before `change`."""
    drawn = []
    for i in range(n):
        image, mask = scene(i, num_classes)
        for pattern, pixels in ((images, image), (masks, change(mask))):
            path = root / pattern.format(f"x{i:02}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        drawn.append(mask)
    return drawn


def repaint(folder: Path, change, ending=None):
    """Write each mask in a folder again: `change` takes the mask and its path.

    It returns an image, or an array, which keeps the palette if it is of values.
    """
    for path in sorted(folder.iterdir()):
        with Image.open(path) as file:
            painted, palette = change(np.array(file), path), file.getpalette()
        path.unlink()
        image = painted if isinstance(painted, Image.Image) else Image.fromarray(painted)
        if image is not painted and image.mode == "L" and palette is not None:
            image.putpalette(palette)
        image.save(path if ending is None else path.with_suffix(ending))


def listed(root, **options):
    """The listing of a set, with its classes."""
    return with_classes(read_layout(root, **options))


def classes_of(root, **options):
    return listed(root, **options).classes.names


def masks_of(root, **options):
    """All masks of a set as label maps, at their own sizes, by id."""
    listing = listed(root, **options)
    return {name: listing.read(i)[1] for i, name in enumerate(listing.ids)}


def truth(classes, n=12, size=SIZE):
    """The masks of `devkit`."""
    return {f"img_{i:02}": scene(i, len(classes), size)[1] for i in range(n)}


def assert_masks(root, classes, n=12, *, size=SIZE, **options):
    """The set has these classes, and the masks as they were drawn."""
    assert classes_of(root, **options) == tuple(classes)
    found, drawn = masks_of(root, **options), truth(classes, n, size)
    assert found.keys() == drawn.keys()
    for name, mask in drawn.items():
        np.testing.assert_array_equal(found[name], mask)


def refusal(root):
    """The one line with which a set is refused."""
    with pytest.raises(ValueError, match=r"^") as raised:
        load(root, image_size=8)
    message = str(raised.value)
    assert "\n" not in message
    return message
