"""What a trial needs of its task. Light: torch is imported for types only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from search.run_folder.records import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from voctrain.data import Data
    from voctrain.loop import Epoch
    from voctrain.models.deployed import Deployed


class TrainModule(Protocol):
    """The functions of voctrain/<task>.py."""

    METRIC: str  # name of the score, at most 1

    def check(self, config: Any, data: Data) -> None: ...
    def new_model(self, config: Any, data: Data) -> nn.Module: ...
    def train(
        self, config: Any, data: Data, *, device: str = "cpu", resume: Checkpoint | None = None
    ) -> Iterator[Epoch]: ...
    def checkpoint(
        self, config: Any, data: Data, weights: dict[str, Tensor], metrics: dict[str, float]
    ) -> Checkpoint: ...
    def deploy(self, saved: Checkpoint) -> Deployed: ...
    def input_size(self, name: str, image_size: int) -> int: ...
