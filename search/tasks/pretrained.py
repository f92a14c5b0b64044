"""Tasks whose networks may start from pretrained weights."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.options import PretrainedOptions, SearchOptions
from search.run_folder.paths import RunPaths
from search.run_folder.records import Configuration
from search.tasks import Task, find_task

MASKS = "COCO's masks of VOC's classes. COCO's annotations are under CC BY 4.0; its images are Flickr users'."
IMAGENET = "imagenet"  # the best published weights of each network
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
        if is_named(options.weights):
            return options
        file = Path(options.weights)
        if file.is_dir():  # a run, whose final model has seen the validation images
            file = RunPaths(file).best_weights
            if not file.is_file():
                raise ValueError(f"--weights {options.weights} has no best.pt: give a run that has scored")
        return dataclasses.replace(options, weights=str(file.resolve()))

    def fixed_fields(self, options: SearchOptions, data: Data) -> Configuration:
        assert isinstance(options, PretrainedOptions)
        return {"weights": options.weights}

    def has_weights(self, architecture: str | None, weights: str) -> bool:
        from voctrain.models.published import published

        return architecture is None or published(self.encoder(architecture), weights) is not None

    def download(self, architecture: str, weights: str) -> None:
        from voctrain.models.weights import download

        download(architecture if weights == "published" else self.encoder(architecture), weights)

    def architecture_of(self, file: str) -> str | None:
        module: Any = self.module
        return module.file_architecture(file)

    def encoder(self, architecture: str) -> str:
        """The name of the classifier that ImageNet's weights are loaded into."""
        return architecture

    def provenance(self, config: Configuration) -> str:
        from voctrain.models.published import published
        from voctrain.models.weights import load_file

        weights, architecture = config.get("weights", "none"), config["architecture"]
        if weights == "none":
            return super().provenance(config)
        if not is_named(weights):
            origin = ""
            with suppress(ValueError):  # the file has moved, or is of another tool
                saved = load_file(weights)
                if set(saved) >= {"task", "config"}:
                    origin = f" About these: {find_task(saved['task']).provenance(saved['config'])}"
            return f"It started from the weights in {Path(weights).name}, whose terms apply to it.{origin}"
        whole = weights == "published"
        found = published(architecture if whole else self.encoder(architecture), weights)
        assert found is not None
        return f"It started from {found.name} ({found.license}), trained on {MASKS if whole else IMAGES}"


def is_named(weights: str) -> bool:
    """Whether these weights are known by name; if not, they are a file or a run."""
    from voctrain.models import weights as known

    return weights == "none" or known.is_named(weights)
