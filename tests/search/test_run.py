import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState
from sklearn.metrics import average_precision_score, multilabel_confusion_matrix

from search.run import main
from search.study.trials import Attr
from tests.search.runs import data_of, read, rows_of, trials_of
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.data.class_names import VOC_CLASSES
from voctrain.metrics.classification import decide

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


class TestRunFolder:
    def test_the_run_folder_is_complete(self, finished):
        names = {"run.json", "study.journal", "trials.csv", "best.json", "best.pt", "val_predictions.npz"}
        assert names | {"report.html", "logs", "history", "ray"} <= {p.name for p in finished.iterdir()}
        assert not list(finished.glob(".*"))  # temporary files
        assert list(finished.glob("ray/*/events.out.tfevents*"))
        assert "Did the search work" in (finished / "report.html").read_text()

    def test_run_json_records_the_run(self, finished, dataset):
        record, data = read(finished, "run"), load(dataset, image_size=32)
        assert record["task"] == "classify"
        assert record["metric"] == "val_mAP"
        assert record["options"]["trials"] == 4
        assert record["data"]["fingerprint"] == data.fingerprint
        assert record["classes"] == list(data.classes)
        assert sorted(record["split"]["train"] + record["split"]["val"]) == sorted(data.ids)
        assert torch.__version__.startswith(record["versions"]["torch"])
        assert {"git", "baseline"} <= record.keys()
        assert record["seconds"] > 0

    def test_best_is_the_best_epoch_of_the_best_trial(self, finished):
        best, trials = read(finished, "best"), trials_of(finished)
        number, epoch, score = max(
            ((t.number, e, v) for t in trials for e, v in t.intermediate_values.items()), key=lambda x: x[2]
        )
        assert (best["trial"], best["epoch"], best["score"]) == (number, epoch, score)
        assert best["metrics"]["val_mAP"] == score
        assert best["config"] == trials[number].user_attrs[Attr.CONFIG]
        assert ClassifyConfig.from_dict(best["config"]).architecture == "simple"
        held = np.load(finished / "val_predictions.npz", allow_pickle=False)
        answers = decide(held["y_prob"], np.array(best["thresholds"])).astype(int)
        confusion = multilabel_confusion_matrix(held["y_true"], answers)
        assert best["multilabel_confusion"] == confusion.tolist()
        assert best["report"]["cat"]["support"] == held["y_true"].sum(0)[VOC_CLASSES.index("cat")]

    def test_the_checkpoint_predicts_what_was_scored(self, finished):
        best, data = read(finished, "best"), data_of(finished)
        saved = torch.load(finished / best["checkpoint"], weights_only=True)
        assert saved["config"] == best["config"]
        assert saved["thresholds"] == best["thresholds"]
        assert (saved["task"], saved["trial"], saved["epoch"]) == ("classify", best["trial"], best["epoch"])
        model, config = classify.restore(saved)
        held = np.load(finished / "val_predictions.npz", allow_pickle=False)
        assert held["ids"].tolist() == [data.ids[i] for i in data.val]
        assert np.array_equal(held["y_true"], data.labels[data.val])
        np.testing.assert_allclose(held["y_prob"], classify.predict(model, data.images[data.val], config), atol=1e-6)

    def test_the_score_follows_from_the_predictions(self, finished):
        held = np.load(finished / "val_predictions.npz", allow_pickle=False)
        present = held["y_true"].any(0)
        score = average_precision_score(held["y_true"][:, present], held["y_prob"][:, present], average="macro")
        assert read(finished, "best")["score"] == pytest.approx(score, abs=1e-9)

    def test_trials_csv_has_one_row_per_trial(self, finished):
        rows, trials = rows_of(finished), trials_of(finished)
        table = pd.read_csv(finished / "trials.csv")  # without options
        assert table["number"].tolist() == [0, 1, 2, 3]
        assert table["score"].tolist() == pytest.approx([max(t.intermediate_values.values()) for t in trials])
        assert [int(row["number"]) for row in rows] == [t.number for t in trials] == [0, 1, 2, 3]
        for row, trial in zip(rows, trials, strict=True):
            assert row["state"] == trial.state.name.lower()
            assert row["state"] in ("complete", "pruned")
            assert float(row["score"]) == max(trial.intermediate_values.values())
            assert int(row["epochs"]) == len(trial.intermediate_values)
            assert float(row["weight_decay"]) == trial.params["weight_decay"]
            assert row["origin"] == f"portfolio {trial.number + 1}"
            assert row["error"] == ""
            assert row["node"]
            assert f"process {row['pid']}:" in (finished / row["log"]).read_text()
            assert float(row["seconds"]) > 0


def test_a_search_prints_its_stages_before_the_first_epoch(run, space, tmp_path):
    outcome = run("--space", space, "--trials", 1, "--epochs", 1, "--out", tmp_path, "--name", "run")
    assert outcome.status == 0, outcome
    lines = outcome.out.splitlines()
    begins = [
        "running on this machine; ",
        "reading 48 images",
        "20 classes from the header of train_set.csv: ",
        "checking the search space",
        "simple has no published weights: it is trained from scratch",
        "starting Ray",
        f"{tmp_path / 'run'} | 1 at a time",
    ]
    begins += [
        "trials 0/1 done (0 complete, 0 pruned, 0 failed), ",
        "trials 0/1 done (0 complete, 0 pruned, 0 failed), ",
    ]
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=False)), lines
    assert "starting workers" in lines[7]
    assert "first epoch running for 0:0" in outcome.out
    assert f"report {tmp_path / 'run' / 'report.html'}" in lines


class TestContinued:
    def test_the_time_budget_stops_the_run_and_the_printed_command_resumes_it(self, copied, run):
        before, record = trials_of(copied), read(copied, "run")
        stopped = run("--resume", copied, "--trials", 6, "--time-budget", "1s")  # the first part took longer
        assert stopped.status == 0, stopped
        command = re.search(r"stopped with 2 trials to go; continue with: python -m (.*)", stopped.out)[1]
        module, task, *arguments = shlex.split(command)
        assert (module, task) == ("search.run", "classify")
        continued = run(*arguments)
        assert continued.status == 0, continued
        assert "stopped" not in continued.out
        after = trials_of(copied)
        assert after[:4] == before
        assert len(after) == len(rows_of(copied)) == 6
        assert all(t.state.is_finished() for t in after)
        assert read(copied, "run")["options"]["trials"] == 6
        assert read(copied, "run")["seconds"] > record["seconds"]

        table = (copied / "trials.csv").read_bytes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("search.running.driver.execute", lambda *a, **k: pytest.fail("nothing is left to run"))
            nothing = run("--resume", copied, "--time-budget", "2h")
        assert nothing.status == 0, nothing
        assert "next: python -m search.final" in nothing.out
        assert trials_of(copied) == after
        assert (copied / "trials.csv").read_bytes() == table

    def test_warm_start_tries_the_best_of_another_run(self, finished, run, space, tmp_path):
        outcome = run("--warm-start", finished, "--trials", 1, "--space", space, "--out", tmp_path, "--name", "warm")
        assert outcome.status == 0, outcome
        [row] = rows_of(tmp_path / "warm")  # of the other run's trials, this space holds one
        assert row["origin"] == "finished, trial 3"
        assert (float(row["lr"]), row["optimizer"]) == (1e-3, "adamw")


FOUR = """
def suggest(trial, problem):
    config = {
        "architecture": "simple",
        "optimizer": trial.suggest_categorical("optimizer", ("adamw", "adam")),
        "lr": trial.suggest_categorical("lr", (0.001, 0.01)),
    }
    return config | ({"ema_memory": 0.5} if trial.suggest_categorical("ema", (True, False)) else {})
"""


class TestChoices:
    @pytest.mark.parametrize("sampler", ["random", "qmc"])
    def test_samplers_with_a_custom_space(self, sampler, run, space, tmp_path, cluster):
        arguments = ("--space", space, "--sampler", sampler, "--out", tmp_path, "--name", "own", "--address", cluster)
        outcome = run(*arguments, "--quiet")
        assert outcome.status == 0, outcome
        lines = outcome.out.splitlines()
        assert [line.split()[0] for line in lines] == ["report", "best", "random", "next:", "python"]
        trials = trials_of(tmp_path / "own")
        assert [set(t.params) for t in trials] == [{"optimizer", "lr"}] * 2
        assert trials[0].params != trials[1].params
        assert {row["origin"] for row in rows_of(tmp_path / "own")} == {"sampler"}
        if sampler == "random":
            space.write_text("raise AssertionError('the run has its own copy')")
            assert run("--resume", tmp_path / "own", "--trials", 3).status == 0
            assert set(trials_of(tmp_path / "own")[2].params) == {"optimizer", "lr"}

    def test_a_space_of_four_configurations_ends_after_four(self, run, tmp_path):
        file = tmp_path / "four.py"
        file.write_text(FOUR)
        asked = ("--space", file, "--trials", 9, "--epochs", 1, "--out", tmp_path, "--name", "four", "--quiet")
        outcome = run(*asked, "--set", "ema_memory=0.9")
        assert outcome.status == 0, outcome
        assert "the space has only 4 configurations: all of them have been tried" in outcome.out
        assert "next: python -m search.final" in outcome.out
        rows = rows_of(tmp_path / "four")
        assert sorted((row["optimizer"], row["lr"]) for row in rows) == [
            *(("adam", "0.001"), ("adam", "0.01"), ("adamw", "0.001"), ("adamw", "0.01"))
        ]
        assert "ema" not in rows[0]  # it would only set the average that --set has fixed

    def test_settings_early_stopping_and_the_sampler_that_does_not_prune(self, run, tmp_path):
        settings = ("architecture=simple", "optimizer=sgd", "momentum=0.85", "lr=0", "patience=1", "precision=float32")
        searched = ("--sampler", "gp", "--trials", 2, "--epochs", 9)
        outcome = run(*searched, "--set", *settings, "--out", tmp_path, "--name", "set")
        assert outcome.status == 0, outcome
        assert "--sampler gp learns from complete trials only: nothing is pruned" in outcome.out
        for trial in trials_of(tmp_path / "set"):
            assert (trial.params["optimizer"], trial.params["momentum"]) == ("sgd", 0.85)  # pinned
            config = trial.user_attrs[Attr.CONFIG]
            assert (config["lr"], config["precision"]) == (0.0, "float32")  # outside of the space
            assert "precision" not in trial.params
            assert trial.state == TrialState.COMPLETE
            assert len(trial.intermediate_values) == 2  # at a rate of 0 the second epoch is no better

    @pytest.mark.parametrize("form", ["run", "file"])
    def test_weights_of_a_run_or_file(self, form, finished, run, tmp_path):
        given, pins = finished, ()
        if form == "file":
            given, pins = tmp_path / "weights.pt", ("architecture=simple",)
            torch.save(torch.load(finished / "best.pt", weights_only=True)["model"], given)
        arguments = ("--weights", given, "--epochs", 1, "--trials", 1, "--out", tmp_path, "--name", "tuned")
        outcome = run(*arguments, "--set", "lr=0", "precision=float32", *pins)
        assert outcome.status == 0, outcome
        best = read(tmp_path / "tuned", "best")
        assert best["config"]["architecture"] == "simple"
        source = finished / "best.pt" if form == "run" else given
        assert best["config"]["weights"] == str(source)
        assert best["score"] == pytest.approx(read(finished, "best")["score"], abs=0.05)

    def test_a_dry_run_starts_nothing(self, call, dataset, tmp_path, monkeypatch):
        monkeypatch.setattr("ray.init", lambda *a, **k: pytest.fail("a dry run needs no cluster"))
        size = ("--image-size", 32, "--epochs", 3, "--trials", 20, "--set", "architecture=simple")
        outcome = call(main, "classify", "--data", dataset, *size, "--dry-run", "--out", tmp_path / "runs")
        assert (outcome.status, outcome.err) == (0, "")
        assert "20 trials of up to 3 epochs" in outcome.out
        assert re.search(r"one epoch .* took [\d.]+ s: about \d+:\d\d in all", outcome.out)
        assert len(re.findall(r"^\d: .*lr=.*architecture=simple", outcome.out, re.M)) == 5
        assert not (tmp_path / "runs").exists()
