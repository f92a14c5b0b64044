import csv
import json
import math
import shutil
import sys

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from search.run_folder.files import read_torch, write_json, write_torch
from search.run_folder.paths import RunPaths
from search.running.publishing import KEPT_WEIGHTS, Publisher
from search.study.bootstrap import estimated
from search.tasks import find_task
from search.trial.training import STATE, WEIGHTS, pack
from voctrain.data.class_names import VOC_CLASSES
from voctrain.metrics.classification import classify_metrics

TASK = find_task("classify")
TOUCHED: list[str] = []  # what this process has opened, listed, renamed or deleted
ON_DISK = ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
sys.addaudithook(lambda event, args: TOUCHED.append(event) if event in ON_DISK else None)
BEST = dict.fromkeys(("task", "trial", "metric", "score", "epoch", "checkpoint"), 0) | {"config": {}, "metrics": {}}
TRUTH = np.eye(20, dtype=np.uint8)[:6]


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


@pytest.fixture
def folder(tmp_path, study):
    return Publisher(RunPaths(tmp_path), TASK, study)


def predictions(number):
    y_prob = np.random.default_rng(number).random(TRUTH.shape).astype(np.float32)
    return {"ids": np.array([f"i{i}" for i in range(len(TRUTH))]), "y_true": TRUTH, "y_prob": y_prob}


def write(folder, number, epoch, score):
    """What a worker leaves of a trial: the weights of this epoch, and its last state."""
    files = folder.paths.checkpoint(number)
    files.mkdir(parents=True, exist_ok=True)
    saved = {
        "task": "classify",
        "config": {"lr": number},
        "metrics": {"val_mAP": score},
        "model": {},
        "classes": VOC_CLASSES,
    }
    saved |= {"epoch": epoch, "score": score, "predictions": pack(predictions(number))}
    write_torch(files / WEIGHTS, saved)
    write_torch(files / STATE, {})


def add(folder, values, state=TrialState.PRUNED, weights=True, **attributes):
    """A trial with these scores; its number."""
    trial = folder.study.ask()
    trial.suggest_float("lr", 0, 1)
    for epoch, value in enumerate(values, 1):
        trial.report(value, epoch)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    if weights:
        write(folder, trial.number, int(np.argmax(values)) + 1, max(values))
    if state != TrialState.RUNNING:
        folder.study.tell(trial, max(values) if state == TrialState.COMPLETE else None, state)
    return trial.number


def best_of(folder):
    best = json.loads((folder.paths.folder / "best.json").read_text())
    saved = torch.load(folder.paths.folder / "best.pt", weights_only=True)
    held = np.load(folder.paths.folder / "val_predictions.npz", allow_pickle=False)
    for name in ("trial", "epoch", "score", "config", "metrics", "thresholds"):
        assert best[name] == saved[name]
    assert np.array_equal(held["y_prob"], predictions(best["trial"])["y_prob"])
    assert "predictions" not in saved
    return best["trial"], best["epoch"], best["score"]


class TestBar:
    def test_the_score_worth_keeping_is_the_last_kept_one(self, folder):
        for score in (0.5, 0.7):
            add(folder, [score])
        add(folder, [0.9], TrialState.RUNNING)
        folder.update()
        assert folder.score_worth_keeping() < TASK.worst  # even a trial of the worst score is worth keeping
        add(folder, [0.6, 0.1])
        assert KEPT_WEIGHTS == 3
        folder.update()
        assert folder.score_worth_keeping() == 0.5
        add(folder, [0.8])
        folder.update()
        assert folder.score_worth_keeping() == 0.6


class TestUpdate:
    def test_only_the_best_finished_and_running_trials_keep_files(self, folder):
        scores = [0.3, 0.9, 0.5, 0.8, 0.7]
        for score in scores:
            add(folder, [score], TrialState.COMPLETE)
        running = add(folder, [0.1], TrialState.RUNNING)
        folder.update()
        kept = {int(p.name) for p in (folder.paths.folder / "checkpoints").iterdir()}
        assert kept == {1, 3, 4, running}
        assert not (folder.paths.checkpoint(1) / STATE).exists()
        assert (folder.paths.checkpoint(1) / WEIGHTS).exists()
        assert (folder.paths.checkpoint(running) / STATE).exists()
        assert best_of(folder) == (1, 1, 0.9)

    def test_failed_trials_keep_no_files(self, folder):
        add(folder, [0.9], TrialState.FAIL, error="boom")
        add(folder, [0.9], TrialState.COMPLETE, error="diverged: nan")
        folder.update()
        assert not list((folder.paths.folder / "checkpoints").iterdir())
        assert not (folder.paths.folder / "best.json").exists()


class TestTrialEnded:
    def test_the_same_files_stay_as_after_a_look_at_all_trials(self, folder, study):
        folder.update()
        rng = np.random.default_rng(0)
        running = add(folder, [0.5], TrialState.RUNNING)
        for _ in range(20):
            state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[rng.integers(3)]
            attributes = {"error": "boom"} if state == TrialState.FAIL else {}
            number = add(folder, rng.random(2).round(1).tolist(), state, **attributes)  # some scores are equal
            folder.trial_ended(study.trials[number])
            there = {file.relative_to(folder.paths.folder) for file in folder.paths.folder.rglob("*.pt")}
            best = (folder.paths.best).read_bytes() if folder.paths.best.exists() else b""
            ended = [t for t in study.trials[:-1] if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
            scores = sorted(max(t.intermediate_values.values()) for t in ended)
            assert len(list((folder.paths.folder / "checkpoints").iterdir())) <= KEPT_WEIGHTS + 1
            assert (folder.paths.checkpoint(running) / STATE).exists()
            assert not scores or best_of(folder)[2] >= scores[-1]
            resumed = Publisher(folder.paths, TASK, study)
            resumed.update()
            assert there == {file.relative_to(folder.paths.folder) for file in folder.paths.folder.rglob("*.pt")}
            assert not best or folder.paths.best.read_bytes() == best
            assert resumed.score_worth_keeping() == folder.score_worth_keeping()

    def test_what_is_done_on_the_disk_does_not_grow_with_the_study(self, folder, study):
        def touched(score):
            number = add(folder, [score])
            TOUCHED.clear()
            folder.trial_ended(study.trials[number])
            return len(TOUCHED)

        add(folder, [0.9], TrialState.RUNNING, weights=False)
        for score in (0.8, 0.7, 0.6):
            add(folder, [score])
        folder.update()
        few = touched(0.1), touched(0.65)
        for _ in range(60):
            add(folder, [0.2], weights=False)
        assert min(few) > 0
        assert (touched(0.1), touched(0.66)) == few

    def test_weights_of_a_running_trial_are_read_once(self, folder, study, monkeypatch):
        read = []
        monkeypatch.setattr(
            "search.running.publishing.read_torch", lambda file: read.append(file.parent.name) or read_torch(file)
        )
        folder.update()
        number = add(folder, [0.6])
        running = add(folder, [0.4, 0.9], TrialState.RUNNING, weights=False)
        write(folder, running, 1, 0.4)
        for _ in range(3):
            folder.trial_ended(study.trials[number])
        assert read.count(f"{running:04d}") == 1
        write(folder, running, 2, 0.9)
        folder.trial_ended(study.trials[number])
        assert read.count(f"{running:04d}") == 2
        assert best_of(folder) == (running, 2, 0.9)


class TestPublish:
    def test_nothing_is_published_before_a_score(self, folder):
        folder.update()
        add(folder, [0.5], TrialState.RUNNING, weights=False)
        folder.update()
        assert not (folder.paths.folder / "best.json").exists()

    def test_the_best_epoch_is_published_and_pruned_trials_count(self, folder):
        add(folder, [0.2, 0.6, 0.3], TrialState.COMPLETE)
        folder.update()
        assert best_of(folder) == (0, 2, 0.6)
        add(folder, [0.7, 0.4])
        folder.update()
        assert best_of(folder) == (1, 1, 0.7)
        add(folder, [0.7])  # of equal ones the earlier
        folder.update()
        assert best_of(folder) == (1, 1, 0.7)

    def test_the_best_is_kept_if_its_weights_are_gone(self, folder, study):
        add(folder, [0.2, 0.6], TrialState.COMPLETE)
        folder.update()
        shutil.rmtree(folder.paths.folder / "checkpoints")
        resumed = Publisher(folder.paths, TASK, study)
        add(resumed, [0.5], TrialState.COMPLETE)
        resumed.update()
        assert best_of(folder) == (0, 2, 0.6)
        add(resumed, [0.7], TrialState.COMPLETE)
        resumed.update()
        assert best_of(folder) == (2, 1, 0.7)

    @pytest.mark.parametrize("name", ["best.json", "best.pt", "val_predictions.npz"])
    def test_missing_files_are_written_again(self, folder, study, name):
        add(folder, [0.6], TrialState.COMPLETE)
        folder.update()
        (folder.paths.folder / name).unlink()
        Publisher(folder.paths, TASK, study).update()
        assert best_of(folder) == (0, 1, 0.6)

    def test_written_weights_of_a_running_trial_count(self, folder):
        add(folder, [0.6], TrialState.COMPLETE)
        running = add(folder, [0.1, 0.5, 0.9], TrialState.RUNNING, weights=False)
        folder.update()
        assert best_of(folder) == (0, 1, 0.6)
        write(folder, running, 2, 0.5)
        folder.update()
        assert best_of(folder) == (0, 1, 0.6)
        write(folder, running, 3, 0.9)
        folder.update()
        assert best_of(folder) == (running, 3, 0.9)

    def test_a_new_process_overwrites_damaged_files(self, folder):
        add(folder, [0.6], TrialState.COMPLETE)
        folder.update()
        (folder.paths.folder / "best.json").write_text("{}")
        Publisher(folder.paths, TASK, folder.study).update()
        assert best_of(folder) == (0, 1, 0.6)

    def test_damaged_weights_are_skipped(self, folder):
        add(folder, [0.6], TrialState.COMPLETE)
        number = add(folder, [0.9], TrialState.RUNNING)
        (folder.paths.checkpoint(number) / WEIGHTS).write_bytes(b"PK torn")
        folder.update()
        assert best_of(folder) == (0, 1, 0.6)


def test_trials_csv(folder):
    add(
        folder,
        [0.2, 0.6, 0.3],
        TrialState.COMPLETE,
        worker=["host", 7],
        seconds=1.5,
        memory_gb=0.75,
        origin="portfolio 1",
    )
    add(folder, [0.5], TrialState.FAIL, error='KeyError: "a,b"\n')
    folder.study.enqueue_trial({"lr": 0.5})
    folder.update()
    with open(folder.paths.folder / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2  # one that waits is not a trial yet
    lr = str(folder.study.trials[0].params["lr"])
    assert rows[0] == {
        "number": "0",
        "state": "complete",
        "score": "0.6",
        "best_epoch": "2",
        "epochs": "3",
        "seconds": "1.5",
        "memory_gb": "0.75",
        "lr": lr,
        "origin": "portfolio 1",
        "error": "",
        "lost": "0",
        "node": "host",
        "pid": "7",
        "log": "logs/0000.log",
    }
    assert (rows[1]["state"], rows[1]["score"], rows[1]["error"]) == ("failed", "", 'KeyError: "a,b"\n')
    assert rows[1]["origin"] == "sampler"


def test_the_noise_of_a_score_is_half_of_its_interval(folder):
    rng = np.random.default_rng(0)
    y_true = (rng.random((80, 3)) < 0.4).astype(np.uint8)
    y_prob = np.clip(0.4 * y_true + 0.6 * rng.random((80, 3)), 0, 1).astype(np.float32)
    assert folder.noise() == math.inf  # nothing has scored
    np.savez(folder.paths.folder / "val_predictions.npz", ids=np.arange(80), y_true=y_true, y_prob=y_prob)
    write_json(folder.paths.best, BEST)
    best = estimated(lambda rows: classify_metrics(y_true[rows], y_prob[rows])["val_mAP"], 80, resamples=200)
    assert best.is_valid
    assert folder.noise() == pytest.approx((best.high - best.low) / 2)


def test_too_few_images_leave_the_noise_unknown(folder):
    np.savez(folder.paths.folder / "val_predictions.npz", **predictions(0) | {"ids": np.arange(1)})
    write_json(folder.paths.best, BEST)
    assert folder.noise() == math.inf
