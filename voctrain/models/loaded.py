"""What a model took from its weights, in one line."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Loaded:
    """What a model took from its weights; `str` tells it in one line.

    source: the name of the file. network: what was loaded, such as "resnet18".
    loaded, total: the number of tensors that were loaded, and of those that the network has.
    prefix: what the names of the tensors begin with in the file. dtype: of the file's tensors, if not float32.
    rest: what became of the head or of the other parts of the model; None if everything was loaded.
    left_out: names of the tensors in the file that have no place in the model, without those of another head.
    """

    source: str
    network: str
    loaded: int
    total: int
    prefix: str = ""
    dtype: str | None = None
    rest: str | None = None
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = f"all {self.total}" if self.loaded == self.total else f"{self.loaded} of {self.total}"
        line = f"{self.source}: {count} tensors of {self.network} loaded"
        line += f", found under {self.prefix!r}" if self.prefix else ""
        line += f", converted from {self.dtype}" if self.dtype else ""
        line += f"; {self.rest}" if self.rest else ""
        return line + (f"; left out of the file: {listed(self.left_out)}" if self.left_out else "")


def listed(names: tuple[str, ...] | list[str], most: int = 3) -> str:
    """The first of these names, and how many there are."""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
