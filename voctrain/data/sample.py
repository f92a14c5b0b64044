"""The built-in sample: a procedurally drawn, VOC-like set in the Kaggle layout (SEED.md §1).

A scene is painted from front to back over a cluttered background. Every class is a silhouette with a pattern, a hue and
a size, all of which vary strongly, so that a small network learns the classes, but not at once.
"""

import colorsys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from voctrain.data.cache import build_folder
from voctrain.data.layouts import VOC_CLASSES, VOID

MIN_PIXELS = 30  # an object of which less is visible is left out
SIZES = (0.42, 0.72)  # of an object, in units of its class's: mostly small, so that where it stands says nothing
ASPECTS = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4), (2, 3), (16, 10))
EXTRA_OBJECTS = (0.40, 0.30, 0.17, 0.09, 0.04)  # probabilities of 0 to 4 objects beside the first
HOLE, DARK, NORMAL, LIGHT = 0, 90, 180, 250  # tones of a part of a silhouette; a hole shows what is behind

Part = tuple[int, list[tuple[float, float]]]  # tone, polygon in units of the object's radius, y downwards


def _disc(x: float, y: float, rx: float, ry: float | None = None, tone: int = NORMAL) -> Part:
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return tone, list(zip(x + rx * np.cos(angles), y + (ry or rx) * np.sin(angles), strict=True))


def _box(x0: float, y0: float, x1: float, y1: float, tone: int = NORMAL) -> Part:
    return tone, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _poly(*xy: float, tone: int = NORMAL) -> Part:
    return tone, list(zip(xy[::2], xy[1::2], strict=True))


def _legs(y0: float, y1: float, *xs: float, width: float = 0.14) -> tuple[Part, ...]:
    return tuple(_box(x, y0, x + width, y1) for x in xs)


def _wheels(x: float, y: float, r: float, hub: int) -> tuple[Part, ...]:
    return tuple(_disc(s * x, y, k * r, tone=tone) for s in (-1, 1) for k, tone in ((1, DARK), (0.66, hub)))


class Look(NamedTuple):
    """How a class is drawn."""

    size: float  # radius as part of the square root of the frame's area
    hue: float
    saturation: float
    pattern: str  # a key of PATTERNS
    company: str  # classes that tend to be in the same scene
    parts: tuple[Part, ...]


# fmt: off
LOOKS = {
    "aeroplane": Look(.38, .56, .15, "bands", "", (
        _disc(0, 0, 1, .17), _poly(-.2, -.8, .1, -.8, .4, 0, .1, .8, -.2, .8, 0, 0),
        _poly(-1, -.45, -.8, -.45, -.6, 0, -.8, .1, -.95, .1), _disc(.75, -.03, .14, .07, DARK))),
    "bicycle": Look(.36, .92, .90, "flat", "person", (
        *_wheels(.6, .3, .42, HOLE), _poly(-.6, .36, -.6, .22, .5, -.4, .55, -.25),
        _poly(-.3, -.45, -.12, -.45, .1, .3, -.1, .3), _poly(.4, -.6, .55, -.6, .68, .3, .54, .3),
        _box(-.42, -.55, 0, -.42))),
    "bird": Look(.28, .14, .90, "stripes", "", (
        _disc(0, .1, .62, .36), _disc(.55, -.25, .25), _poly(.75, -.35, 1, -.2, .75, -.12),
        _poly(-.5, 0, -1, -.3, -.95, .25), _poly(-.35, 0, .3, 0, -.3, -.8, tone=DARK),
        *_legs(.4, .75, 0, .15, width=.07))),
    "boat": Look(.36, .50, .75, "bands", "person", (
        _poly(-1, .35, 1, .35, .7, .8, -.7, .8, tone=DARK), _box(-.04, -1, .06, .35),
        _poly(.1, -.95, .8, .2, .1, .2), _poly(-.1, -.8, -.6, .2, -.1, .2, tone=LIGHT))),
    "bottle": Look(.29, .37, .85, "gloss", "diningtable person", (
        _box(-.3, -.25, .3, 1), _poly(-.3, -.25, -.12, -.55, .12, -.55, .3, -.25), _box(-.12, -1, .12, -.5),
        _box(-.3, .2, .3, .6, LIGHT))),
    "bus": Look(.34, .00, .90, "flat", "car", (
        _box(-1, -.6, 1, .5), _box(-.9, -.45, -.4, -.05, LIGHT), _box(-.3, -.45, .2, -.05, LIGHT),
        _box(.3, -.45, .9, -.05, LIGHT), *_wheels(.6, .5, .2, NORMAL))),
    "car": Look(.31, .62, .90, "gloss", "person bus", (
        _poly(-1, 0, -.6, -.1, -.35, -.5, .4, -.5, .65, -.1, 1, 0, 1, .35, -1, .35),
        _poly(-.45, -.1, -.28, -.4, .33, -.4, .5, -.1, tone=LIGHT), *_wheels(.58, .35, .22, LIGHT))),
    "cat": Look(.32, .08, .75, "stripes", "sofa", (
        _disc(-.15, .35, .6, .5), _disc(.3, -.3, .38), _poly(0, -.45, .02, -.95, .3, -.6),
        _poly(.6, -.45, .58, -.95, .3, -.6), _poly(-.65, .5, -1, -.3, -.85, -.35, -.5, .3),
        _disc(.42, -.32, .07, tone=DARK))),
    "chair": Look(.32, .75, .65, "bands", "diningtable person", (
        _box(-.5, -1, -.28, .15), _box(.28, -1, .5, .15), _box(-.5, -.95, .5, -.7), _box(-.5, -.5, .5, -.3),
        _poly(-.55, 0, .55, 0, .7, .3, -.7, .3, tone=LIGHT), *_legs(.3, 1, -.65, .5))),
    "cow": Look(.34, .08, .10, "patches", "", (
        _box(-.75, -.4, .5, .3), _disc(.72, -.35, .27, .22), _poly(.55, -.5, .5, -.85, .68, -.55),
        _poly(.8, -.5, 1, -.8, .9, -.45), *_legs(.25, .85, -.72, -.45, .1, .34), _box(-.2, .3, .1, .42, LIGHT))),
    "diningtable": Look(.37, .06, .55, "checks", "chair bottle person", (
        _poly(-.75, -.4, .75, -.4, 1, .1, -1, .1), _box(-1, .1, 1, .25, DARK), *_legs(.2, .8, -.9, .76))),
    "dog": Look(.33, .11, .50, "fur", "person sofa", (
        _disc(-.1, .1, .62, .3), _disc(.6, -.3, .28), _box(.65, -.32, 1, -.08), _disc(.45, -.2, .13, .3, DARK),
        *_legs(.2, .85, -.65, -.45, .2, .4, width=.13), _poly(-.6, 0, -.95, -.5, -.85, -.55, -.5, -.1))),
    "horse": Look(.36, .03, .80, "gloss", "person", (
        _disc(-.15, .05, .62, .27), _poly(.2, .1, .5, -.75, .75, -.7, .5, .15), _disc(.75, -.68, .3, .14),
        _poly(.35, -.2, .45, -.95, .6, -.7, tone=DARK), *_legs(.1, 1, -.68, -.48, .18, .36, width=.1),
        _poly(-.7, -.1, -1, .6, -.8, .5, tone=DARK))),
    "motorbike": Look(.33, .83, .70, "dots", "person", (
        *_wheels(.65, .4, .35, DARK), _poly(-.7, .3, -.9, -.2, -.2, -.25, .1, -.4, .5, -.3, .75, .3, .2, .5),
        _poly(.4, -.2, .3, -.75, .65, -.7, .5, -.6, .7, .3))),
    "person": Look(.35, .66, .45, "blocks", "person chair bottle dog car", (
        _disc(0, -.78, .2, .23, LIGHT), _poly(-.38, -.5, .38, -.5, .3, .2, -.3, .2),
        _poly(-.38, -.5, -.25, -.3, -.45, .25, -.6, .2), _poly(.38, -.5, .25, -.3, .45, .25, .6, .2),
        _box(-.28, .15, -.03, 1, DARK), _box(.03, .15, .28, 1, DARK))),
    "pottedplant": Look(.30, .29, .85, "dots", "chair tvmonitor", (
        *(_disc(.42 * np.cos(a), -.4 + .38 * np.sin(a), .3) for a in (0, 1.3, 2.5, 3.8, 5)), _disc(0, -.4, .35),
        _poly(-.4, .3, .4, .3, .28, 1, -.28, 1, tone=DARK), _box(-.05, 0, .05, .35))),
    "sheep": Look(.30, .12, .10, "dots", "", (
        *(_disc(.5 * np.cos(a), .3 * np.sin(a), .3) for a in np.arange(0, 6.2, .7)), _disc(0, 0, .5, .35),
        _disc(.75, -.1, .2, .25, DARK), *_legs(.4, .8, -.45, -.2, .1, .32, width=.1))),
    "sofa": Look(.34, .87, .70, "checks", "cat person", (
        _box(-.85, -.5, .85, .2), _box(-1, -.1, -.7, .6), _box(.7, -.1, 1, .6), _box(-.75, .15, 0, .45, LIGHT),
        _box(0, .15, .75, .45, LIGHT), _box(-.75, .45, .75, .58, DARK))),
    "train": Look(.36, .18, .75, "stripes", "person", (
        _poly(-1, -.3, .5, -.6, .95, -.2, 1, .6, -1, .3), _poly(.45, -.4, .75, -.3, .8, .0, .5, -.05, tone=LIGHT),
        _poly(-.95, -.12, .3, -.35, .3, -.05, -.95, .05, tone=DARK), _box(.45, .25, .95, .35, DARK))),
    "tvmonitor": Look(.29, .50, .08, "flat", "chair", (
        _box(-.9, -.75, .9, .5, DARK), _box(-.78, -.63, .78, .38, LIGHT), _box(-.12, .5, .12, .75, DARK),
        _box(-.5, .75, .5, .88, DARK))),
}
# fmt: on

# Patterns over (u, v), in units of the object's radius, and smooth noise; a sigmoid takes their values to [0, 1].
PATTERNS = {
    "flat": lambda u, v, noise: 0.5 * noise,
    "gloss": lambda u, v, noise: 2.5 * v + 0.3 * noise,
    "stripes": lambda u, v, noise: 3 * np.sin(11 * u + noise),
    "bands": lambda u, v, noise: 3 * np.sin(11 * v + 0.5 * noise),
    "checks": lambda u, v, noise: 9 * np.sin(8 * u) * np.sin(8 * v),
    "dots": lambda u, v, noise: 4 * (np.cos(12 * u + 0.4 * noise) + np.cos(12 * v + 0.4 * noise) - 0.7),
    "blocks": lambda u, v, noise: 9 * np.sin(5 * v + 1),
    "patches": lambda u, v, noise: 9 * noise,
    "fur": lambda u, v, noise: 1.5 * np.sin(40 * u + 6 * noise) + np.sin(25 * v + 9 * noise),
}


def make_sample(
    folder: Path, *, num_labeled: int = 240, num_unlabeled: int = 60, max_size: int = 160, seed: int = 0
) -> None:
    """Write the sample set to `folder`, which must be missing or empty.

    Images are uint8 (H, W, 3) with the long side up to `max_size`, masks uint8 (H, W) of 0..20 and 255 (void) around
    each object. A label is 1 exactly when the mask holds the class, and every class is in one labeled scene at least.
    One seed gives the same bytes. The folder appears complete or not at all; where another process made it in the
    meantime, its set stays.

    Raises:
        ValueError: `num_labeled` < 20, `num_unlabeled` < 0, `max_size` < 32, `seed` < 0, or a `folder` not empty.
    """
    folder = Path(folder).resolve()
    arguments = {"num_labeled": num_labeled, "num_unlabeled": num_unlabeled, "max_size": max_size, "seed": seed}
    for (name, value), low in zip(arguments.items(), (len(VOC_CLASSES), 0, 32, 0), strict=True):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, but got {value}: give a larger one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"the sample needs a new or empty folder, but got {folder}: name another one or delete it")
    build_folder(folder, lambda new: _write_set(new, num_labeled, num_unlabeled, max_size, seed))


def _write_set(folder: Path, num_labeled: int, num_unlabeled: int, max_size: int, seed: int) -> None:
    train, test = (np.random.SeedSequence([seed, number]) for number in (0, 1))
    _write_split(folder / "train", num_labeled, max_size, train, labeled=True)
    _write_split(folder / "test", num_unlabeled, max_size, test, labeled=False)


def _write_split(folder: Path, count: int, max_size: int, seeds: np.random.SeedSequence, *, labeled: bool) -> None:
    split = folder.name
    for part in ("img", "seg") if labeled else ("img",):
        (folder / part).mkdir(parents=True)
    deck = [*VOC_CLASSES, "person"] * (count // len(VOC_CLASSES) + 1)  # every class leads a scene in turn
    leads = np.random.default_rng(seeds).permutation(deck[:count])
    labels = np.full((count, len(VOC_CLASSES)), -1)
    for i, (lead, child) in enumerate(zip(leads, seeds.spawn(count), strict=True)):
        image, mask = _scene(np.random.default_rng(child), str(lead), max_size)
        np.save(folder / "img" / f"{split}_{i}.npy", image)
        if labeled:
            np.save(folder / "seg" / f"{split}_{i}.npy", mask)
            labels[i] = np.isin(np.arange(1, len(VOC_CLASSES) + 1), mask)
    pd.DataFrame(labels, columns=list(VOC_CLASSES)).to_csv(folder / f"{split}_set.csv", index_label="Id")


def _scene(rng: np.random.Generator, lead: str, max_size: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and its mask (H, W), with `lead` in front and others behind it."""
    aspect = np.array(ASPECTS[rng.integers(len(ASPECTS))])
    width, height = (round(s) for s in (max_size * rng.uniform(0.85, 1) * aspect / aspect.max()).tolist())
    image = _background(rng, height, width)  # (H, W, 3) in [0, 1]
    mask = np.zeros((height, width), np.uint8)
    free = np.ones((height, width), bool)  # not yet painted; void pixels of the mask are free in the image
    border = 2 * max(1, round(max_size / 80)) + 1
    for number, name in enumerate([lead, *_companions(rng, lead)]):
        look = LOOKS[name]
        size = look.size * rng.uniform(*SIZES) * (1 if number == 0 else rng.uniform(0.6, 1))
        tones, to_object = _silhouette(rng, look.parts, size * np.sqrt(width * height), (width, height))
        visible = (tones > 0) & (mask == 0)
        if visible.sum() < MIN_PIXELS:
            continue
        near = np.asarray(Image.fromarray(visible.astype(np.uint8)).filter(ImageFilter.MaxFilter(border))) > 0
        mask[near & (mask == 0)] = VOID
        mask[visible] = VOC_CLASSES.index(name) + 1
        painted = (tones > 0) & free
        free &= ~painted
        tint = look.hue + rng.normal(0, 0.03), look.saturation, rng.uniform(0.35, 0.5)
        colors = _texture(rng, painted, to_object, look.pattern, tint)
        image[painted] = colors * (tones[painted, None] / NORMAL)
    return _photograph(rng, image), mask


def _companions(rng: np.random.Generator, lead: str) -> list[str]:
    """Zero to four more classes, the next one behind the last: the lead's company, more of its kind, or any."""
    company = LOOKS[lead].company.split() or [lead]
    pools = (company, [lead], VOC_CLASSES)
    picks = rng.choice(len(pools), size=rng.choice(len(EXTRA_OBJECTS), p=EXTRA_OBJECTS), p=(0.55, 0.3, 0.15))
    return [str(rng.choice(pools[pick])) for pick in picks]


def _silhouette(
    rng: np.random.Generator, parts: tuple[Part, ...], radius: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Tones (H, W) of the parts in a random pose, 0 outside, and the map (2, 3) from pixels (x, y, 1) to the object.

    It is drawn anew, larger, until at least MIN_PIXELS are in the frame (width, height).
    """
    while True:
        turn, shear = rng.normal(0, 0.22), rng.normal(0, 0.15)
        stretch = radius * np.exp(rng.normal(0, 0.1, 2)) * (rng.choice((-1, 1)), 1)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = rotation @ [[1, shear], [0, 1]] @ np.diag(stretch)
        center = rng.uniform(0.25, 0.75, 2) * size
        canvas = Image.new("L", size)
        draw = ImageDraw.Draw(canvas)
        for tone, polygon in parts:
            draw.polygon([tuple(p) for p in polygon @ matrix.T + center], fill=tone)
        tones = np.asarray(canvas)
        if (tones > 0).sum() >= MIN_PIXELS:
            inverse = np.linalg.inv(matrix)
            return tones, np.column_stack([inverse, -inverse @ center])
        radius = min(1.1 * radius, max(size) / 2)  # beyond, the frame may lie inside a hole


def _texture(
    rng: np.random.Generator, where: np.ndarray, to_object: np.ndarray, pattern: str, tint: tuple[float, float, float]
) -> np.ndarray:
    """Colors (n, 3) in [0, 1] of the pixels `where`: a dark and a light color, mixed by the pattern.

    `tint` is their hue, their saturation and how far apart their brightnesses are.
    """
    hue, saturation, contrast = tint
    y, x = np.nonzero(where)
    pixels = np.array((x, y, np.ones_like(x)), np.float32)  # (3, n)
    u, v = to_object.astype(np.float32) @ pixels * rng.uniform(0.75, 1.3)
    mix = 1 / (1 + np.exp(-PATTERNS[pattern](u, v, _noise(rng, u, v))))
    saturation = saturation * rng.uniform(0.7, 1.2)
    middle = rng.uniform(0.5, 0.75)
    dark, light = (
        colorsys.hsv_to_rgb((hue + rng.normal(0, 0.02)) % 1, min(1, saturation * rng.uniform(0.8, 1.1)), value)
        for value in (middle - contrast / 2, middle + contrast / 2)
    )
    return dark + mix[:, None] * np.subtract(light, dark)


def _noise(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth noise of about unit variance: five random waves."""
    waves = rng.normal(0, 3, (5, 3)).astype(np.float32)  # frequency along u and v, phase
    return 0.63 * sum(np.sin(a * u + b * v + phase) for a, b, phase in waves)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One texture, perhaps another below a horizon, and up to five textured pieces of clutter: (H, W, 3) in [0, 1]."""
    image = np.zeros((height, width, 3))
    rows = np.arange(height)[:, None].repeat(width, 1)
    regions = [rows >= 0, rows > height * rng.uniform(0.35, 2)]
    for _ in range(rng.integers(6)):
        angles = np.linspace(0, 2 * np.pi, rng.integers(3, 8), endpoint=False)
        corners = rng.uniform(0.4, 1.6, len(angles)) * (np.cos(angles), np.sin(angles))
        tones, _ = _silhouette(rng, ((NORMAL, corners.T),), rng.uniform(0.05, 0.2) * width, (width, height))
        regions.append(tones > 0)
    for region in regions:
        scale = rng.uniform(0.15, 1) * width
        to_object = np.array([[1, rng.normal(), 0], [rng.normal(), 1, 0]]) / scale
        tint = rng.uniform(), rng.uniform(0, 0.25), rng.uniform(0.05, 0.3)  # calmer than any object
        image[region] = _texture(rng, region, to_object, str(rng.choice(list(PATTERNS))), tint)
    return image


def _photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Lighting, blur and sensor noise: uint8 (H, W, 3)."""
    height, width, _ = image.shape
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[:, None]
    slope = rng.normal(0, 0.15, 2)
    lit = image * rng.uniform(0.6, 1.15) * (1 + slope[0] * x + slope[1] * y) * rng.uniform(0.9, 1.1, 3)
    sharp = Image.fromarray((255 * lit.clip(0, 1)).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))), np.float32)
    noisy = blurred + rng.uniform(2, 12) * rng.standard_normal(image.shape, np.float32)
    return noisy.clip(0, 255).astype(np.uint8)
