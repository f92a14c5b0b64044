"""What a training script of a task has of its own."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """Python source, to be put together by `search.report.script`.

    It finds `config`, `data` and `device`, and may use all that voctrain has.
    """

    imports: Mapping[str, str]  # names by module
    setup: str  # makes `model`, and `images` and whatever else a training needs
    draw: str  # the indices of the images of an epoch, as an expression
    loss: str  # makes `loss` from the images at `index`
    score: str  # makes `metrics` of the model `evaluated`
    extra: str = ""  # adds to the checkpoint `saved`
