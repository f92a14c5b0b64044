import csv

import numpy as np
import pytest
import torch

from search import predict, submit
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load
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


@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_those_of_the_submission(flip, call, classifier, dataset, data, tmp_path):
    options = ("--flip",) if flip else ()
    outcome = call(predict.main, classifier, dataset / "test", "--out", tmp_path / "out", *options)
    assert outcome.status == 0, outcome
    csv_file = tmp_path / "submission.csv"
    assert call(submit.main, "--data", dataset, "--classify", classifier, "--out", csv_file, *options).status == 0
    with open(csv_file, newline="") as file:
        submitted = dict(csv.reader(file))
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
