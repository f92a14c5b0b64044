import csv
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from search import api, predict, submit
from search.prediction import prediction
from search.prediction.images import Found, read_batches
from search.reporter import Reporter
from search.run_folder.files import StorageError
from voctrain import attack, classify, segment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.data import load
from voctrain.data.palette import voc_palette
from voctrain.data.resizing import BILINEAR
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


@pytest.mark.parametrize(
    ("resize", "options"), [("squash", ()), ("squash", ("--flip", "--scales", 0.5, 1)), ("pad", ()), ("crop", ())]
)
def test_masks_are_those_of_the_submission(resize, options, call, segmenter, dataset, tmp_path):
    saved = torch.load(segmenter / "best.pt", weights_only=True)
    segmenter = tmp_path / "best.pt"
    torch.save(saved | {"resize": resize}, segmenter)
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


@pytest.fixture(scope="module")
def attacker(data, classifier, tmp_path_factory):
    """A function from an architecture to a run folder with an untrained generator, whose victim is the classifier."""

    def make(architecture, channels=3, victim=classifier / "best.pt"):
        fields = {"architecture": architecture, "width": 4, "image_size": 32, "scale": 0.1, "precision": "float32"}
        config = AttackConfig(**fields, victim=str(victim))
        torch.manual_seed(0)
        gray = data if channels == 3 else replace(data, images=data.images[..., :1])
        weights = attack.new_model(config, gray).state_dict()
        folder = tmp_path_factory.mktemp(architecture)
        torch.save(attack.checkpoint(config, gray, weights, {"val_factor": 10.0}), folder / "best.pt")
        return folder

    return make


def picture(size, mode="RGB"):
    """A smooth random picture."""
    random = np.random.default_rng(0).integers(60, 200, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(random).convert(mode).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("architecture", "channels"), [("residual", 3), ("guided", 3), ("residual", 1)])
def test_attacks_are_those_of_the_generator(architecture, channels, call, attacker, tmp_path):
    """At the size of the model exactly; larger ones are what they are when they are reduced to it, nearly."""
    mode = "RGB" if channels == 3 else "L"
    for name, size in (("exact", (32, 32)), ("large", (200, 150))):
        picture(size, mode).save(tmp_path / f"{name}.bmp")
    folder = attacker(architecture, channels)
    outcome = call(predict.main, folder, tmp_path / "exact.bmp", tmp_path / "large.bmp", "--out", tmp_path / "out")
    assert outcome.status == 0, outcome
    generator, config = attack.restore(torch.load(folder / "best.pt", weights_only=True))
    for name, least in (("exact", 1.0), ("large", 0.9)):
        with Image.open(tmp_path / f"{name}.bmp") as before, Image.open(tmp_path / f"out/attacked/{name}.png") as after:
            assert after.size == before.size
            small, attacked = (np.asarray(p.convert(mode).resize((32, 32), BILINEAR)) for p in (before, after))
        small, attacked = small.reshape(32, 32, -1), attacked.reshape(32, 32, -1)
        expected = attack.predict(generator, small[None], config, factor=10.0)[0]
        change, found = (image.astype(int) - small for image in (expected, attacked))
        assert change.std() > 1
        assert (change * found).sum() / np.square(change).sum() == pytest.approx(1, abs=1 - least)
        assert np.corrcoef(change.ravel(), found.ravel())[0, 1] >= least - 1e-9


def test_a_generator_whose_victim_is_gone_is_refused(call, attacker, classifier, tmp_path):
    folder = attacker("guided", victim=shutil.copy(classifier / "best.pt", tmp_path / "victim.pt"))
    (tmp_path / "victim.pt").unlink()
    picture((9, 9)).save(tmp_path / "x.png")
    outcome = call(predict.main, folder, tmp_path / "x.png")
    assert outcome.status == 2, outcome
    assert len(outcome.err.splitlines()) == 1
    assert str(tmp_path / "victim.pt") in outcome.err
    assert not (folder / "predictions").exists()


@pytest.fixture
def photos(tmp_path):
    """A folder with three pictures and a damaged one."""
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (20, 30)), ("c", (50, 20)), ("d", (9, 9))):
        picture(size).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "b.jpg").write_bytes(b"not a picture")
    return tmp_path / "photos"


@pytest.mark.parametrize(("model", "place"), [("classifier", "predictions.csv"), ("segmenter", "masks")])
def test_a_damaged_image_is_named_and_the_others_are_predicted(model, place, call, request, photos, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(model), tmp_path / "run")
    outcome = call(predict.main, folder, photos)
    assert outcome.status == 1
    warning, error = outcome.err.splitlines()
    assert warning.startswith("warning: every file must be readable, but ")
    assert f"{photos / 'b.jpg'} is not (" in warning
    assert error == "error: 1 of 4 images could not be read"
    out = folder / "predictions"
    assert outcome.out.splitlines()[-1] == f"{out / place}: 3 images, by {folder / 'best.pt'}"
    if place == "masks":
        assert sorted(file.name for file in (out / "masks").iterdir()) == ["a.png", "c.png", "d.png"]
    else:
        assert list(table(out)[1]) == [str(photos / f"{name}.png") for name in "acd"]
    assert not [file for file in out.rglob(".*") if file.is_file()]


def test_predictions_replace_earlier_ones_but_no_other_files(call, refused, classifier, photos, tmp_path):
    (photos / "b.jpg").unlink()
    out = tmp_path / "out"
    out.mkdir()
    for name, count in (("a.png", 1), ("", 3)):
        assert call(predict.main, classifier, photos / name, "--out", out).status == 0
        assert len(table(out)[1]) == count
    message = refused(predict.main, classifier, photos, "--out", photos)
    assert message == f"{photos} has files that are not predictions: give --out a new or empty folder"
    message = refused(predict.main, classifier, photos, "--out", photos / "a.png")
    assert message == f"cannot write in {photos / 'a.png'}: give --out a folder that you may write to"


def test_mistakes_are_one_line_and_nothing_is_written(refused, attacker, classifier, photos, tmp_path):
    assert "required: IMAGE" in refused(predict.main, classifier)
    assert "has neither final/final.pt nor best.pt" in refused(predict.main, tmp_path, photos)
    assert "is not a voc-search checkpoint" in refused(predict.main, photos / "a.png", photos)
    assert "there is no image or folder gone.png" in refused(predict.main, classifier, photos, "gone.png")
    message = "--scales does not apply to a model of task classify: leave it out"
    assert refused(predict.main, classifier, photos, "--scales", "0.5") == message
    message = "--flip does not apply to a model of task attack: leave it out"
    assert refused(predict.main, attacker("residual"), photos, "--flip") == message


def interrupted(images, size, resize, skip):
    """Batches of a single image; Ctrl-C is pressed while the second one is read."""
    for i, file in enumerate(images.files):
        if i == 1:
            os.kill(os.getpid(), signal.SIGINT)
        yield from read_batches(Found([file], [images.names[i]]), size, resize, skip)


@pytest.mark.parametrize("model", ["classifier", "segmenter"])
def test_ctrl_c_leaves_what_is_complete(model, call, request, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "read_batches", interrupted)
    (photos / "b.jpg").unlink()
    outcome = call(predict.main, request.getfixturevalue(model), photos, "--out", tmp_path / "out")
    assert outcome.status == 128 + signal.SIGINT
    assert outcome.out.splitlines()[-1] == "stopped after 2 of 3 images; what is written is complete"
    if model == "classifier":
        assert list(table(tmp_path / "out")[1]) == [str(photos / f"{name}.png") for name in "ac"]
    else:
        assert sorted(file.name for file in (tmp_path / "out" / "masks").iterdir()) == ["a.png", "c.png"]
        assert (tmp_path / "out" / "overlays.png").exists()


def test_a_full_disk_is_a_failure_of_the_machine(call, segmenter, photos, tmp_path, monkeypatch):
    def full(path, label_map):
        raise StorageError("cannot write x.png: no space left")

    monkeypatch.setattr("search.pictures.masks.write_mask", full)
    outcome = call(predict.main, segmenter, photos / "a.png", "--out", tmp_path / "out")
    assert (outcome.status, outcome.err) == (1, "error: cannot write x.png: no space left\n")


def test_a_device_without_memory_is_a_failure_of_the_machine(call, classifier, photos, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")

    monkeypatch.setattr(classify, "predict", fail)
    outcome = call(predict.main, classifier, photos / "a.png", "--out", tmp_path / "out")
    assert outcome.status == 1
    expected = f"error: {classifier / 'best.pt'} failed: CUDA out of memory. Tried to allocate 2 GiB\n"
    assert outcome.err == expected
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_program_predicts(classifier, photos, tmp_path):
    done = api.predict(classifier, photos, out=tmp_path / "out", flip=True, reporter=Reporter(quiet=True))
    assert (done.images, done.total, done.signal) == (3, 4, None)
    assert done.place == tmp_path / "out" / "predictions.csv"
    assert len(done.unreadable) == 1
    again = api.predict(api.Run(classifier), [photos / "a.png"], out=tmp_path / "out", reporter=Reporter(quiet=True))
    assert again.images == 1
    with pytest.raises(ValueError, match="there is no option 'fold'"):
        api.predict(classifier, photos, fold=1)


def test_progress_is_shown(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Reporter().progress(100, "images")
    progress(1)
    now = 106.0
    progress(3)
    now = 112.0
    progress(24)
    assert capsys.readouterr().out == "3 of 100 images, 0.5/s\n24 of 100 images, 2.0/s, 0:38 left\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    progress = Reporter().progress(100, "images")
    now = 122.0
    progress(50)
    progress.close()
    assert capsys.readouterr().out == f"\r\x1b[K[{'█' * 15}{' ' * 15}] 50 of 100 images, 5.0/s, 0:10 left\r\x1b[K"
