"""The blocks of a page: text, tables, commands, and figures that suit light and dark backgrounds."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cycler import cycler
from matplotlib.figure import Figure as Canvas
from PIL import Image

from search.text import readable

INK = "#010203"  # replaced by the page's text color
BLUE, ORANGE, GREEN, RED, GRAY = "#3f85c9", "#d97f21", "#3b9a5c", "#cf4c4c", "#8a8a8a"
WIDTH, HEIGHT = 5.4, 3.4  # inches of a figure; two fit side by side on a wide screen
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.parse_math": False,  # $ is a character in the names of parameters, classes and runs
    "svg.fonttype": "path",  # looks the same everywhere, and nothing is cut off
    "svg.hashsalt": "report",  # equal figures are equal files
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, GRAY]),
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
SCHEME = "<style>:root{color:#1c1f24}@media(prefers-color-scheme:dark){:root{color:#e3e6ea}}</style>"


@dataclass(frozen=True)
class Figure:
    """An image as a data URL. alt: its description. wide: whether it spans the page."""

    title: str
    alt: str
    url: str
    wide: bool = False
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Table:
    """Rows under heads; numbers are right-aligned."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    kind: ClassVar[str] = "table"

    def plain(self) -> str:
        """The table as text in columns."""
        rows = [[readable(value) for value in row] for row in (self.heads, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Code:
    """Commands or data to copy."""

    text: str
    kind: ClassVar[str] = "code"


Block = Figure | Table | Text | Code


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def canvas(width: float = WIDTH, height: float = HEIGHT) -> Canvas:
    """An empty figure; use it within `matplotlib.rc_context(STYLE)`."""
    return Canvas(figsize=(width, height), layout="constrained")


def drawn(figure: Canvas, title: str, alt: str, *, wide: bool = False) -> Figure:
    """A matplotlib figure for the page, in the colors of the reader's theme."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().replace(INK, "currentColor")
    head = text.index(">", text.index("<svg")) + 1
    text = text[text.index("<svg") : head] + SCHEME + text[head:]
    return Figure(title, alt, _url("svg+xml", text.encode()), wide)


def pictured(picture: Image.Image, title: str, alt: str, *, wide: bool = False) -> Figure:
    """A photograph or sheet for the page."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="jpeg", quality=88)
    return Figure(title, alt, _url("jpeg", file.getvalue()), wide)


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
