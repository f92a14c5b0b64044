import dataclasses
import io
import json
import re

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from search import api
from search.export import main
from search.packaging.formats import FORMATS
from search.reporter import Reporter
from voctrain import attack, classify, segment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.data import load
from voctrain.data.resizing import RESIZE
from voctrain.deploy import deploy
from voctrain.deploy import load as load_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
IMAGES = torch.rand(2, 3, 45, 61)


@pytest.fixture(scope="module")
def checkpoint(dataset):
    """A classifier after one epoch, whose masks count for its classes."""
    data = load(dataset, image_size=32)
    config = ClassifyConfig(architecture="simple", image_size=32, epochs=1, mask_loss=1.0, mask_pooling=True)
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
        assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["images", "output"]
        assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
        told = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), told
    if to == "safetensors":
        with safe_open(file, "pt") as content:
            return load_model(file), content.metadata()
    extra, content = {"metadata.json": ""}, io.BytesIO(file.read_bytes())
    if to == "torchscript":
        return torch.jit.load(content, _extra_files=extra), json.loads(extra["metadata.json"])
    return torch.export.load(content, extra_files=extra).module(), json.loads(extra["metadata.json"])


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


def test_a_missing_package_is_named_before_any_work(refused, folder, monkeypatch):
    monkeypatch.setattr("search.packaging.packaging.find_spec", lambda name: None if name == "onnxscript" else name)
    monkeypatch.setattr("search.packaging.packaging.load_checkpoint", lambda *a: pytest.fail("nothing may start"))
    message = refused(main, folder, "--to", "onnx")
    assert message == "--to onnx needs onnxscript: run python -m pip install onnx onnxscript onnxruntime"


def test_files_that_are_no_target_are_refused(refused, folder, tmp_path):
    place = ("--to", "safetensors", "--out")
    assert refused(main, folder, *place, tmp_path).startswith("--out must be a file in an existing folder")
    assert refused(main, folder, *place, tmp_path / "no" / "x").startswith("--out must be a file in an existing folder")
    assert "must not be a checkpoint" in refused(main, folder, *place, folder / "best.pt")
    assert "neither final/final.pt nor best.pt" in refused(main, tmp_path)
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    assert "is not a voc-search checkpoint" in refused(main, tmp_path / "x.pt")


def test_a_damaged_checkpoint_is_refused(refused, checkpoint, tmp_path):
    torch.save(checkpoint | {"model": {"mean": torch.zeros(3)}}, tmp_path / "best.pt")
    assert refused(main, tmp_path / "best.pt").startswith(f"{tmp_path / 'best.pt'} is damaged (")


def test_a_file_that_answers_otherwise_is_not_left(call, folder, monkeypatch):
    wrong = dataclasses.replace(FORMATS["torchscript"], open=lambda path: lambda images: torch.ones(len(images), 20))
    monkeypatch.setitem(FORMATS, "torchscript", wrong)
    outcome = call(main, folder, "--to", "torchscript")
    assert outcome.status == 1
    assert re.fullmatch(
        r"error: simple cannot be exported .*\(its answers differ by [\d.e-]+, above 0.0001\): try .*\n", outcome.err
    )
    assert [path.name for path in folder.iterdir()] == ["best.pt"]


def test_an_exporter_that_fails_is_one_line(call, folder, monkeypatch):
    def fail(*args, **kwargs):
        try:
            raise NotImplementedError("no rule for this operation\nsee the manual")
        except NotImplementedError as error:
            print("a long story")
            raise RuntimeError("step 3 of 3 failed\n" * 50) from error

    monkeypatch.setattr("torch.jit.trace", fail)
    outcome = call(main, folder, "--to", "torchscript")
    assert outcome.status == 1
    message = "simple cannot be exported to torchscript (no rule for this operation)"
    assert outcome.err == f"error: {message}: try --to onnx or --to safetensors or --to torch\n"
    assert "story" not in outcome.out
    assert [path.name for path in folder.iterdir()] == ["best.pt"]


def test_the_final_model_is_exported_beside_itself(call, folder, checkpoint):
    (folder / "final").mkdir()
    torch.save(checkpoint | {"thresholds": [0.75] * 20}, folder / "final" / "final.pt")
    export = api.export(folder, to="safetensors", reporter=Reporter(quiet=True))
    assert export.file == folder / "final" / "model.safetensors"
    assert export.checkpoint == folder / "final" / "final.pt"
    assert export.difference == 0
    assert json.loads(opened("safetensors", export.file)[1]["thresholds"]) == [0.75] * 20


def test_a_mistake_in_a_program_is_one_line(folder):
    with pytest.raises(ValueError, match="--to must be one of onnx, torchscript, safetensors, torch, but got 'tflite'"):
        api.export(folder, to="tflite")


@pytest.mark.slow
@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("to", FORMATS)
def test_masks_at_the_size_of_the_image(resize, to, call, dataset, tmp_path):
    data = load(dataset, image_size=32)
    config = SegmentConfig(architecture="unet", width=4, depth=1, image_size=32, epochs=1)
    [epoch] = segment.train(config, data)
    saved = segment.checkpoint(config, data, epoch.weights, epoch.metrics) | {"resize": resize}
    torch.save(saved, tmp_path / "best.pt")
    assert call(main, tmp_path / "best.pt", "--to", to, "--out", tmp_path / "x").status == 0
    model, told = opened(to, tmp_path / "x")
    assert told["resize"] == resize
    with torch.no_grad():
        assert model(IMAGES).shape == (2, 21, 45, 61)
        assert torch.allclose(model(IMAGES), deploy(saved)(IMAGES), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_attacks(to, call, dataset, checkpoint, tmp_path):
    """The guided generator is exported with its victim, except as weights alone."""
    torch.save(checkpoint, tmp_path / "victim.pt")
    data = load(dataset, image_size=32)
    config = AttackConfig(
        victim=str(tmp_path / "victim.pt"), architecture="guided", width=4, image_size=32, epochs=1, scale=0.3, lr=0.01
    )
    [epoch] = attack.train(config, data)
    saved = attack.checkpoint(config, data, epoch.weights, epoch.metrics)
    torch.save(saved, tmp_path / "best.pt")
    outcome = call(main, tmp_path / "best.pt", "--to", to, "--out", tmp_path / "x")
    with torch.no_grad():
        attacked = deploy(saved)(IMAGES)
    assert (attacked - IMAGES).abs().max() > 0.01
    if to == "safetensors":
        assert outcome.status == 2
        assert outcome.err == (
            f"error: safetensors has weights only, but this model also needs {tmp_path / 'victim.pt'}: use --to onnx\n"
        )
        return
    assert outcome.status == 0, outcome
    (tmp_path / "victim.pt").unlink()
    refusal = call(main, tmp_path / "best.pt", "--to", to)
    assert (refusal.status, len(refusal.err.splitlines())) == (2, 1)
    assert f"also needs {tmp_path / 'victim.pt'}, which is not there" in refusal.err
    with torch.no_grad():
        assert torch.allclose(opened(to, tmp_path / "x")[0](IMAGES), attacked, atol=1e-4)
