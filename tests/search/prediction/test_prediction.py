import csv

import numpy as np
import pytest
import torch
from PIL import Image

from search import predict, submit
from voctrain import classify, segment
from voctrain.config import ClassifyConfig, SegmentConfig
from voctrain.data import load
from voctrain.data.palette import voc_palette
from voctrain.submission import decode


@pytest.fixture(scope="module")
def data(dataset):
    return load(dataset, image_size=32)


@pytest.fixture(scope="module")
def classifier(data, tmp_path_factory):
    """A run folder with a model after one epoch, with thresholds that most classes do not reach."""
    config = ClassifyConfig(architecture="simple", image_size=32, epochs=1)
    [epoch] = classify.train(config, data)
    saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
    model, config = classify.restore(saved)
    probabilities = classify.predict(model, data.test_images, config)
    folder = tmp_path_factory.mktemp("classifier")
    torch.save(saved | {"thresholds": np.quantile(probabilities, 0.8, axis=0).tolist()}, folder / "best.pt")
    return folder


def table(folder):
    """The rows of predictions.csv by file, each as probabilities and labels."""
    with open(folder / "predictions.csv", newline="") as file:
        head, *rows = csv.reader(file)
    return head, {row[0]: (np.array(row[1:-1], np.float32), row[-1].split(",")) for row in rows}


def submission(call, folder, *arguments):
    """The codes of a submission by id."""
    assert call(submit.main, *arguments, "--out", folder / "submission.csv").status == 0
    with open(folder / "submission.csv", newline="") as file:
        return dict(csv.reader(file))


@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_those_of_the_submission(flip, call, classifier, dataset, data, tmp_path):
    options = ("--flip",) if flip else ()
    outcome = call(predict.main, classifier, dataset / "test", "--out", tmp_path / "out", *options)
    assert outcome.status == 0, outcome
    submitted = submission(call, tmp_path, "--data", dataset, "--classify", classifier, *options)
    model, config = classify.restore(torch.load(classifier / "best.pt", weights_only=True))
    probabilities = classify.predict(model, data.test_images, config, flip=flip)
    head, rows = table(tmp_path / "out")
    assert head == ["file", *data.classes, "labels"]
    assert len(rows) == len(data.test_ids)
    for name, expected in zip(data.test_ids, probabilities, strict=True):
        found, labels = rows[str(dataset / "test" / "img" / f"test_{name}.npy")]
        assert np.array_equal(found, expected)
        decided = decode(submitted[f"{name}_classification"], (20,))
        assert labels == list(np.array(data.classes)[decided])


@pytest.fixture(scope="module")
def segmenter(data, tmp_path_factory):
    """A run folder with a model whose last layer is random, so that its masks have many classes."""
    config = SegmentConfig(architecture="unet", width=4, depth=2, image_size=32)
    model = segment.new_model(config, data)
    torch.manual_seed(0)
    weight, bias = [parameter for parameter in model.parameters() if len(parameter) == 21]
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape))
        weight -= weight.mean(1, keepdim=True)  # no class is ahead everywhere
        bias.zero_()
    folder = tmp_path_factory.mktemp("segmenter")
    torch.save(segment.checkpoint(config, data, model.state_dict(), {}), folder / "best.pt")
    return folder


@pytest.mark.parametrize("options", [(), ("--flip", "--scales", 0.5, 1)])
def test_masks_are_those_of_the_submission(options, call, segmenter, dataset, tmp_path):
    outcome = call(predict.main, segmenter, dataset / "test", "--out", tmp_path / "out", *options)
    assert outcome.status == 0, outcome
    rows = submission(call, tmp_path, "--data", dataset, "--segment", segmenter, *options)
    files = sorted((dataset / "test" / "img").iterdir())
    for file in files:
        with Image.open(tmp_path / "out" / "masks" / "img" / f"{file.stem}.png") as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask.getpalette()).reshape(-1, 3), voc_palette())
            values = np.array(mask)
        planes = decode(rows[f"{file.stem.removeprefix('test_')}_segmentation"], (20, *np.load(file).shape[:2]))
        assert len(np.unique(values)) > 3
        assert np.array_equal(values, (planes * np.arange(1, 21)[:, None, None]).sum(0))
    assert len(files) == 8
    with Image.open(tmp_path / "out" / "overlays.png") as sheet:
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 100
