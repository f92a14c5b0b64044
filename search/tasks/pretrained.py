"""Tasks whose networks may start from pretrained weights."""

import dataclasses
from pathlib import Path
from typing import Any

from search.options import PretrainedOptions, SearchOptions
from search.run_folder.paths import RunPaths
from search.run_folder.records import Configuration
from search.tasks import Task
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

    def architecture_of(self, file: str) -> str | None:
        module: Any = self.module
        return module.file_architecture(file)


def is_named(weights: str) -> bool:
    """Whether these weights are known by name; if not, they are a file or a run."""
    from voctrain.models.weights import PUBLISHED

    return weights in ("none", *PUBLISHED)
