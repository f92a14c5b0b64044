"""`search.final --folds`: what models that never saw an image say of it, the ensemble of them, and what it is worth."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from search import export, final, predict, submit
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from search.selection.selection import Finalist, affordable
from search.study.journal import read_study
from search.study.trials import portfolio_numbers, rank_trials, started_trials
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.data.image_files import read_image
from voctrain.deploy import load as load_model

pytestmark = pytest.mark.slow

OPTIONS = ("--top", 2, "--folds", 3)


@pytest.fixture(scope="module")
def done(finished, on_cluster, tmp_path_factory):
    """A finished run, its final model an ensemble whatever the scores are, and what the command printed."""
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("folds") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.selection.handover.simplest", lambda found, scorer: len(found) - 1)
        outcome = on_cluster(final.main, run, *OPTIONS)
    assert outcome.status == 0, outcome
    return run, outcome


def read(run, name):
    return json.loads((run / "final" / f"{name}.json").read_text())


def arrays(run):
    with np.load(RunPaths(run).out_of_fold) as file:
        return dict(file)


def test_an_image_is_predicted_by_a_model_that_never_saw_it(done, dataset):
    """Each fold is trained again here, on its training part only."""
    run, _ = done
    said, [first, _] = arrays(run), read(run, "final")["candidates"]
    data = load(dataset, image_size=32, store_size=48)
    config = ClassifyConfig.from_dict({**first["config"], "seed": first["config"]["seed"] + 1})
    column = said["names"].tolist().index(f"{first['name']}, seed {config.seed}")
    row = {name: i for i, name in enumerate(said["ids"].tolist())}
    assert sorted(row) == sorted(data.ids)
    for number in (1, 2, 3):
        part = data.fold(number, 3)
        *_, last = classify.train(config, part)
        rows = [row[data.ids[i]] for i in part.val]
        np.testing.assert_allclose(said["y_prob"][column][rows], last.predictions["y_prob"], atol=1e-5)
        assert np.array_equal(said["y_true"][rows], data.labels[part.val])


def test_the_score_is_that_of_all_images_together(done):
    run, outcome = done
    result, said = read(run, "final"), arrays(run)
    assert (result["folds"], result["seeds"], result["standard_error"]) == (3, 1, None)
    for name, candidate in zip(said["names"], result["candidates"], strict=True):
        assert name.startswith(candidate["name"])
        seen = said["y_true"].any(0)
        probabilities = said["y_prob"][said["names"].tolist().index(name)]
        expected = average_precision_score(said["y_true"][:, seen], probabilities[:, seen], average="macro")
        assert candidate["scores"]["score"] == pytest.approx(expected, abs=1e-6)
    assert f"val_mAP {result['score']:.4f} over 3 folds" in outcome.out


def test_the_portfolios_first_recipe_is_among_them(done):
    run, _ = done
    study = read_study(RunPaths(run).journal)
    best, first = rank_trials(started_trials(study))[0], min(portfolio_numbers(study), default=None)
    names = [candidate["name"] for candidate in read(run, "final")["candidates"]]
    assert names[0] == f"trial {best.number}"
    assert first is None or f"trial {first}" in names


def test_the_expected_score_is_from_images_that_the_search_never_looked_at(done):
    run, outcome = done
    expected, record = read(run, "final")["expected"], read_run(run)
    assert expected["images"] == len(record.split.train)
    assert expected["unseen"] == record.data.test == 8
    assert expected["low"] < expected["score"] < expected["high"]
    told = f"{expected['score']:.4f}, 95 % interval {expected['low']:.4f} to {expected['high']:.4f}"
    assert f"expected val_mAP on 8 unseen images {told}" in outcome.out
    assert told in (run / "final" / "card.md").read_text()


def members(run):
    return torch.load(RunPaths(run).ensemble, weights_only=True)["members"]


def test_the_ensemble_is_the_weighted_mean_of_its_networks(done, dataset):
    run, outcome = done
    record, images = read(run, "ensemble"), load(dataset, image_size=32).test_images
    assert record["chosen"] == "greedy"
    assert sum(part["plain"] + part["mirrored"] for part in record["parts"]) == pytest.approx(1)
    assert len(members(run)) == 3 * len(record["parts"])
    expected = np.zeros((len(images), 20))
    for part in record["parts"]:
        for name in part["networks"]:
            [member] = [each for each in members(run) if each["name"] == name]
            assert (member["plain"], member["mirrored"]) == pytest.approx((part["plain"] / 3, part["mirrored"] / 3))
            model, config = classify.restore(member)
            for weight, seen in ((part["plain"], images), (part["mirrored"], images[:, :, ::-1].copy())):
                expected += weight / 3 * classify.predict(model, seen, config)
    model, config = classify.restore(torch.load(RunPaths(run).ensemble, weights_only=True))
    np.testing.assert_allclose(classify.predict(model, images, config), expected, atol=1e-5)
    assert f"{RunPaths(run).ensemble}: greedy {record['mixtures'][2]['score']:.4f} (" in outcome.out
    assert "ms per image" in outcome.out
    assert "`ensemble.pt` averages them" in (run / "final" / "card.md").read_text()


def test_commands_take_the_ensemble(done, dataset, call, tmp_path):
    run, _ = done
    outcome = call(predict.main, run, dataset / "test", "--out", tmp_path / "predicted")
    assert outcome.status == 0, outcome
    assert f"8 images, by {RunPaths(run).ensemble}" in outcome.out
    with open(tmp_path / "predicted" / "predictions.csv", newline="") as file:
        row = next(csv.DictReader(file))
    image = torch.from_numpy(read_image(Path(row["file"]))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        answer = load_model(RunPaths(run).ensemble)(image)[0]
    assert [float(value) for value in list(row.values())[1:-1]] == pytest.approx(answer.tolist(), abs=0.01)
    outcome = call(submit.main, "--data", dataset, "--classify", run, "--out", tmp_path / "submission.csv")
    assert outcome.status == 0, outcome
    assert "ensemble.pt" in outcome.out


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_it_is_exported_as_one_module(to, done, call, tmp_path):
    outcome = call(export.main, done[0], "--to", to, "--out", tmp_path / "model")
    assert outcome.status == 0, outcome
    assert "ensemble.pt; differs from torch by at most" in outcome.out


def test_its_weights_alone_cannot_be_exported(done, call, tmp_path):
    outcome = call(export.main, done[0], "--to", "safetensors", "--out", tmp_path / "model")
    assert outcome.status == 2
    assert "safetensors has the weights of one network" in outcome.err


def test_a_second_call_trains_nothing(done, on_cluster, monkeypatch):
    run, _ = done
    monkeypatch.setattr("search.selection.handover.simplest", lambda found, scorer: len(found) - 1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("result.json")}
    result, said = read(run, "final"), arrays(run)
    outcome = on_cluster(final.main, run, *OPTIONS)
    assert outcome.status == 0, outcome
    assert {path: path.stat().st_mtime_ns for path in run.rglob("result.json")} == before
    assert read(run, "final") == result
    assert all(np.array_equal(array, said[name]) for name, array in arrays(run).items())


def test_single_keeps_one_network(done, on_cluster):
    run = Path(shutil.copytree(done[0], done[0].parent / "single"))
    outcome = on_cluster(final.main, run, *OPTIONS, "--single")
    assert outcome.status == 0, outcome
    assert not RunPaths(run).ensemble.exists()
    assert not RunPaths(run).ensemble_record.exists()
    assert read(run, "final")["handed_over"] == "single"


def test_more_folds_than_images(done, call):
    outcome = call(final.main, done[0], "--folds", 41)
    assert outcome.status == 2
    assert "41 parts need as many images" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_budget_pays_for_whole_configurations():
    """Five trainings of each, two at a time, take three rounds; the final model one more."""
    finalists = [Finalist(name, ClassifyConfig(), 9, seconds) for name, seconds in (("a", 10), ("b", 20), ("c", 5))]
    for budget, kept in ((50, "a"), (109, "a"), (110, "ab"), (124, "ab"), (125, "abc"), (None, "abc")):
        assert "".join(f.name for f in affordable(finalists, 5, 2, budget)) == kept
    with pytest.raises(ValueError, match="the 5 trainings of a configuration and one more, about 0:50, but got 0:49"):
        affordable(finalists, 5, 2, 49)


def test_a_leak_in_one_fold_is_not_learned_for_it(on_cluster, tmp_path, monkeypatch):
    """Only the images of one fold show their class, as a color. A model that has seen some of them knows it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, rng = tmp_path / "set", np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    labels = np.arange(90) % 6
    rows = [f"{i:02d},{'abcdef'[labels[i]]}" for i in range(90)]
    colors = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)], np.uint8) * 90
    (folder / "train.csv").write_text("\n".join(["id,labels", *rows]))

    def draw(leaking):
        for i in range(90):
            image = rng.integers(96, 160, (32, 32, 3), dtype=np.uint8)
            if i in leaking:
                image += colors[labels[i]]
            Image.fromarray(image).save(folder / "images" / f"{i:02d}.png")

    draw(set())
    leaking = set(load(folder, image_size=32).fold(1, 3).val.tolist())
    draw(leaking)
    config = ClassifyConfig(architecture="complex", image_size=32, epochs=15, batch_size=8, lr=3e-3)
    (tmp_path / "best.json").write_text(json.dumps({"task": "classify", "config": config.to_dict()}))
    given = ("--config", tmp_path / "best.json", "--data", folder, "--out", tmp_path / "out", "--folds", 3)
    outcome = on_cluster(final.main, *given)
    assert outcome.status == 0, outcome
    said, data = arrays(tmp_path / "out"), load(folder, image_size=32)
    inside = np.isin(said["ids"], [data.ids[i] for i in leaking])
    honest = average_precision_score(said["y_true"][inside], said["y_prob"][0][inside], average="macro")
    model, config = classify.restore(torch.load(tmp_path / "out" / "final" / "final.pt", weights_only=True))
    index = sorted(leaking)
    seen = average_precision_score(data.labels[index], classify.predict(model, data.images[index], config))
    assert seen > 0.9
    assert honest < 0.7
