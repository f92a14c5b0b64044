import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from search import final
from search.report.page import write_report
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(finished, on_cluster, tmp_path_factory):
    """A finished run with its final model, and what the command printed."""
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("final") / "run"))
    outcome = on_cluster(final.main, run, "--top", 2, "--seeds", 2, "--folds", 1)
    assert outcome.status == 0, outcome
    return run, outcome


def read(folder):
    return json.loads((folder / "final" / "final.json").read_text())


def result_of(run, training):
    return RunPaths(run).final.checkpoint(training) / "result.json"


def histories_of(run, candidate):
    return [json.loads(result_of(run, name).read_text())["history"] for name in candidate["trainings"]]


def test_the_winner_has_the_best_mean_and_its_standard_error(done):
    """The last epoch counts: the best would be chosen by looking at the images that it is judged on."""
    run, outcome = done
    result = read(run)
    assert len(result["candidates"]) == result["seeds"] == 2
    assert (result["folds"], result["expected"]) == (1, None)
    for candidate in result["candidates"]:
        a, b = [history[-1]["val_mAP"] for history in histories_of(run, candidate)]
        assert candidate["epochs"] == 3
        assert candidate["scores"]["scores"] == pytest.approx([a, b], abs=1e-9)
        assert candidate["scores"]["score"] == pytest.approx((a + b) / 2)
        assert candidate["scores"]["standard_error"] == pytest.approx(abs(a - b) / 2)  # std (ddof 1) / sqrt(2), of two
        assert candidate["metrics"]["val_mAP"] == pytest.approx((a + b) / 2)
    winner = max(result["candidates"], key=lambda c: c["scores"]["score"])
    assert (result["winner"], result["score"], result["epochs"]) == (
        winner["name"],
        winner["scores"]["score"],
        winner["epochs"],
    )
    assert result["standard_error"] == winner["scores"]["standard_error"]
    assert f"val_mAP {result['score']:.4f} ± {result['standard_error']:.4f} over 2 seeds" in outcome.out


def test_it_names_its_trainings_and_the_next_command(done):
    run, outcome = done
    names = [candidate["name"] for candidate in read(run)["candidates"]]
    for name in names:
        for seed in (1, 2):
            assert re.search(rf"^{name}, seed {seed}: val_mAP 0\.\d{{4}}$", outcome.out, re.M)
    place = f"--data {read_run(run).options.data} --classify {run}"
    assert outcome.out.splitlines()[-1] == f"next: python -m search.submit {place}"


def test_the_best_trials_are_trained_with_other_seeds(done):
    run, _ = done
    best = json.loads((run / "best.json").read_text())
    first = read(run)["candidates"][0]
    assert first["name"] == f"trial {best['trial']}"
    assert first["config"] == best["config"]
    again = ClassifyConfig.from_dict({**first["config"], "seed": first["config"]["seed"] + 1})
    record = json.loads((run / "run.json").read_text())
    data = load(record["options"]["data"], image_size=32, store_size=48)
    data = data.with_split(record["split"]["train"], record["split"]["val"])
    expected = [epoch.metrics["val_mAP"] for epoch in classify.train(again, data)]
    assert [m["val_mAP"] for m in histories_of(run, first)[0]] == pytest.approx(expected, abs=1e-9)


def test_the_final_model_is_trained_on_all_images(done, dataset):
    run, _ = done
    result, saved = read(run), torch.load(run / "final" / "final.pt", weights_only=True)
    assert saved["epoch"] == result["epochs"]
    for name in ("score", "standard_error", "thresholds"):
        assert saved[name] == result[name]
    config = ClassifyConfig.from_dict(saved["config"])
    data = load(dataset, image_size=32, store_size=48).all_train()
    for epoch in classify.train(config, data):
        if epoch.number == result["epochs"]:
            expected = classify.checkpoint(config, data, epoch.weights, epoch.metrics)["model"]
    assert saved["model"].keys() == expected.keys()
    for name, tensor in saved["model"].items():
        torch.testing.assert_close(tensor, expected[name])
    model, _ = classify.restore(saved)
    assert classify.predict(model, data.test_images, config).shape == (8, 20)


def test_a_card_describes_it(done):
    run, outcome = done
    card, result = (run / "final" / "card.md").read_text(), read(run)
    assert f"{run / 'final' / 'final.pt'} trained on all 40 images in " in outcome.out
    assert "card.md describes it" in outcome.out
    assert f"| over 2 seeds | {result['score']:.4f} ± {result['standard_error']:.4f} |" in card
    assert f"fingerprint `{read_run(run).data.fingerprint}`" in card


def say_diverged(run, training):
    result = {"training": training, "history": [], "error": "diverged: the loss became nan"}
    result_of(run, training).write_text(json.dumps(result))


def test_a_configuration_that_diverges_is_left_out(done, on_cluster):
    """The second best's first retraining is said to have diverged; the winner is chosen from the others."""
    run = Path(shutil.copytree(done[0], done[0].parent / "diverged"))
    first, second = read(run)["candidates"]
    say_diverged(run, second["trainings"][0])
    outcome = on_cluster(final.main, run, "--top", 2, "--seeds", 2, "--folds", 1)
    assert outcome.status == 0, outcome
    assert f"{second['name']} is left out: 1 of its 2 trainings diverged: the loss became nan" in outcome.out
    assert [candidate["name"] for candidate in read(run)["candidates"]] == [first["name"]]
    say_diverged(run, first["trainings"][1])
    outcome = on_cluster(final.main, run, "--top", 2, "--seeds", 2, "--folds", 1)
    assert outcome.status == 1
    assert outcome.err.startswith("error: every configuration failed with another seed")


def test_a_diverged_training_is_reported(done, on_cluster, dataset, tmp_path):
    best = json.loads((done[0] / "best.json").read_text())
    best["config"]["lr"] = 1e30
    (tmp_path / "best.json").write_text(json.dumps(best))
    given = (
        "--config",
        tmp_path / "best.json",
        "--data",
        dataset,
        "--out",
        tmp_path / "out",
        "--seeds",
        1,
        "--folds",
        1,
    )
    outcome = on_cluster(final.main, *given)
    assert outcome.status == 1
    assert re.search(r"^.*best\.json, seed 1: diverged: .*nan", outcome.out, re.M)
    assert outcome.err.startswith("error: every configuration failed with another seed")


@pytest.mark.parametrize("name", ["predictions.npz", "held_out.npz", "result.json"])
def test_a_training_whose_files_are_gone_is_run_again(name, done, on_cluster):
    run = Path(shutil.copytree(done[0], done[0].parent / f"without {name}"))
    before = read(run)
    for training in before["candidates"][0]["trainings"]:
        for file in (name, "weights.pt"):
            (result_of(run, training).with_name(file)).unlink(missing_ok=True)
    outcome = on_cluster(final.main, run, "--top", 2, "--seeds", 2, "--folds", 1)
    assert outcome.status == 0, outcome
    assert "seed 1: val_mAP" in outcome.out
    assert read(run)["score"] == pytest.approx(before["score"], abs=1e-9)


def test_one_seed_has_no_standard_error(done, on_cluster):
    run = Path(shutil.copytree(done[0], done[0].parent / "one seed"))
    outcome = on_cluster(final.main, run, "--top", 1, "--seeds", 1, "--folds", 1)
    assert outcome.status == 0, outcome
    assert re.search(r"val_mAP 0\.\d{4} over 1 seed ", outcome.out)
    assert "over 1 seed" in write_report(run).read_text()


def test_a_second_call_trains_nothing(done, on_cluster):
    run, _ = done
    before = {p: p.stat().st_mtime_ns for p in (run / "final" / "checkpoints").rglob("*")}
    result = read(run)
    outcome = on_cluster(final.main, run, "--top", 2, "--seeds", 2, "--folds", 1)
    assert outcome.status == 0, outcome
    assert {p: p.stat().st_mtime_ns for p in (run / "final" / "checkpoints").rglob("*")} == before
    assert read(run) == result


def test_a_configuration_elsewhere(done, on_cluster, dataset, tmp_path):
    run, _ = done
    best = json.loads((run / "best.json").read_text())
    best["config"]["schedule"], best["config"]["end_factor"] = "plateau", None  # replayed, for there is no validation
    best["config"]["div_factor"] = None
    (tmp_path / "best.json").write_text(json.dumps(best))
    given = ("--config", tmp_path / "best.json", "--data", dataset, "--out", tmp_path / "out", "--folds", 1)
    outcome = on_cluster(final.main, *given, "--seeds", 1)
    assert outcome.status == 0, outcome
    result = read(tmp_path / "out")
    assert result["standard_error"] is None
    [candidate] = result["candidates"]
    saved = torch.load(tmp_path / "out" / "final" / "final.pt", weights_only=True)
    assert saved["config"]["schedule"] == "replay"
    assert saved["config"]["lr_by_epoch"] == pytest.approx(
        [m["lr"] for m in histories_of(tmp_path / "out", candidate)[0]]
    )


@pytest.fixture(scope="module")
def taught(finished, on_cluster, tmp_path_factory):
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("taught") / "run"))
    options = ("--top", 1, "--seeds", 2, "--folds", 1, "--image-size", 40, "--self-training")
    return run, options, on_cluster(final.main, run, *options)


class TestSelfTraining:
    def test_the_winner_is_trained_again_with_its_own_labels(self, taught):
        run, _, outcome = taught
        assert outcome.status == 0, outcome
        teacher, student = read(run)["candidates"]
        assert (teacher["unlabeled"], student["unlabeled"]) == (0, 8)
        assert student["name"] == f"{teacher['name']}, self-trained"
        assert student["config"] == teacher["config"]
        pays = student["scores"]["score"] > teacher["scores"]["score"]
        assert read(run)["winner"] == (student if pays else teacher)["name"]
        assert f": {'kept' if pays else 'not kept'}" in outcome.out
        assert ("unlabeled" in (run / "final" / "card.md").read_text()) == pays

    def test_the_model_has_the_size_that_was_asked_for(self, taught):
        saved = torch.load(taught[0] / "final" / "final.pt", weights_only=True)
        assert saved["image_size"] == saved["config"]["image_size"] == 40

    def test_a_second_call_trains_nothing_again(self, taught, on_cluster):
        run, options, first = taught
        before = {path: path.stat().st_mtime_ns for path in run.rglob("result.json")}
        again = on_cluster(final.main, run, *options)
        assert again.out.splitlines()[-3] == first.out.splitlines()[-3]
        assert {path: path.stat().st_mtime_ns for path in run.rglob("result.json")} == before
