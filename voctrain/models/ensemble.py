"""Several models as one, whose probabilities are the weighted mean of theirs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from voctrain.models.auxiliary import outputs_of

MEMBER = ("task", "config", "classes", "image_size", "resize", "mean", "std", "model")  # parts of its checkpoint
SMALLEST = 1e-7  # probability: float32 can tell 1 - this from 1


class Member(NamedTuple):
    """A model in eval mode, and what its probabilities of an image and of the mirrored image weigh."""

    model: nn.Module
    plain: float
    mirrored: float


def pack_ensemble(members: Sequence[tuple[str, dict[str, Any], float, float]]) -> dict[str, Any]:
    """A checkpoint of an ensemble, from the name, the checkpoint and the weights of each member, the heaviest first.

    Its `model` is that of the first member, for trainings that start from it; a file has these tensors only once.
    """
    kept = [{key: saved[key] for key in MEMBER if key in saved} for _, saved, _, _ in members]
    packed = [
        {"name": name, "plain": plain, "mirrored": mirrored, **own}
        for own, (name, _, plain, mirrored) in zip(kept, members, strict=True)
    ]
    return {**kept[0], "members": packed}


def members_of(saved: dict[str, Any], restore: Callable[[dict], tuple[nn.Module, Any]]) -> Iterator[Member]:
    """The models of an ensemble's checkpoint."""
    for member in saved["members"]:
        yield Member(restore(member)[0], member["plain"], member["mirrored"])


class Ensemble(nn.Module):
    """Images (B, 3, S, S) in [0, 1] → logits of the members' mean probabilities; the weights of all sum to 1."""

    def __init__(self, members: Iterable[Member]):
        super().__init__()
        members = list(members)
        self.models = nn.ModuleList([member.model for member in members])
        self.weights = [(member.plain, member.mirrored) for member in members]

    def forward(self, images: Tensor) -> Tensor:
        total = torch.zeros((), device=images.device)
        for model, (plain, mirrored) in zip(self.models, self.weights, strict=True):
            if plain:
                total = total + plain * self.probabilities(model, images)
            if mirrored:
                total = total + mirrored * self.mirrored(self.probabilities(model, images.flip(-1)))
        return self.logits(total)

    def probabilities(self, model: nn.Module, images: Tensor) -> Tensor:
        """What a member says of images."""
        raise NotImplementedError

    def mirrored(self, probabilities: Tensor) -> Tensor:
        """Those of mirrored images, as they are for the images."""
        raise NotImplementedError

    def logits(self, probabilities: Tensor) -> Tensor:
        raise NotImplementedError


class ClassifierEnsemble(Ensemble):
    """Logits (B, C)."""

    @property
    def input_size(self) -> int:
        """The side of the images that the networks take; if they differ, each resizes the images itself."""
        return max(int(model.input_size) for model in self.models)  # pyright: ignore[reportArgumentType]

    def probabilities(self, model: nn.Module, images: Tensor) -> Tensor:
        return model(images).float().sigmoid()

    def mirrored(self, probabilities: Tensor) -> Tensor:
        return probabilities

    def logits(self, probabilities: Tensor) -> Tensor:
        return probabilities.logit(SMALLEST)


class SegmenterEnsemble(Ensemble):
    """Logits (B, 1 + C, S, S), background first."""

    def probabilities(self, model: nn.Module, images: Tensor) -> Tensor:
        logits = outputs_of(model(images))[0].float()
        if logits.shape[-2:] != images.shape[-2:]:
            logits = nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        return logits.softmax(1)

    def mirrored(self, probabilities: Tensor) -> Tensor:
        return probabilities.flip(-1)

    def logits(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp(min=SMALLEST).log()
