"""The card of a final model, from records and predictions that are made up."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from search import export
from search.run_folder.paths import RunPaths
from search.run_folder.records import Candidate, FinalRecord, Scores
from search.selection.card import write_card
from search.session.origin import file_digest
from search.tasks import find_task
from voctrain import attack, classify, segment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.data import load
from voctrain.data.image_files import read_image
from voctrain.data.resizing import resize_square

SCORE, ERROR = 0.5123, 0.0123


@pytest.fixture(scope="module")
def data(dataset):
    return load(dataset, image_size=32)


@pytest.fixture(scope="module")
def victim(data, tmp_path_factory):
    config = ClassifyConfig(architecture="simple", image_size=32)
    saved = classify.checkpoint(config, data, classify.new_model(config, data).state_dict(), {})
    path = tmp_path_factory.mktemp("runs") / "victim" / "best.pt"
    path.parent.mkdir()
    torch.save(saved | {"thresholds": [0.4] * 20}, path)
    return path


@pytest.fixture
def carded(data, tmp_path):
    """A function that makes final.pt of a configuration and its card; returns the run folder and the card."""

    def make(module, config, details, held_out):
        task, paths = find_task(module.__name__.rpartition(".")[2]), RunPaths(tmp_path / "my run")
        saved = module.checkpoint(config, data, module.new_model(config, data).state_dict(), {"val_factor": 2.0})
        paths.card.parent.mkdir(parents=True)
        torch.save(saved | details, paths.final_weights)
        scores, metrics = Scores(SCORE, ERROR, [SCORE - ERROR, SCORE + ERROR]), {task.metric: SCORE}
        candidate = Candidate("trial 3", config.to_dict(), 7, scores, metrics, [], ["a", "b"])
        record = FinalRecord(
            task=task.name,
            metric=task.metric,
            score=SCORE,
            standard_error=ERROR,
            epochs=7,
            winner="trial 3",
            folds=1,
            seeds=2,
            dropped={},
            baseline={task.metric: 0.0123},
            baseline_name="chance",
            original_size={"val_dice": 0.25} if module is segment else {},
            expected=None,
            handed_over="single",
            details=details,
            candidates=[candidate],
        )
        write_card(paths, task, "DIR", data, record, saved | details, held_out)
        return paths.folder, paths.card.read_text()

    return make


def labels(seed, images=200):
    """Predictions of a classifier that is right more often than not."""
    y_true = np.random.default_rng(0).random((images, 20)) < 0.2
    noise = np.random.default_rng(seed).random((images, 20))
    y_true[:, 19] = False
    return {"ids": np.arange(images), "y_true": y_true, "y_prob": (0.3 * y_true + 0.7 * noise).astype(np.float32)}


@pytest.fixture
def classifier(carded):
    config = ClassifyConfig(architecture="simple", image_size=32)
    thresholds = {"thresholds": np.linspace(0.3, 0.6, 20).tolist(), "at_least_one": False}
    return carded(classify, config, thresholds, [labels(1), labels(2)])


@pytest.fixture
def segmenter(carded, data):
    confusion = np.random.default_rng(0).integers(0, 9, (2, len(data.val), 21, 21))
    confusion[:, :, 5], confusion[:, :, :, 5] = 0, 0
    held_out = [{"ids": np.arange(len(data.val)), "confusion": each} for each in confusion]
    config = SegmentConfig(architecture="unet", width=4, depth=2, image_size=32)
    return *carded(segment, config, {}, held_out), confusion


@pytest.fixture
def attacker(carded, victim):
    before, after = labels(1), labels(3)
    held_out = {"ids": before["ids"], "y_true": before["y_true"], "ssim": np.full(200, 0.9)}
    held_out |= {"prob_clean": before["y_prob"], "prob_attacked": after["y_prob"], "linf": np.full(200, 0.1)}
    config = AttackConfig(architecture="residual", width=4, image_size=32, scale=0.1, victim=str(victim))
    return carded(attack, config, {}, [held_out])


def test_a_card_tells_data_score_and_classes(classifier, data):
    _, card = classifier
    assert card.startswith("# my run\n\nThe model in `final.pt`: task classify, architecture `simple`, trained by")
    assert f"| over 2 seeds | {SCORE} ± {ERROR} |\n" in card
    assert "| chance | 0.0123 |\n" in card
    low, high = map(float, re.search(r"over these images \| (.*) to (.*) \|\n", card).groups())
    assert SCORE - 0.1 < low < SCORE < high < SCORE + 0.1
    assert f"trained on {len(data.train)} images and evaluated on {len(data.val)} others" in card
    assert f"40 labeled images with 20 classes at `DIR`, fingerprint `{data.fingerprint}`" in card
    assert "order of the outputs: aeroplane, bicycle, " in card
    assert "It was trained from random weights" in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card
    config = json.loads(re.search("```json\n(.*?)```", card, re.S)[1])
    assert ClassifyConfig.from_dict(config) == ClassifyConfig(architecture="simple", image_size=32)
    held_out = [labels(1), labels(2)]
    thresholds = np.linspace(0.3, 0.6, 20)
    for c, name in enumerate(data.classes):
        row = re.search(rf"^\| {name} \| (.*) \| (.*) \| (.*) \| (.*) \|$", card, re.M).groups()
        truths, scores = ([each[key][:, c] for each in held_out] for key in ("y_true", "y_prob"))
        assert int(row[0]) == truths[0].sum()
        if c == 19:
            assert row[1] == "–"
            continue
        expected = np.mean([average_precision_score(t, s) for t, s in zip(truths, scores, strict=True)])
        assert float(row[1]) == pytest.approx(expected, rel=1e-3)
        assert float(row[2]) == pytest.approx(thresholds[c], rel=1e-3)
        decided = [f1_score(t, s >= thresholds[c]) for t, s in zip(truths, scores, strict=True)]
        assert float(row[3]) == pytest.approx(np.mean(decided), abs=0.02)  # few images get a class beside


def test_a_card_tells_the_iou_of_each_class(segmenter, data):
    _, card, confusion = segmenter
    assert "At the images' original sizes, val_dice is 0.2500." in card
    for c, name in enumerate(("background", *data.classes)):
        total = confusion.sum(1)
        hits, union = total[:, c, c], total[:, c].sum(1) + total[:, :, c].sum(1) - total[:, c, c]
        found = re.search(rf"^\| {name} \| (.*) \|$", card, re.M)[1]
        assert found == "–" if c == 5 else float(found) == pytest.approx((hits / union).mean(), rel=1e-3)


def test_a_card_names_the_victim(attacker, victim):
    _, card = attacker
    assert "It was trained to fool victim/best.pt." in card
    assert f"- victim: `best.pt`, BLAKE2b digest `{file_digest(str(victim))}`\n" in card
    assert "| chance | 0.0123 |\n" in card


def photo(folder):
    """A smooth picture in this folder, uint8 (80, 60, 3)."""
    random = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(random).resize((60, 80), Image.Resampling.BICUBIC).save(folder / "photo.jpg")
    return read_image(folder / "photo.jpg")


@pytest.mark.parametrize("fixture", ["classifier", "segmenter", "attacker"])
def test_the_code_on_a_card_runs(fixture, call, request, monkeypatch):
    folder, card, *_ = request.getfixturevalue(fixture)
    ours, plain = re.findall(r"```python\n(.*?)```", card, re.S)
    image, answers = photo(folder / "final"), []
    monkeypatch.chdir(folder / "final")
    assert "search" not in ours
    assert not re.search("search|voctrain", plain)
    assert call(export.main, folder, "--to", "torch").status == 0
    for code in (ours, plain):
        names = {}
        exec(code, names)
        answers.append(names["answer"].detach().numpy())
    assert answers[1] == pytest.approx(answers[0], abs=1e-4)
    saved = torch.load("final.pt", weights_only=True)
    if fixture == "classifier":
        model, config = classify.restore(saved)
        expected = classify.predict(model, resize_square(image, 32)[None], config)
        assert answers[0] == pytest.approx(expected, abs=0.02)  # the image is not rounded to 8 bits, and no bfloat16
    if fixture == "segmenter":
        model, config = segment.restore(saved)
        [expected] = segment.predict(model, resize_square(image, 32)[None], config, sizes=np.array([(80, 60)]))
        assert (answers[0].argmax(1)[0] == expected).mean() > 0.98
    if fixture == "attacker":
        assert answers[0].shape == (1, 3, 80, 60)
        assert (np.rint(255 * answers[0]) != image.transpose(2, 0, 1)).any()


@pytest.mark.parametrize(
    ("task", "architecture", "weights", "text"),
    [
        (
            "classify",
            "resnet18",
            "imagenet",
            "ResNet18_Weights.IMAGENET1K_V1 (BSD 3-Clause, the license of torchvision)",
        ),
        ("classify", "regnet_y_128gf", "imagenet", "IMAGENET1K_SWAG_E2E_V1 (CC BY-NC 4.0), trained on ImageNet, whose"),
        ("segment", "fpn_resnet18", "imagenet", "ResNet18_Weights.IMAGENET1K_V1"),
        ("segment", "deeplabv3_resnet50", "imagenet", "ResNet50_Weights.IMAGENET1K_V1"),
        (
            "segment",
            "deeplabv3_resnet50",
            "published",
            "VOC_LABELS_V1 (BSD 3-Clause, the license of torchvision), trained",
        ),
        ("classify", "simple", "none", "random weights"),
    ],
)
def test_a_card_names_the_terms_of_published_weights(task, architecture, weights, text):
    assert text in find_task(task).provenance({"architecture": architecture, "weights": weights})


def test_a_card_follows_weights_to_their_origin(victim, tmp_path):
    saved = torch.load(victim, weights_only=True)
    saved["config"] |= {"architecture": "resnet18", "weights": "imagenet"}
    torch.save(saved, tmp_path / "first.pt")
    config = {"architecture": "resnet18", "weights": str(tmp_path / "first.pt")}
    text = find_task("classify").provenance(config)
    assert text.startswith("It started from the weights in first.pt, whose terms apply to it. About these: It started")
    assert "IMAGENET1K_V1" in text
    (tmp_path / "first.pt").unlink()
    assert "first.pt, whose terms apply" in find_task("classify").provenance(config)


def test_weights_that_have_seen_masks_are_known_through_later_models(victim, tmp_path):
    classify, segment = find_task("classify"), find_task("segment")
    saved = torch.load(victim, weights_only=True)
    torch.save(saved, tmp_path / "clean.pt")
    whole = {"architecture": "fcn_resnet50", "weights": "published"}
    torch.save(saved | {"task": "segment", "config": saved["config"] | whole}, tmp_path / "seen.pt")
    later = {"architecture": "fcn_resnet50", "weights": str(tmp_path / "seen.pt")}
    assert segment.has_seen_masks(whole)
    assert segment.has_seen_masks(later)
    assert not segment.has_seen_masks(whole | {"weights": "imagenet"})
    assert not classify.has_seen_masks({"architecture": "resnet18", "weights": str(tmp_path / "clean.pt")})
    assert not classify.has_seen_masks({"architecture": "resnet18", "weights": str(tmp_path / "gone.pt")})
