"""The files that a model can be exported to: how each is written, and how it is run again to check it."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from search.run_folder.records import Checkpoint
from voctrain.deploy import deploy, read_safetensors, write_safetensors
from voctrain.models.deployed import Deployed

Description = dict[str, str]
METADATA = "metadata.json"  # in archives of torch
AXES = {0: "batch", 2: "height", 3: "width"}  # of the images, that may have any length


@dataclass(frozen=True)
class Parts:
    """What a file is made of."""

    saved: Checkpoint
    model: Deployed
    description: Description
    example: Tensor  # images of no special size


@dataclass(frozen=True)
class Format:
    """How a file is written, and opened as a function of images."""

    name: str  # of the file
    write: Callable[[Path, Parts], None]
    open: Callable[[Path], Callable[[Tensor], Tensor]]
    needs: tuple[str, ...] = ()  # packages that only an extra installs
    complete: bool = True  # whether it contains more than the weights


def _write_onnx(path: Path, parts: Parts) -> None:
    import onnx

    program = torch.onnx.export(
        parts.model.exportable(),
        (parts.example,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["output"],
        dynamic_shapes=(AXES,),
    )
    assert program is not None
    program.model.metadata_props.update(parts.description)
    program.save(path, external_data=False)
    onnx.checker.check_model(path)


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_torchscript(path: Path, parts: Parts) -> None:
    model = parts.model.exportable()
    traced = torch.jit.trace(model, (parts.example,), check_trace=False)  # our own check has other sizes
    torch.jit.save(traced, path, _extra_files={METADATA: json.dumps(parts.description)})


def _open_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.jit.load(path)


def _write_program(path: Path, parts: Parts) -> None:
    axes = {axis: torch.export.Dim(name) for axis, name in AXES.items()}
    program = torch.export.export(parts.model.exportable(), (parts.example,), dynamic_shapes=(axes,))
    content = io.BytesIO()  # a path must end in .pt2, and that of an unfinished file does not
    torch.export.save(program, content, extra_files={METADATA: json.dumps(parts.description)})
    path.write_bytes(content.getbuffer())


def _write_safetensors(path: Path, parts: Parts) -> None:
    write_safetensors(path, parts.saved, parts.description)


def _open_safetensors(path: Path) -> Callable[[Tensor], Tensor]:
    return deploy(read_safetensors(path))


def _open_program(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(io.BytesIO(path.read_bytes())).module()


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _open_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torchscript": Format("model.torchscript.pt", _write_torchscript, _open_torchscript),
    "safetensors": Format("model.safetensors", _write_safetensors, _open_safetensors, complete=False),
    "torch": Format("model.pt2", _write_program, _open_program),
}


@contextmanager
def quiet() -> Iterator[None]:
    """While active, nothing is printed, logged or warned of: exporters talk about their own progress and future."""
    before, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(before)
