"""How the sample set draws each class: a silhouette of polygons, a pattern, a hue and a size."""

from typing import NamedTuple

import numpy as np

HOLE, DARK, NORMAL, LIGHT = 0, 90, 180, 250  # tones of a silhouette's parts; what is behind shows through a hole

Part = tuple[int, list[tuple[float, float]]]  # tone, and polygon in units of the object's radius, y down


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
    """The appearance of a class."""

    size: float  # radius as a fraction of the square root of the image's area
    hue: float
    saturation: float
    pattern: str  # a key of PATTERNS
    company: str  # classes that often appear in the same scene, separated by spaces
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

# Functions of the position (u, v), in units of the object's radius, and of smooth noise; a sigmoid maps them to [0, 1].
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
