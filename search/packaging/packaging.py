"""The work of `search.export`: a trained model as one file, checked against the model it was made from."""

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

import torch
import torch.nn.functional as F
from torch import Tensor

from search import __version__
from search.packaging.formats import FORMATS, Format, Parts, quiet
from search.reporter import Reporter
from search.result_options import ExportOptions
from search.run_folder.files import StorageError, replace
from search.run_folder.location import local_copy
from search.run_folder.paths import RunPaths
from search.run_folder.records import Checkpoint
from search.tasks.checkpoint import load_checkpoint
from search.text import first_line, shell_path
from voctrain.deploy import deploy, describe
from voctrain.models.deployed import Deployed

TOLERANCE = 1e-4  # of probabilities and of pixels in [0, 1]
# Batches of images on which the file is compared with the model: number of images, and pixels more than the model's.
CHECKS = ((1, 0, 0), (3, 21, -9), (2, -5, 40))


class ExportFailed(RuntimeError):
    """The model cannot be written in this format. The message is one line that tells the cause."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    file: Path
    checkpoint: Path
    difference: float  # the greatest between an output of the file and of the model

    def __str__(self) -> str:
        size = self.file.stat().st_size / 1e6
        return (
            f"{shell_path(self.file)}: {size:.1f} MB, from {shell_path(self.checkpoint)};"
            f" differs from torch by at most {self.difference:.1g}"
        )


def export(options: ExportOptions, reporter: Reporter) -> Export:
    """Write the model of a run as one file.

    Raises `ValueError` or `OSError` for a mistake of the user, `ExportFailed` if the model and the format do not agree.
    """
    form = FORMATS[options.to]
    if missing := [name for name in form.needs if find_spec(name) is None]:
        raise ValueError(
            f"--to {options.to} needs {' and '.join(missing)}: run python -m pip install {' '.join(form.needs)}"
        )
    run = local_copy(options.run)
    file, saved, _ = load_checkpoint(run)
    out = Path(options.out) if options.out else file.with_name(form.name)
    _check_place(out, run, file)
    model = _model(file, saved, form, options.to)
    description = describe(saved, model) | {"producer": f"voc-search {__version__}"}
    parts = Parts(saved, model, description, _images(2, model.channels, model.image_size + 13, model.image_size + 29))
    reporter.status(f"exporting {shell_path(file)}")
    try:
        difference = _write(out, form, parts)
    except StorageError:
        raise
    except Exception as error:  # exporters fail in many ways
        others = " or ".join(f"--to {other}" for other in FORMATS if other != options.to)
        raise ExportFailed(
            f"{saved['config']['architecture']} cannot be exported to {options.to} ({_cause(error)}): try {others}"
        ) from None
    return Export(out, file, difference)


def _model(file: Path, saved: Checkpoint, form: Format, to: str) -> Deployed:
    """The model of a checkpoint. Raises `ValueError` if it is damaged, or needs a file that is not there."""
    try:
        model = deploy(saved)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file} is damaged ({first_line(error)}): copy or train it again") from None
    if "members" in saved and not form.complete:
        raise ValueError(f"{to} has the weights of one network, but {file} has several: use --to onnx, or final.pt")
    if model.needed and not form.complete:
        raise ValueError(f"{to} has weights only, but this model also needs {model.needed}: use --to onnx")
    if model.needed and not Path(model.needed).is_file():
        raise ValueError(f"{file} also needs {model.needed}, which is not there: put it back")
    return model


def _cause(error: BaseException) -> str:
    """The first line of the error that led to the others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shorten(first_line(error), 200)


@torch.no_grad()
def _write(out: Path, form: Format, parts: Parts) -> float:
    differences = list[float]()

    def write(path: Path) -> None:
        with quiet():
            form.write(path, parts)
            run = form.open(path)
            for count, height, width in CHECKS:
                size = parts.model.image_size
                images = _images(count, parts.model.channels, size + height, size + width)
                differences.append(_difference(run(images), parts.model(images)))
        if max(differences) > TOLERANCE:
            raise ArithmeticError(f"its answers differ by {max(differences):.1g}, above {TOLERANCE:g}")

    replace(out, write)
    return max(differences)


def _difference(output: Tensor, expected: Tensor) -> float:
    """The greatest difference; infinite for another shape, or if a value is not finite."""
    if output.shape != expected.shape:
        return math.inf
    return (output - expected).abs().nan_to_num(math.inf).max().item()


def _images(count: int, channels: int, height: int, width: int) -> Tensor:
    """Random images with large and small structures, which remain when they are resized."""
    draw = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(count, channels, side, side, generator=draw) for side in (8, 80))
    return (F.interpolate(coarse, (height, width)) + F.interpolate(fine, (height, width))) / 2


def _check_place(out: Path, run: Path, file: Path) -> None:
    """Raise `ValueError` for a path that cannot be written, or must not be."""
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"--out must be a file in an existing folder, but got {out}")
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"cannot write in {out.parent}: give --out another folder")
    paths = RunPaths(run)
    if out.resolve() in {path.resolve() for path in (file, paths.best_weights, paths.final_weights, paths.ensemble)}:
        raise ValueError(f"--out must not be a checkpoint, but got {out}: give another name")
