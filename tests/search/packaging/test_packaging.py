import json

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from search.export import main
from search.packaging.formats import FORMATS
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.deploy import deploy
from voctrain.deploy import load as load_model

IMAGES = torch.rand(2, 3, 45, 61)


@pytest.fixture(scope="module")
def checkpoint(dataset):
    """A classifier after one epoch."""
    data = load(dataset, image_size=32)
    config = ClassifyConfig(architecture="simple", image_size=32, epochs=1)
    [epoch] = classify.train(config, data)
    return classify.checkpoint(config, data, epoch.weights, epoch.metrics) | {"thresholds": [0.25] * 20}


@pytest.fixture
def folder(checkpoint, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save(checkpoint, tmp_path / "run" / "best.pt")
    return tmp_path / "run"


def opened(to, file):
    """The exported model, as its user runs it, and its metadata."""
    if to == "onnx":
        session = onnxruntime.InferenceSession(file)
        told = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), told
    if to == "safetensors":
        with safe_open(file, "pt") as content:
            return load_model(file), content.metadata()
    extra = {"metadata.json": ""}
    if to == "torchscript":
        return torch.jit.load(file, _extra_files=extra), json.loads(extra["metadata.json"])
    return torch.export.load(file, extra_files=extra).module(), json.loads(extra["metadata.json"])


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_answers_as_the_model(to, call, folder, checkpoint):
    outcome = call(main, folder, "--to", to)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    status, said = outcome.out.splitlines()
    assert status == f"exporting {folder / 'best.pt'}"
    file = folder / FORMATS[to].name
    assert said.startswith(f"{file}: ")
    assert float(said.rpartition(" ")[2]) < 1e-4
    assert {path.name for path in folder.iterdir()} == {"best.pt", file.name}

    model, told = opened(to, file)
    with torch.no_grad():
        assert torch.allclose(model(IMAGES), deploy(checkpoint)(IMAGES), atol=1e-5)
        assert model(IMAGES[:1, :, :20]).shape == (1, 20)  # another size and number of images
    assert told["task"] == "classify"
    assert json.loads(told["classes"]) == checkpoint["classes"]
    assert json.loads(told["thresholds"]) == checkpoint["thresholds"]
    assert json.loads(told["image_size"]) == 32
    assert json.loads(told["mean"]) == checkpoint["mean"]
    assert "RGB in [0, 1]" in told["input"]
    assert "probability of each class" in told["output"]
    assert told["producer"].startswith("voc-search 0")
