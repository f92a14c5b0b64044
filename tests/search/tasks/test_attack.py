import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from search import final, run
from search.report import __main__ as report
from voctrain.attack import AttackEvaluator
from voctrain.config import AttackConfig
from voctrain.data import load

pytestmark = pytest.mark.slow
SIZE = ("--image-size", 32, "--epochs", 2, "--trials", 2)
TINY = ("--set", "architecture=residual", "width=8", "batch_size=8")
ATTACKS = (
    "generator",
    *("generator, shuffled", "untrained generator", "uniform noise", "random sign", "universal", "FGSM"),
    *("PGD-40", "PGD-40, masked"),
)


@pytest.fixture(scope="module")
def attacked(on_cluster, dataset, finished, tmp_path_factory):
    """A run of two small generators against the best of the finished classify run."""
    out = tmp_path_factory.mktemp("runs")
    victims = ("--victim", finished, "--transfer", finished / "best.pt")
    place = ("--data", dataset, "--out", out, "--name", "run")
    outcome = on_cluster(run.main, "attack", *place, *SIZE, *victims, *TINY)
    assert outcome.status == 0, outcome
    return out / "run", outcome.out


def test_the_run_folder_records_the_attack(attacked, finished, dataset):
    folder, said = attacked
    best = json.loads((folder / "best.json").read_text())
    assert best["config"]["victim"] == str(finished / "best.pt")
    assert best["metric"] == "val_score"
    assert best["score"] == best["metrics"]["val_score"]
    record = json.loads((folder / "run.json").read_text())
    assert f"random sign {record['baseline']['val_score']:.4f}" in said
    assert record["baseline"]["val_ssim"] >= 0.85
    data = load(dataset, image_size=32)
    evaluator = AttackEvaluator(AttackConfig.from_dict(best["config"]), data)
    with np.load(folder / "val_predictions.npz") as file:
        assert file["ids"].tolist() == [data.ids[i] for i in data.val]
        assert evaluator.measure(file)["score"] == pytest.approx(best["score"], abs=1e-6)
        assert file["prob_clean"] == pytest.approx(evaluator.clean)
    with np.load(finished / "val_predictions.npz") as file:  # the victim as it was scored
        assert file["y_prob"] == pytest.approx(evaluator.clean, abs=1e-6)


def test_the_table_compares_it_with_the_baselines(attacked):
    folder, said = attacked
    with open(folder / "attacks.csv", newline="") as file:
        rows = {row["attack"]: row for row in csv.DictReader(file)}
    assert tuple(rows) == (*ATTACKS, "generator, on finished")
    for name, row in rows.items():
        assert 0.85 <= float(row["ssim"]) <= 0.855, name  # rounding to 8 bits makes it jump
        assert f"{name}: score {float(row['score']):.4f}" in said
        if name not in ("generator", "generator, on finished"):
            assert float(row["ahead_low"]) <= float(row["ahead"]) <= float(row["ahead_high"])
            assert float(row["ahead"]) == pytest.approx(float(rows["generator"]["score"]) - float(row["score"]))
    for name in ("PGD-40", "PGD-40, masked"):
        assert float(rows[name]["score"]) >= float(rows["random sign"]["score"])
    # Its changes differ between pixels, by what texture hides: at the same similarity they are larger.
    assert float(rows["PGD-40, masked"]["l2"]) > float(rows["PGD-40"]["l2"])
    # The second victim is the first one here.
    assert float(rows["generator, on finished"]["score"]) == pytest.approx(float(rows["generator"]["score"]))
    best = json.loads((folder / "best.json").read_text())
    assert float(rows["generator"]["score"]) == pytest.approx(best["score"], abs=1e-6)


def test_the_report_contains_the_table_and_makes_a_missing_one(attacked, call, tmp_path):
    folder = shutil.copytree(attacked[0], tmp_path / "run")
    shutil.rmtree(folder / "pictures")
    (folder / "attacks.json").unlink()
    assert call(report.main, folder).status == 0
    assert [row["attack"] for row in json.loads((folder / "attacks.json").read_text())][: len(ATTACKS)] == [*ATTACKS]
    page = (folder / "report.html").read_text()
    titles = ("Attacks on the same images", "to a mean SSIM of 0.85", "PGD-40", "Success against similarity")
    for title in (*titles, "score of the best trial"):
        assert title in page
    shutil.rmtree(folder / "pictures")
    (folder / "attacks.json").unlink()
    saved = torch.load(folder / "best.pt", weights_only=True)
    saved["config"]["victim"] = str(tmp_path / "gone.pt")
    torch.save(saved, folder / "best.pt")
    assert call(report.main, folder).status == 0
    assert "The comparison with other attacks is missing" in (folder / "report.html").read_text()


def test_pictures_are_drawn(attacked):
    folder, _ = attacked
    for name in ("attacks", "front"):
        with Image.open(folder / "pictures" / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_the_final_generator_is_trained(on_cluster, attacked, tmp_path):
    folder = shutil.copytree(attacked[0], tmp_path / "run")
    outcome = on_cluster(final.main, folder, "--top", 1, "--seeds", 2)
    assert outcome.status == 0, outcome
    saved = torch.load(folder / "final" / "final.pt", weights_only=True)
    assert saved["task"] == "attack"
    assert saved["metrics"]["val_ssim"] >= 0.85


def test_the_newest_classify_run_is_the_victim(call, finished, dataset, tmp_path):
    for name in ("old", "new"):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "new" / "best.pt").touch()
    outcome = call(run.main, "attack", "--data", dataset, "--out", tmp_path, "--epochs", 1, *TINY, "--dry-run")
    assert outcome.status == 0, outcome
    assert f"victim={tmp_path / 'new' / 'best.pt'}" in outcome.out
    assert "at 32 px" in outcome.out  # the victim's size


def test_digits_need_nothing(on_cluster, tmp_path):
    pins = ("--set", "architecture=mnist_adversarial")
    place = ("--out", tmp_path, "--name", "run", "--epochs", 1, "--trials", 1)
    outcome = on_cluster(run.main, "attack", "--data", "digits", *place, *pins)
    assert outcome.status == 0, outcome
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["metrics"]["val_clean_f1_macro"] > 0.9
    assert (tmp_path / "run" / "pictures" / "attacks.png").exists()


@pytest.mark.parametrize("goal", ["invert", "privacy", "hide:person", "add:person"])
def test_every_goal_runs(goal, on_cluster, finished, dataset, tmp_path):
    size = ("--image-size", 32, "--epochs", 1, "--trials", 1)
    place = ("--data", dataset, "--out", tmp_path, "--name", "run", "--victim", finished)
    outcome = on_cluster(run.main, "attack", *place, *size, *TINY, "--goal", goal)
    assert outcome.status == 0, outcome
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["options"]["goal"] == goal
    rows = json.loads((tmp_path / "run" / "attacks.json").read_text())
    assert tuple(row["attack"] for row in rows) == ATTACKS
    assert all(row["factor"] == 1 for row in rows) == (goal == "privacy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("attack",), "no classify run in runs: make one with python -m search.run classify"),
        (("attack", "--victim", "missing"), "is neither a run nor a file"),
        (("attack", "--victim", "FINISHED", "--goal", "fool"), "goal must be one of fake, invert"),
        (("attack", "--victim", "FINISHED", "--goal", "hide:cow2"), "hide:CLASS must be one of aeroplane"),
        (("attack", "--victim", "FINISHED", "--max-ssim", "0.4"), "max_ssim requires goal=privacy"),
        (("attack", "--victim", "FINISHED", "--set", "architecture=voc_adversarial3"), "at least 64 pixels"),
        (("attack", "--victim", "FINISHED", "--set", "fake_label=0.5", "--goal", "invert"), "fake_label"),
        (("attack", "--victim", "FINISHED", "--set", "goal=invert"), "--set goal must be given as --goal"),
        (("attack", "--victim", "FINISHED", "--weights", "imagenet"), "--weights applies to classify and segment only"),
        (
            ("attack", "--data", "digits", "--victim", "FINISHED"),
            "has aeroplane, bicycle, bird and 17 more, while the data have 0, 1, 2",
        ),
        (("attack", "--data", "digits", "--transfer", "FINISHED"), "while the data have 0, 1, 2 and 7 more: use a"),
        (("classify", "--victim", "FINISHED"), "--victim applies to attack only"),
        (("classify", "--data", "digits"), "--data digits applies to attack only"),
        (("attack", "--min-ssim", "1"), "--min-ssim: must be above 0 and below 1, but got '1'"),
        (("attack", "--max-ssim", "0"), "--max-ssim: must be above 0 and below 1"),
    ],
)
def test_bad_input(arguments, message, refused, finished, dataset):
    arguments = [str(finished) if a == "FINISHED" else a for a in arguments]
    place = () if "--data" in arguments else ("--data", dataset)
    assert message in refused(run.main, *arguments, *place)


def test_models_that_have_seen_validation_images_are_refused(refused, finished, dataset, tmp_path):
    final_model = torch.load(finished / "best.pt", weights_only=True) | {"standard_error": 0.1}
    torch.save(final_model, tmp_path / "final.pt")
    assert "has seen the validation images" in refused(
        run.main, "attack", "--data", dataset, "--victim", tmp_path / "final.pt"
    )
    other = shutil.copytree(finished, tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    record["split"] = {"train": record["split"]["val"], "val": record["split"]["train"]}
    (other / "run.json").write_text(json.dumps(record))
    assert "was trained on 15 of the validation images" in refused(
        run.main, "attack", "--data", dataset, "--victim", other
    )


def test_another_victim_of_the_same_name_is_refused(refused, attacked, tmp_path):
    folder = shutil.copytree(attacked[0], tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["digests"]["victim"] = "0" * 32
    (folder / "run.json").write_text(json.dumps(record))
    message = refused(run.main, "attack", "--resume", folder, "--trials", 3)
    assert "is not the file that this run began with" in message
