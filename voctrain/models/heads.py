"""The last layers of a network whose classes are not those of its weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from voctrain.models.loaded import listed
from voctrain.models.matching import is_counter
from voctrain.models.normalized import StateDict


@dataclass(frozen=True)
class Head:
    """The head of a network.

    last: the names of its tensors whose first dimension is the number of classes, with background for segmenters.
    parts: the first parts of these names: the children of the network that the head consists of.
    classes: the names of its outputs; None if they are unknown. background: the number of outputs before the classes.
    """

    last: frozenset[str]
    classes: tuple[str, ...] | None = None
    background: int = 0

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(first_part(key) for key in self.last)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the last layers."""
        return tuple(sorted({key.rpartition(".")[0] for key in self.last}))


def first_part(name: str) -> str:
    return name.partition(".")[0]


def is_auxiliary(name: str) -> bool:
    """Whether a tensor belongs to an auxiliary output, which only training uses and files often lack."""
    return name.lower().startswith("aux")


def fit_head(
    state: StateDict, own: Mapping[str, Tensor], head: Head, classes: Sequence[str] | None
) -> tuple[set[str], str | None]:
    """Drop from `state` what does not fit a head, and put its outputs into the order of the model's classes.

    own: the model's tensors. classes: the names of the classes in the file, if it has them.
    Returns the names of the tensors that stay as they were initialized, and the reason, if it is not the file's lack of
    auxiliary outputs. A file without one of the tensors of a head that it has otherwise is left to the caller.
    """
    order = class_order(classes, head.classes)
    anew: set[str] = set()
    reasons: dict[bool, str] = {}
    for part in sorted(head.parts, key=is_auxiliary):
        dropped, reason = _unfit(part, state, own, head, order, classes)
        anew |= dropped
        if dropped:
            reasons.setdefault(is_auxiliary(part), reason)
            for key in [key for key in state if key in dropped or (first_part(key) == part and key not in own)]:
                del state[key]
    if order:
        rows = [*range(head.background), *(head.background + i for i in order)]
        for key in head.last & state.keys():
            state[key] = state[key][rows]
    if False in reasons:
        return anew, f"the head is initialized anew ({reasons[False]})"
    if True in reasons:
        return anew, f"the auxiliary outputs are initialized anew ({reasons[True]})"
    return anew, "the head's outputs are put into the order of the classes here" if order else None


def _unfit(
    part: str,
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    head: Head,
    order: Sequence[int] | None,
    classes: Sequence[str] | None,
) -> tuple[set[str], str]:
    """The tensors of a part of the head that cannot be taken from `state`, and why."""
    mine = {key for key in own if first_part(key) == part}
    last = mine & head.last
    there = [key for key in state if first_part(key) == part and not is_counter(key)]
    if not there:
        return mine, "the file has none"
    if strange := [key for key in there if key not in own]:
        return mine, f"the file has another one, with {listed(strange, 2)}"
    for key in there:
        skipped = 1 if key in last else 0
        if state[key].shape[skipped:] != own[key].shape[skipped:] or state[key].ndim != own[key].ndim:
            return mine, f"{key} is {tuple(state[key].shape)} in the file and {tuple(own[key].shape)} here"
    if not last <= state.keys():
        return last, "the file has none"
    counts = [len(tensors[min(last)]) - head.background for tensors in (state, own)]
    if counts[0] != counts[1]:
        return last, f"{counts[0]} classes in the file, {counts[1]} here"
    return (last, f"other classes in the file: {listed(tuple(classes or ()))}") if order == () else (set(), "")


def class_order(classes: Sequence[str] | None, wanted: Sequence[str] | None) -> tuple[int, ...] | None:
    """Where the wanted classes are among `classes`; () if some are not; None if all are at their place, or unknown.

    Case and blanks of the names make no difference.
    """
    if classes is None or wanted is None:
        return None
    there, here = [_plain(name) for name in classes], [_plain(name) for name in wanted]
    if there == here:
        return None
    if sorted(there) != sorted(here) or len(set(there)) < len(there):
        return ()
    return tuple(there.index(name) for name in here)


def _plain(name: str) -> str:
    return "".join(name.casefold().split())


def body_of(own: Collection[str], head: Head) -> list[str]:
    """The names of the tensors that weights must have."""
    return [key for key in own if first_part(key) not in head.parts]
