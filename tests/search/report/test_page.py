import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from search.option_values import make_options
from search.options import run_parser, task_options
from search.report.__main__ import main
from search.report.page import command
from search.report.trials import RELIABLE
from search.run_folder.paths import RunPaths
from search.run_folder.records import read_run
from search.study.journal import open_study
from tests.search.report.pages import remade, replaced, trial
from voctrain.config import ClassifyConfig

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_the_report_of_a_finished_run(call, copy):
    page = remade(call, copy)
    best = json.loads((copy / "best.json").read_text())
    assert f"{best['score']:.4f} (trial {best['trial']}, epoch {best['epoch']})" in page.text
    low, high = map(float, re.search(r"95 % interval([\d.]+) to ([\d.]+), by bootstrap", page.text).groups())
    assert low < best["score"] < high
    assert f"python -m search.final {copy}" in page.text
    assert "Random labels" in page.text
    titles = ("Score of each trial", "Learning curves", "Images per class", "An example of each class")
    titles += (
        "A batch of images, and what the best configuration trains on instead",
        "Best validation images",
        "Worst validation images",
    )
    titles += ("for which a class is predicted (column)", "Where the budget went")
    titles += tuple(f"{name} of the best trial" for name in ("loss", "accuracy", "precision", "recall", "f1", "mAP"))
    assert not [title for title in titles if title not in page.text]
    assert "true: " in " ".join(page.images)
    assert len(page.images) > 15
    assert page.text.count("logs/000") == 4
    assert "python -m search.run classify --data " in page.text
    assert "--image-size 32 --store-size 48 --resize squash --trials 4 --epochs 3 " in page.text
    assert "--set architecture=simple" in page.text
    assert "--name" not in page.text
    assert "unless it is a natural one" not in page.text  # too few trials


def test_a_deleted_checkpoint_is_reported(call, copy):
    (copy / "best.pt").unlink()
    assert "best.pt is missing" in remade(call, copy).text


def test_deleted_predictions_and_data_are_reported(call, copy):
    (copy / "val_predictions.npz").unlink()
    record = json.loads((copy / "run.json").read_text())
    record["options"]["data"] = "/nowhere"
    (copy / "run.json").write_text(json.dumps(record))
    text = remade(call, copy).text
    assert "val_predictions.npz is missing" in text
    assert "The data cannot be shown: " in text
    assert "95 % interval" not in text


def test_a_run_with_one_trial(call, finished, tmp_path):
    page = remade(call, replaced(finished, tmp_path / "run", [trial()]))
    assert "0.2000 (trial 0, epoch 2)" in page.text
    assert "1 scored trials tell nothing about parameters: it takes 10." in page.text
    assert "best.json is missing" in page.text


def test_a_run_whose_trials_all_failed(call, finished, tmp_path):
    trials = [trial(scores=(), state=TrialState.FAIL, error=f"reason {i}") for i in range(3)]
    text = remade(call, replaced(finished, tmp_path / "run", trials)).text
    assert "No trial has scored yet." in text
    assert "reason 2" in text


def test_a_run_that_is_running(call, finished, tmp_path):
    trials = [trial(), trial(state=TrialState.RUNNING, scores=(0.3,))]
    page = remade(call, replaced(finished, tmp_path / "run", trials))
    assert "0.3000 (trial 1, epoch 1)" in page.text
    assert "1 unfinished" in page.text


def test_a_run_that_has_just_started(call, finished, tmp_path):
    assert "No trial has scored yet." in remade(call, replaced(finished, tmp_path / "run", [])).text


@pytest.mark.parametrize(("count", "trust"), [(RELIABLE - 1, "is not reliable yet"), (RELIABLE, "is reliable")])
def test_importances_have_intervals_and_tell_whether_they_are_reliable(count, trust, call, finished, tmp_path):
    drawn = np.random.default_rng(0).uniform(-3, -1, (count, 2))
    trials = [trial(scores=(0.5 + 0.1 * a,), params={"lr": 10**a, "decay": 10**b}) for a, b in drawn]
    page = remade(call, replaced(finished, tmp_path / "run", trials))
    alt = next(alt for alt in page.images if "80% intervals" in alt)
    share, low, high = map(float, re.match(r"lr ([\d.]+) \(([\d.]+) to ([\d.]+)\), decay", alt).groups())
    assert 0.5 < low <= share <= high <= 1
    assert re.search(f"ranking {trust}", page.text)
    assert f"{RELIABLE}" in page.text


def test_the_agreement_of_rungs_is_reported(call, finished, tmp_path):
    """Of three epochs the only rung is after the first, which here reverses the order of the ends."""
    recipes = [trial(scores=(0.5 - 0.1 * i, 0.5, 0.5 + 0.1 * i), origin=f"portfolio {i}") for i in range(5)]
    text = remade(call, replaced(finished, tmp_path / "known", recipes)).text
    assert "By 5 trials that ran whole" in text
    assert re.search(r"1\s*-1.00\s*-1.00 to -1.00\s*no: below 0.5", text)
    text = remade(call, replaced(finished, tmp_path / "unknown", recipes[:4])).text
    assert "it takes 5 trials that ran whole" in text


def test_500_trials_take_less_than_five_megabytes(call, finished, tmp_path):
    trials = [trial(scores=[0.3 + 0.001 * ((i * e) % 97) for e in range(27)]) for i in range(500)]
    run = replaced(finished, tmp_path / "run", trials)
    assert "500 complete" in remade(call, run).text
    assert (run / "report.html").stat().st_size < 5e6


def test_changed_data_are_reported(call, copy):
    record = json.loads((copy / "run.json").read_text())
    record["data"]["fingerprint"] = "0" * 32
    (copy / "run.json").write_text(json.dumps(record))
    assert "has changed since" in remade(call, copy).text
    (copy / "val_predictions.npz").write_bytes(b"PK damaged")
    assert "val_predictions.npz is missing" in remade(call, copy).text


def test_a_checkpoint_older_than_the_best_score_is_reported(call, finished, copy):
    study = open_study(copy / "study.journal", optuna.samplers.RandomSampler())
    study.add_trial(trial(state=TrialState.RUNNING, scores=(0.99,)))
    text = remade(call, copy).text
    best = json.loads((copy / "best.json").read_text())
    assert re.search(r"0\.9900 \(trial \d+, epoch 1\)", text)
    assert f"95 % interval of trial {best['trial']}, kept in best.json" in text


def test_the_printed_command_parses_to_the_same_options(finished):
    record = read_run(finished)
    asked = {"data": "digits", "image_size": 28, "epochs": 3, "time_budget": 90.0, "set": ("lr=0.1", "a='b c'")}
    options = task_options("attack")(**asked, use_val=True, goal="invert", name="x")
    words = shlex.split(command(RunPaths(finished), replace(record, task="attack", options=options)))
    assert words[:4] == ["python", "-m", "search.run", "attack"]
    given = vars(run_parser().parse_args(words[3:]))
    assert given.pop("task") == "attack"
    assert make_options(task_options("attack"), given) == replace(options, name=None)


def test_names_are_escaped(call, finished, tmp_path):
    run = replaced(finished, tmp_path / "<b>&run", [trial(error="<script>alert(1)</script>")])
    assert "<script>alert(1)</script>" in remade(call, run).text


@pytest.mark.parametrize(("form", "read"), [("yaml", yaml.safe_load), ("json", json.loads)])
def test_the_best_configuration_for_use_elsewhere(form, read, call, finished):
    outcome = call(main, finished, "--best", "--format", form)
    assert outcome.status == 0, outcome
    config = read(outcome.out)
    assert config == json.loads((finished / "best.json").read_text())["config"]
    ClassifyConfig.from_dict(config)


def test_bad_input(refused, finished, tmp_path):
    assert "no run folder missing" in refused(main, "missing")
    assert "has no run.json" in refused(main, tmp_path)
    other = shutil.copytree(finished, tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(record | {"task": "segment"}))
    assert "the runs to compare must be of one task, but these are of classify and segment" in refused(
        main, finished, other
    )
    (other / "best.json").unlink()
    assert "no trial has scored yet" in refused(main, other, "--best")
    (other / "study.journal").unlink()
    assert "has no study.journal" in refused(main, other)


@pytest.mark.parametrize(
    "arguments", [("run", "--format", "json"), ("run", "other", "--best"), ("run", "--out", "page.html"), ()]
)
def test_conflicting_arguments(arguments, call):
    outcome = call(main, *arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
