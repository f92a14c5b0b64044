"""The tensors of a weights file for a network, whatever its names begin with."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from voctrain.models.normalized import StateDict
from voctrain.models.weights_file import WeightsFile

# What wrappers of modules put before the names inside: DataParallel, torch.compile, FSDP, checkpointing, Lightning.
WRAPPERS = r"module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module"
# Of several networks that fit alike, averages come first, as in timm, and the slow copies of contrastive learning last.
AVERAGES = re.compile(r"(?:^|[._])(?:ema|swa|teacher|averaged?)(?:[._]|$)")
COPIES = re.compile(r"(?:^|[._])(?:k|key|target|momentum)(?:[._]|$)")
NORMALIZATION = ("mean", "std")
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")  # of batches, which old files lack, and of a profiler


@dataclass(frozen=True)
class Match:
    """Where a file has the tensors of a network.

    prefix: what their names begin with in the file.
    state: the tensors with this prefix, by their names in the network; also those that the network does not have.
    names: their names in the file, by those in the network.
    around: the other tensors of the same dictionaries, by their names in the file.
    beside: the mean and std that lie beside the network, if it is called `net` there, as in our models.
    """

    prefix: str
    state: StateDict
    names: Mapping[str, str]
    around: tuple[str, ...]
    beside: Mapping[str, Tensor]


def is_counter(name: str) -> bool:
    """Whether a tensor only counts, so that a network works the same without it."""
    return name.rpartition(".")[2] in COUNTERS


def find(file: WeightsFile, net: nn.Module, body: Collection[str]) -> Match | None:
    """Where most tensors of `body` are, names in the state dict of `net`, by name and shape; None if none is there.

    Modules may also be numbered in the order of `net`, as `nn.Sequential(*net.children())` does.
    """
    own = net.state_dict()
    numbers = {name: str(i) for i, (name, _) in enumerate(net.named_children())}
    schemes = {False: {key: key for key in body}, True: {_replaced(key, numbers): key for key in body}}
    cleaned = _cleaned(file.tensors)
    named: Counter[tuple[str, bool]] = Counter()
    shaped: Counter[tuple[str, bool]] = Counter()
    for clean, tensor in cleaned.values():
        for start in _starts(clean):
            for numbered, keys in schemes.items():
                key = keys.get(clean[start:])
                if key is not None and not is_counter(key):
                    place = clean[:start], numbered
                    named[place] += 1
                    shaped[place] += tensor.shape == own[key].shape
    if not named:
        return None
    prefix, numbered = max(named, key=lambda place: (shaped[place], named[place], -_rank(place[0]), not place[1]))
    names = {number: name for name, number in numbers.items()} if numbered else {}
    below = {
        name: _replaced(clean.removeprefix(prefix), names)
        for name, (clean, _) in cleaned.items()
        if clean.startswith(prefix)
    }
    owners = {file.owners[name] for name, key in below.items() if key in own}
    inside = {key: name for name, key in below.items() if file.owners[name] in owners}
    state = StateDict((key, file.tensors[name]) for key, name in inside.items())
    state._metadata = _versions(file, prefix, names)
    beside = {name: _beside(prefix, clean) for name, (clean, _) in cleaned.items() if _beside(prefix, clean)}
    around = [name for name in cleaned if file.owners[name] in owners and name not in below and name not in beside]
    key, first = next((key, name) for key, name in inside.items() if key in own)
    shown = first.removesuffix(key) if first.endswith(key) else prefix
    return Match(shown, state, inside, tuple(around), {key: file.tensors[name] for name, key in beside.items()})


def _beside(prefix: str, name: str) -> str:
    """The name of a normalization's tensor beside a network `net` that a prefix leads into; "" for any other."""
    outer, net, _ = prefix.rpartition("net.")
    inside = net and (not outer or outer.endswith("."))
    return name.removeprefix(outer) if inside and name in {outer + key for key in NORMALIZATION} else ""


def _cleaned(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """By name in the file, the name without wrappers, and the tensor."""
    cleaned: dict[str, tuple[str, Tensor]] = {}
    taken = set()
    for name, tensor in tensors.items():
        clean = _clean(name)
        cleaned[name] = (name if clean in taken else clean, tensor)
        taken.add(clean)
    return cleaned


def _clean(name: str) -> str:
    name = re.sub(rf"(?:^|(?<=\.))(?:{WRAPPERS})\.", "", name)
    # The published densenets have names with one more dot.
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)


def _starts(name: str) -> Iterator[int]:
    """Where the parts of a dotted name begin."""
    yield 0
    yield from (i + 1 for i, letter in enumerate(name) if letter == ".")


def _replaced(name: str, firsts: Mapping[str, str]) -> str:
    """The dotted name with its first part replaced."""
    first, dot, rest = name.partition(".")
    return firsts.get(first, first) + dot + rest


def _rank(prefix: str) -> int:
    return 0 if AVERAGES.search(prefix) else 2 if COPIES.search(prefix) else 1


def _versions(file: WeightsFile, prefix: str, names: Mapping[str, str]) -> dict[str, object]:
    """The versions of the modules below a prefix, by name; by them modules recognize old names of their tensors."""
    found = {_clean(name): version for name, version in (file.versions or {}).items()}
    below = {name.removeprefix(prefix): version for name, version in found.items() if name.startswith(prefix)}
    versions = {_replaced(name, names).rstrip("."): version for name, version in below.items()}
    return {"": {"version": 2}, **versions}  # mnasnet requires a version
