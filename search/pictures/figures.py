"""Figures that several tasks show: confusion as a heat map, and pictures that a run has written."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from search.pictures.blocks import Block, Figure, Text, canvas, drawn, pictured
from search.run_folder.paths import RunPaths


def heat_map(matrix: np.ndarray, names: Sequence[str], title: str, alt: str, *, counts: bool = False) -> Figure:
    """A confusion matrix, as shares or counts, in colors and numbers."""
    size = 0.42 * len(names) + 2
    figure = canvas(max(size, 5.4), max(size * 0.8, 4))
    axes = figure.subplots()
    shade = np.log1p(matrix) if counts else matrix
    axes.imshow(shade, cmap="Blues", aspect="auto")
    for i, j in np.argwhere(matrix > (0 if counts else 0.005)):
        text = f"{matrix[i, j]:.0f}" if counts else f"{100 * matrix[i, j]:.0f}"
        dark = shade[i, j] > 0.5 * shade.max()
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "#1c1f24")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    return drawn(figure, title if counts else f"{title} (%)", alt, wide=True)


def written_pictures(paths: RunPaths, titles: Mapping[str, str]) -> Iterator[Block]:
    """The pictures of a run with these names, under their titles."""
    for name, title in titles.items():
        file = paths.pictures / f"{name}.png"
        if file.exists():
            with Image.open(file) as picture:
                yield pictured(picture, title, title, wide=True)
        else:
            yield Text(f"pictures/{name}.png is missing: search.report draws it once the run has ended.")
