"""Tasks whose networks may start from pretrained weights."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.options import PretrainedOptions, SearchOptions
from search.run_folder.location import local_copy
from search.run_folder.paths import RunPaths
from search.run_folder.records import Configuration
from search.tasks import Task, find_task

MASKS = "COCO's masks of VOC's classes. COCO's annotations are under CC BY 4.0; its images are Flickr users'."
# Random weights; the best published ones of each network, and of whole segmenters.
NONE, IMAGENET, PUBLISHED = "none", "imagenet", "published"
EPOCHS = 9  # of fine-tuning, which needs a third of those from scratch
IMAGES = "ImageNet, whose terms of access allow non-commercial research and education only."

if TYPE_CHECKING:
    from voctrain.data import Data


class PretrainedTask(Task):
    """A task with --weights."""

    options = PretrainedOptions
    files = ("weights",)

    def resolve(self, options: SearchOptions) -> SearchOptions:
        options = super().resolve(options)
        assert isinstance(options, PretrainedOptions)
        weights = options.weights or (NONE if options.data == "sample" else IMAGENET)
        epochs = options.epochs or (EPOCHS if weights != NONE else None)
        if is_named(weights):
            return dataclasses.replace(options, weights=weights, epochs=epochs)
        file = local_copy(weights)
        if file.is_dir():  # a run, whose final model has seen the validation images
            file = RunPaths(file).best_weights
            if not file.is_file():
                raise ValueError(f"--weights {weights} has no best.pt: give a run that has scored")
        return dataclasses.replace(options, weights=str(file.resolve()), epochs=epochs)

    def fixed_fields(self, options: SearchOptions, data: Data) -> Configuration:
        assert isinstance(options, PretrainedOptions)
        return {"weights": options.weights}

    def has_weights(self, architecture: str | None, weights: str) -> bool:
        from voctrain.models.published import published

        if weights != IMAGENET or architecture is None:  # whoever asks for others wants no network without them
            return True
        return published(self.encoder(architecture), weights) is not None

    def download(self, architecture: str, weights: str) -> None:
        from voctrain.models.weights import download

        download(architecture if weights == PUBLISHED else self.encoder(architecture), weights)

    def architecture_of(self, file: str) -> str | None:
        module: Any = self.module
        return module.file_architecture(file)

    def encoder(self, architecture: str) -> str:
        """The name of the classifier that ImageNet's weights are loaded into."""
        return architecture

    def provenance(self, config: Configuration) -> str:
        from voctrain.models.published import published

        weights, architecture = config.get("weights", "none"), config["architecture"]
        if weights == "none":
            return super().provenance(config)
        if not is_named(weights):
            before = _trained(weights)
            origin = "" if before is None else f" About these: {before[0].provenance(before[1])}"
            return f"It started from the weights in {Path(weights).name}, whose terms apply to it.{origin}"
        whole = weights == PUBLISHED
        found = published(architecture if whole else self.encoder(architecture), weights)
        if found is None:  # it has none
            return super().provenance(config)
        return f"It started from {found.name} ({found.license}), trained on {MASKS if whole else IMAGES}"

    def has_seen_masks(self, config: Configuration) -> bool:
        weights = config.get("weights", NONE)
        before = None if is_named(weights) else _trained(weights)
        return weights == PUBLISHED if before is None else before[0].has_seen_masks(before[1])


def _trained(file: str) -> tuple[Task, Configuration] | None:
    """Task and configuration of a checkpoint; None for a file that has moved or is of another tool."""
    from voctrain.models.weights import load_file

    with suppress(ValueError):
        saved = load_file(file)
        if set(saved) >= {"task", "config"}:
            return find_task(saved["task"]), saved["config"]
    return None


def is_named(weights: str) -> bool:
    """Whether these weights are known by name; if not, they are a file or a run."""
    from voctrain.models import weights as known

    return weights == "none" or known.is_named(weights)
