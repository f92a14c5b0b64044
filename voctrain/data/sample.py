"""The built-in sample: a procedurally generated, VOC-like set in the Kaggle layout.

Each scene is painted from front to back over a cluttered background. Every class has a silhouette, a pattern, a hue and
a size. All of them vary strongly, so that a small network can learn the classes, but not immediately.
"""

import colorsys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from voctrain.data.cache import build_folder
from voctrain.data.class_names import VOC_CLASSES, VOID
from voctrain.data.sample_classes import LOOKS, NORMAL, PATTERNS, Part

MIN_PIXELS = 30  # objects with fewer visible pixels are left out
SIZES = (0.42, 0.72)  # range of an object's size relative to its class's; small, so that its position tells nothing
ASPECTS = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4), (2, 3), (16, 10))
EXTRA_OBJECTS = (0.40, 0.30, 0.17, 0.09, 0.04)  # probabilities of 0 to 4 objects besides the first


def make_sample(
    folder: str | Path, *, num_labeled: int = 240, num_unlabeled: int = 60, max_size: int = 160, seed: int = 0
) -> None:
    """Generate the sample set in `folder`, which must be missing or empty.

    Images are uint8 (H, W, 3) with a long side of at most `max_size` pixels. Masks are uint8 (H, W) of 0..20, with 255
    (void) around each object. A label is 1 exactly if the mask contains the class, and every class is in at least one
    labeled scene. The same seed gives the same bytes. The folder appears complete or not at all; if another process
    creates it in the meantime, that one's set is kept.

    Raises:
        ValueError: `num_labeled` < 20, `num_unlabeled` < 0, `max_size` < 32, `seed` < 0, or `folder` is not empty.
    """
    folder = Path(folder).resolve()
    arguments = {"num_labeled": num_labeled, "num_unlabeled": num_unlabeled, "max_size": max_size, "seed": seed}
    for (name, value), low in zip(arguments.items(), (len(VOC_CLASSES), 0, 32, 0), strict=True):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, but got {value}: use a larger value")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"the sample needs a new or empty folder, but got {folder}: use another folder or delete it")
    build_folder(folder, lambda new: _write_set(new, num_labeled, num_unlabeled, max_size, seed))


def _write_set(folder: Path, num_labeled: int, num_unlabeled: int, max_size: int, seed: int) -> None:
    train, test = (np.random.SeedSequence([seed, number]) for number in (0, 1))
    _write_split(folder / "train", num_labeled, max_size, train, labeled=True)
    _write_split(folder / "test", num_unlabeled, max_size, test, labeled=False)


def _write_split(folder: Path, count: int, max_size: int, seeds: np.random.SeedSequence, *, labeled: bool) -> None:
    split = folder.name
    for part in ("img", "seg") if labeled else ("img",):
        (folder / part).mkdir(parents=True)
    deck = [*VOC_CLASSES, "person"] * (count // len(VOC_CLASSES) + 1)  # each class is the lead of a scene in turn
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
    """Draw an image (H, W, 3) and its mask (H, W), with `lead` in front and other objects behind it."""
    aspect = np.array(ASPECTS[rng.integers(len(ASPECTS))])
    width, height = (round(s) for s in (max_size * rng.uniform(0.85, 1) * aspect / aspect.max()).tolist())
    image = _background(rng, height, width)  # (H, W, 3) in [0, 1]
    mask = np.zeros((height, width), np.uint8)
    free = np.ones((height, width), bool)  # not painted yet; a pixel that is void in the mask may still be painted
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
    """Pick zero to four more classes, front to back: from the lead's company, the lead's own class, or any class."""
    company = LOOKS[lead].company.split() or [lead]
    pools = (company, [lead], VOC_CLASSES)
    picks = rng.choice(len(pools), size=rng.choice(len(EXTRA_OBJECTS), p=EXTRA_OBJECTS), p=(0.55, 0.3, 0.15))
    return [str(rng.choice(pools[pick])) for pick in picks]


def _silhouette(
    rng: np.random.Generator, parts: tuple[Part, ...], radius: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the parts in a random pose.

    Returns their tones, uint8 (H, W), 0 outside; and the matrix (2, 3) from pixels (x, y, 1) to object coordinates. The
    silhouette is redrawn, larger each time, until at least MIN_PIXELS are inside the frame `size` (width, height).
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
        radius = min(1.1 * radius, max(size) / 2)  # if larger, the whole frame may lie inside a hole


def _texture(
    rng: np.random.Generator, where: np.ndarray, to_object: np.ndarray, pattern: str, tint: tuple[float, float, float]
) -> np.ndarray:
    """Colors (n, 3) in [0, 1] for the n pixels in `where`: a dark and a light color, mixed by the pattern.

    `tint` is their hue, their saturation and the difference of their brightness.
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
    """Smooth noise of about unit variance: the sum of five random waves."""
    waves = rng.normal(0, 3, (5, 3)).astype(np.float32)  # frequency along u and v, phase
    noise = np.zeros_like(u)
    for a, b, phase in waves:
        noise += np.sin(a * u + b * v + phase)
    return 0.63 * noise


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A texture, sometimes a second one below a horizon, and up to five textured polygons: (H, W, 3) in [0, 1]."""
    image = np.zeros((height, width, 3))
    rows = np.arange(height)[:, None].repeat(width, 1)
    regions = [rows >= 0, rows > height * rng.uniform(0.35, 2)]
    for _ in range(rng.integers(6)):
        angles = np.linspace(0, 2 * np.pi, rng.integers(3, 8), endpoint=False)
        corners = rng.uniform(0.4, 1.6, len(angles)) * (np.cos(angles), np.sin(angles))
        polygon = [(x, y) for x, y in corners.T.tolist()]
        tones, _ = _silhouette(rng, ((NORMAL, polygon),), rng.uniform(0.05, 0.2) * width, (width, height))
        regions.append(tones > 0)
    for region in regions:
        scale = rng.uniform(0.15, 1) * width
        to_object = np.array([[1, rng.normal(), 0], [rng.normal(), 1, 0]]) / scale
        tint = (
            rng.uniform(),
            rng.uniform(0, 0.25),
            rng.uniform(0.05, 0.3),
        )  # duller than any object
        image[region] = _texture(rng, region, to_object, str(rng.choice(list(PATTERNS))), tint)
    return image


def _photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add lighting, blur and sensor noise. Returns uint8 (H, W, 3)."""
    height, width, _ = image.shape
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[:, None]
    slope = rng.normal(0, 0.15, 2)
    lit = image * rng.uniform(0.6, 1.15) * (1 + slope[0] * x + slope[1] * y) * rng.uniform(0.9, 1.1, 3)
    sharp = Image.fromarray((255 * lit.clip(0, 1)).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))), np.float32)
    noisy = blurred + rng.uniform(2, 12) * rng.standard_normal(image.shape, np.float32)
    return noisy.clip(0, 255).astype(np.uint8)
