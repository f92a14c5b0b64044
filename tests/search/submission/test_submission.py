import csv
import shutil

import numpy as np
import pytest
import torch

from search.submit import main
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.metrics.classification import decide
from voctrain.submission import decode


@pytest.fixture(scope="module")
def data(dataset):
    return load(dataset, image_size=32)


@pytest.fixture(scope="module")
def checkpoint(data):
    """A model of ours after one epoch, with thresholds that most classes do not reach."""
    config = ClassifyConfig(architecture="simple", image_size=32, epochs=1)
    [epoch] = classify.train(config, data)
    saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
    model, config = classify.restore(saved)
    probabilities = classify.predict(model, data.test_images, config)
    return saved | {"thresholds": np.quantile(probabilities, 0.8, axis=0).tolist()}


@pytest.fixture
def folder(checkpoint, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save(checkpoint, tmp_path / "run" / "best.pt")
    return tmp_path / "run"


def submitted(call, dataset, given, *more):
    """The rows (Id, Predicted) of the submission, and what was said."""
    out = given.parent / "submission.csv"
    outcome = call(main, "--data", dataset, "--classify", given, "--out", out, *more)
    assert outcome.status == 0, outcome
    with open(out, newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["Id", "Predicted"]
    return rows, outcome.out


def expected(checkpoint, data, thresholds, **options):
    model, config = classify.restore(checkpoint)
    return decide(classify.predict(model, data.test_images, config, **options), np.array(thresholds))


def decoded(rows):
    return np.array([decode(code, (20,)) for name, code in rows if name.endswith("_classification")])


def test_each_code_is_the_decision_of_the_model(call, dataset, folder, checkpoint, data):
    rows, said = submitted(call, dataset, folder)
    names = [f"{i}_{kind}" for i in data.test_ids for kind in ("classification", "segmentation")]
    assert [name for name, _ in rows] == names
    assert {code for name, code in rows if name.endswith("_segmentation")} == {""}
    answer = expected(checkpoint, data, checkpoint["thresholds"])
    assert np.array_equal(decoded(rows), answer)
    assert answer.sum() > len(answer)  # some image has several
    assert "8 images" in said
    assert "best.pt" in said


def test_weights_that_have_seen_masks_are_declared(call, dataset, tmp_path, checkpoint):
    file = tmp_path / "best.pt"
    for weights, warned in (("published", True), ("none", False)):
        torch.save(checkpoint | {"config": checkpoint["config"] | {"weights": weights}}, file)
        outcome = call(main, "--data", dataset, "--classify", file, "--out", tmp_path / "submission.csv")
        assert outcome.status == 0
        assert (f"{file} started from weights trained on COCO's masks" in outcome.err) == warned


def test_a_file_is_accepted(call, dataset, folder):
    assert submitted(call, dataset, folder / "best.pt")[0] == submitted(call, dataset, folder)[0]


def test_an_image_without_a_class_gets_the_likeliest(call, dataset, tmp_path, checkpoint, data):
    torch.save(checkpoint | {"thresholds": [1.1] * 20}, tmp_path / "best.pt")
    rows, _ = submitted(call, dataset, tmp_path / "best.pt")
    model, config = classify.restore(checkpoint)
    top = classify.predict(model, data.test_images, config).argmax(1)
    assert np.array_equal(decoded(rows), np.eye(20, dtype=bool)[top])


def test_the_final_model_is_preferred(call, dataset, folder, checkpoint, data):
    (folder / "final").mkdir()
    torch.save(checkpoint | {"thresholds": [0.0] * 20}, folder / "final" / "final.pt")
    rows, said = submitted(call, dataset, folder)
    assert decoded(rows).all()
    assert "final.pt" in said


def test_flipped_images_count_too(call, dataset, folder, checkpoint, data):
    rows, _ = submitted(call, dataset, folder, "--flip")
    assert np.array_equal(decoded(rows), expected(checkpoint, data, checkpoint["thresholds"], flip=True))


def test_images_become_squares_as_the_model_learned_them(call, dataset, folder, checkpoint, data):
    torch.save(checkpoint | {"resize": "crop"}, folder / "best.pt")
    rows, _ = submitted(call, dataset, folder)
    cropped = load(dataset, image_size=32, resize="crop")
    assert (cropped.test_images != data.test_images).any()
    assert np.array_equal(decoded(rows), expected(checkpoint, cropped, checkpoint["thresholds"]))


def test_a_set_without_test_images_is_refused_and_nothing_is_written(call, dataset, folder, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    shutil.rmtree(root / "test")
    outcome = call(main, "--data", root, "--classify", folder, "--out", tmp_path / "s.csv")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {root} has no test images to submit")
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_model_of_other_classes_is_refused(task, refused, dataset, checkpoint, tmp_path):
    names = ["cell", "nucleus", "debris"]
    torch.save(checkpoint | {"task": task, "classes": names}, tmp_path / "best.pt")
    message = refused(main, "--data", dataset, f"--{task}", tmp_path / "best.pt")
    assert message == (
        f"a model must know the classes of --data, but {tmp_path / 'best.pt'} knows cell, nucleus, debris, while"
        f" {dataset} has aeroplane, bicycle, bird and 17 more: give the set that it was trained on, or a run on"
        " this set"
    )
    torch.save(checkpoint | {"task": task, "classes": checkpoint["classes"][::-1]}, tmp_path / "best.pt")
    assert "knows tvmonitor, train, sofa" in refused(main, "--data", dataset, f"--{task}", tmp_path / "best.pt")


def test_digits_cannot_be_submitted(refused, folder):
    assert "while digits has 0, 1, 2 and 7 more" in refused(main, "--data", "digits", "--classify", folder)


@pytest.mark.slow
def test_a_search_run_is_accepted(call, dataset, finished, data, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    rows, _ = submitted(call, dataset, tmp_path / "run")
    saved = torch.load(finished / "best.pt", weights_only=True)
    assert np.array_equal(decoded(rows), expected(saved, data, saved["thresholds"]))
