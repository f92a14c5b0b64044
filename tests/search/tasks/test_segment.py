"""A segmentation run, from the search to the submission."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from search import final, run, submit
from search.report import __main__ as report
from search.run_folder.files import read_torch
from search.run_folder.paths import RunPaths
from search.tasks.segment import TASK
from voctrain import segment
from voctrain.data import load, original_masks
from voctrain.metrics.segmentation import mask_metrics, score_maps
from voctrain.submission import decode

pytestmark = pytest.mark.slow
TINY = ("architecture=unet", "width=4", "depth=2", "copy_paste=0.5")


@pytest.fixture(scope="module")
def segmented(on_cluster, dataset, tmp_path_factory):
    """A run of two tiny U-Nets with its final model."""
    out = tmp_path_factory.mktemp("runs")
    size = ("--image-size", 32, "--epochs", 2, "--trials", 2)
    outcome = on_cluster(run.main, "segment", "--data", dataset, *size, "--set", *TINY, "--out", out, "--name", "run")
    assert outcome.status == 0, outcome
    assert "all background 0.0" in outcome.out
    assert f"--segment {out / 'run'}" in outcome.out
    outcome = on_cluster(final.main, out / "run", "--top", 1, "--folds", 2, "--single")
    assert outcome.status == 0, outcome
    return out / "run", outcome.out


@pytest.fixture(scope="module")
def data(dataset):
    return load(dataset, image_size=32)


def test_a_stopped_run_gets_its_pictures_with_the_report(segmented, call, tmp_path):
    folder = shutil.copytree(segmented[0], tmp_path / "run")
    shutil.rmtree(folder / "pictures")
    assert call(report.main, folder).status == 0
    assert {p.name for p in (folder / "pictures").iterdir()} == {"best.png", "worst.png", "classes.png"}
    page = (folder / "report.html").read_text()
    for title in ("Worst masks, by Dice", "Classes on the validation images", "mIoU of the best trial", "(column) (%)"):
        assert title in page


def rows_of(file):
    with open(file, newline="") as handle:
        _, *rows = csv.reader(handle)
    return dict(rows)


def test_the_run_folder_records_the_scores(segmented, data):
    folder, _ = segmented
    best = json.loads((folder / "best.json").read_text())
    with np.load(folder / "val_predictions.npz") as file:
        assert file["ids"].tolist() == [data.ids[i] for i in data.val]
        metrics = mask_metrics(file["confusion"])
        assert metrics["val_mIoU"] == pytest.approx(best["score"])
        assert best["confusion"] == file["confusion"].sum(0).tolist()
    present = [value for value in best["iou"].values() if value is not None]
    assert np.mean(present) == pytest.approx(best["score"])
    assert best["config"]["width"] == 4
    record = json.loads((folder / "run.json").read_text())
    assert record["track"] is None
    assert record["baseline"]["val_dice"] == 0
    with open(folder / "trials.csv", newline="") as handle:
        assert all(float(row["memory_gb"]) > 0.05 for row in csv.DictReader(handle))


def test_pictures_are_drawn(segmented):
    folder, _ = segmented
    for name in ("best", "worst", "classes"):
        with Image.open(folder / "pictures" / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20


def test_the_final_model_is_evaluated_at_original_sizes(segmented, data, dataset):
    folder, said = segmented
    result = json.loads((folder / "final" / "final.json").read_text())
    original = result["original_size"]
    assert original.keys() == {"val_mIoU", "val_accuracy", "val_dice"}
    assert f"original sizes val_dice {original['val_dice']:.4f}" in said
    truths, maps = [], []
    for number, training in enumerate(result["candidates"][0]["trainings"], 1):
        part = data.fold(number, 2)
        model, config = segment.restore(read_torch(RunPaths(folder).final.checkpoint(training) / "weights.pt"))
        truths += original_masks(part, [part.ids[i] for i in part.val])
        maps += segment.predict(model, part.images[part.val], config, sizes=part.sizes[part.val])
    metrics, _ = score_maps(truths, maps, 21)
    assert original == pytest.approx(metrics)


def test_models_are_weighed_on_a_grid_of_pixels(segmented, data):
    """Here it has all pixels, so the score is that of the maps but for rounding to steps of 1/255."""
    folder, _ = segmented
    with np.load(RunPaths(folder).out_of_fold) as file:
        said = dict(file)
    assert said["truth"].shape == (40, 32 * 32)
    row = {name: i for i, name in enumerate(said["ids"].tolist())}
    order = [row[name] for name in data.ids]
    assert np.array_equal(said["truth"][order].reshape(40, 32, 32), data.masks)
    result = json.loads((folder / "final" / "final.json").read_text())
    assert mask_metrics(said["confusion"][0])["val_mIoU"] == pytest.approx(
        result["score"], abs=2e-3
    )  # in steps of 1/255
    assert said["probabilities"].shape == (40, 21, 32 * 32)


def test_the_submission_contains_exactly_the_predicted_masks(segmented, call, data, dataset, tmp_path):
    folder, _ = segmented
    out = tmp_path / "submission.csv"
    outcome = call(submit.main, "--data", dataset, "--segment", folder, "--out", out, "--flip", "--scales", 1, 1.5)
    assert outcome.status == 0, outcome
    model, config = segment.restore(read_torch(folder / "final" / "final.pt"))
    options = {"sizes": data.test_sizes, "flip": True, "scales": (1.0, 1.5)}
    rows = rows_of(out)
    assert len(rows) == 2 * len(data.test_ids)
    maps = segment.predict(model, data.test_images, config, **options)
    for name, label_map in zip(data.test_ids, maps, strict=True):
        planes = decode(rows[f"{name}_segmentation"], (20, *label_map.shape))
        assert np.array_equal(planes, label_map == np.arange(1, 21)[:, None, None])
        assert np.array_equal(decode(rows[f"{name}_classification"], (20,)), planes.any((1, 2)))


def test_the_gate_is_fitted_on_held_out_images_and_used(segmented, finished, call, data, dataset, tmp_path):
    folder, _ = segmented
    both = ("--data", dataset, "--segment", folder, "--classify", finished)
    plain = call(submit.main, *both, "--out", tmp_path / "plain.csv")
    gated = call(submit.main, *both, "--out", tmp_path / "gated.csv", "--gate")
    assert plain.status == gated.status == 0, (plain, gated)
    assert "gate of strength" in gated.out
    # The Dice without it is that of best.pt on the validation images at their original sizes.
    model, config = segment.restore(read_torch(folder / "best.pt"))
    truths = original_masks(data, [data.ids[i] for i in data.val])
    maps = segment.predict(model, data.images[data.val], config, sizes=data.sizes[data.val])
    metrics, _ = score_maps(truths, maps, 21)
    assert f"without it {metrics['val_dice']:.4f}" in gated.out
    rows, other = rows_of(tmp_path / "plain.csv"), rows_of(tmp_path / "gated.csv")
    assert {k: v for k, v in rows.items() if "classification" in k} == {
        k: v for k, v in other.items() if "classification" in k
    }
    assert (rows == other) == ("gate of strength 0 " in gated.out)


def test_padding_is_undone_wherever_masks_have_their_original_sizes(on_cluster, call, dataset, tmp_path):
    """In the scores of `search.final`, in the gate and in the submission."""
    padded = load(dataset, image_size=32, resize="pad")
    size = ("--image-size", 32, "--epochs", 1, "--trials", 1, "--resize", "pad")
    place = ("--data", dataset, "--out", tmp_path)
    for task, pins in (("segment", TINY), ("classify", ("architecture=simple",))):
        outcome = on_cluster(run.main, task, *place, *size, "--set", *pins, "--name", task)
        assert outcome.status == 0, outcome
    assert json.loads((tmp_path / "segment" / "best.json").read_text())["resize"] == "pad"
    again = ("--config", tmp_path / "segment" / "best.json", "--data", dataset, "--folds", 2, "--out", tmp_path / "one")
    assert on_cluster(final.main, *again).status == 0
    saved = read_torch(tmp_path / "one" / "final" / "final.pt")
    assert saved["resize"] == "pad"

    model, config = segment.restore(read_torch(tmp_path / "segment" / "best.pt"))
    truths = original_masks(padded, [padded.ids[i] for i in padded.val])
    options = {"sizes": padded.sizes[padded.val], "resize": "pad"}
    metrics, arrays = score_maps(truths, segment.predict(model, padded.images[padded.val], config, **options), 21)
    found = TASK.at_original_size(read_torch(tmp_path / "segment" / "best.pt"), padded)
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    out = tmp_path / "submission.csv"
    both = ("--segment", tmp_path / "segment", "--classify", tmp_path / "classify")
    outcome = call(submit.main, "--data", dataset, *both, "--gate", "--out", out)
    assert outcome.status == 0, outcome
    assert f"without it {metrics['val_dice']:.4f}" in outcome.out
    outcome = call(submit.main, "--data", dataset, *both[:2], "--out", out)
    assert outcome.status == 0, outcome
    rows, options = rows_of(out), {"sizes": padded.test_sizes, "resize": "pad"}
    maps = segment.predict(model, padded.test_images, config, **options)
    for name, label_map in zip(padded.test_ids, maps, strict=True):
        planes = decode(rows[f"{name}_segmentation"], (20, *label_map.shape))
        assert np.array_equal(planes, label_map == np.arange(1, 21)[:, None, None])


def test_images_of_awkward_sizes(on_cluster, call, dataset, tmp_path):
    odd = shutil.copytree(dataset, tmp_path / "odd")
    (train, test), rng = [load(dataset, image_size=32).ids[:2], load(dataset, image_size=32).test_ids[:2]], np.random
    for kind, names in (("train", train), ("test", test)):
        for name, size in zip(names, ((1, 1), (1200, 900)), strict=True):
            np.save(odd / kind / "img" / f"{kind}_{name}.npy", rng.randint(0, 255, (*size, 3), np.uint8))
            if kind == "train":
                np.save(odd / "train" / "seg" / f"train_{name}.npy", np.full(size, 15, np.uint8))
    size = ("--image-size", 32, "--epochs", 1, "--trials", 1)
    outcome = on_cluster(run.main, "segment", "--data", odd, *size, "--set", *TINY, "--out", tmp_path, "--name", "run")
    assert outcome.status == 0, outcome
    out = tmp_path / "submission.csv"
    assert call(submit.main, "--data", odd, "--segment", tmp_path / "run", "--out", out).status == 0
    rows = rows_of(out)
    for name, size in zip(test, ((1, 1), (1200, 900)), strict=True):
        assert decode(rows[f"{name}_segmentation"], (20, *size)).sum() <= size[0] * size[1]  # a pixel has one class


def test_a_classifier_initializes_the_encoder(on_cluster, dataset, data, tmp_path):
    network = ("--image-size", 32, "--epochs", 1, "--trials", 1, "--data", dataset, "--out", tmp_path)
    pins = ("--set", "architecture=complex", "aug_repeats=1")
    outcome = on_cluster(run.main, "classify", *network, *pins, "--name", "classes")
    assert outcome.status == 0, outcome
    rate = ("--set", "lr=1e-4", "width=8", "optimizer=adamw")
    weights = ("--weights", tmp_path / "classes")
    outcome = on_cluster(run.main, "segment", *network, *rate, *weights, "--name", "masks")
    assert outcome.status == 0, outcome
    encoder, trained = (read_torch(tmp_path / name / "best.pt") for name in ("classes", "masks"))
    assert trained["config"]["architecture"] == "fpn_complex"
    assert trained["mean"] == encoder["mean"]
    distance = (trained["model"]["net.encoder.0.weight"] - encoder["model"]["net.0.weight"]).abs().max()
    assert distance < 0.02  # a few small steps away


def test_a_run_of_the_other_task_is_refused(segmented, finished, call, dataset):
    folder, _ = segmented
    for task, path in (("classify", folder), ("segment", finished)):
        outcome = call(submit.main, "--data", dataset, f"--{task}", path)
        assert outcome.status == 2
        assert f"--{task} takes a model of task {task}, but " in outcome.err
    outcome = call(submit.main, "--data", dataset, "--gate", "--segment", folder)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "--gate needs" in outcome.err
    assert call(submit.main, "--data", dataset).status == 2


def test_a_set_without_masks_is_refused(call, data, dataset, tmp_path):
    bare = shutil.copytree(dataset, tmp_path / "bare")
    shutil.rmtree(bare / "train" / "seg")
    outcome = call(run.main, "segment", "--data", bare, "--image-size", 32, "--out", tmp_path)
    assert outcome.status == 2
    assert "segmentation requires masks" in outcome.err
    assert not (tmp_path / "segment").exists()


def test_classes_of_a_checkpoint_are_loadable_without_pickle(segmented):
    folder, _ = segmented
    saved = torch.load(folder / "final" / "final.pt", weights_only=True)
    assert saved["task"] == "segment"
    assert len(saved["classes"]) == 20
