"""`search.report RUN --best --format py`: the script repeats the best trial."""

import os
import subprocess
import sys

import pytest
import torch

from search.report.__main__ import main
from search.run_folder.files import write_json
from search.run_folder.records import BestRecord
from search.tasks import find_task
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load

pytestmark = pytest.mark.slow
SIZE = ("--image-size", 32, "--epochs", 3, "--trials", 1)
EVERYWHERE = {"precision": "float32", "epochs": 3, "image_size": 32}
CASES = {
    "classify, average": {
        "architecture": "simple",
        "ema_memory": 0.9,
        "clip_norm": 0.1,
        "aug_repeats": 2,
        "mixup": 0.4,
        "micro_batch": 6,
    },
    "classify, losses": {"architecture": "googlenet", "batch_size": 16, "mask_loss": 1.0, "schedule": "plateau"},
    "classify, places": {
        **{"architecture": "tf_efficientnet_lite0", "weights": "imagenet", "head_init": "probe", "batch_size": 16},
        **{"mask_loss": 1.0, "mask_pooling": True},
    },
    "segment": {"architecture": "unet", "width": 4, "depth": 1, "copy_paste": 0.5, "lr": 1e-2, "precision": "bfloat16"},
    "segment, probe": {"architecture": "linear/test_resnet", "head_init": "probe", "batch_size": 16},
    "attack": {"architecture": "universal", "l2_penalty": 0.1, "ssim_penalty": 1.0, "lr": 0.05, "precision": "auto"},
    "attack, private": {"goal": "privacy", "architecture": "universal", "scale": 0.5, "patience": 1},
}


@pytest.fixture(scope="module")
def victim(dataset, tmp_path_factory):
    config, data = ClassifyConfig(architecture="simple", **EVERYWHERE), load(dataset, image_size=32)
    *_, last = classify.train(config, data)
    file = tmp_path_factory.mktemp("victim") / "best.pt"
    torch.save(classify.checkpoint(config, data, last.weights, last.metrics) | {"thresholds": [0.2] * 20}, file)
    return file


@pytest.mark.parametrize("case", CASES)
def test_the_script_repeats_the_best_trial(case, begin, call, dataset, victim, tmp_path):
    task, given = find_task(case.split(",")[0]), EVERYWHERE | CASES[case]
    more = ("--victim", victim, "--goal", given.get("goal", "fake")) if "attack" in case else ()
    split = ("--resize", "crop", "--val", "2/4", "--mask-value", "255=255") if "segment" in case else ()
    session = begin(task.name, "--data", dataset, *SIZE, *more, *split, "--out", tmp_path, "--name", "run")
    if more:
        given["victim"] = str(victim)
    config = task.config.from_dict(given)
    best, weights = None, {}
    for epoch in task.module.train(config, session.data):
        if best is None or epoch.metrics[task.metric] > best.score:
            score = epoch.metrics[task.metric]
            best = BestRecord(
                task.name, 0, task.metric, score, epoch.number, config.to_dict(), "best.pt", epoch.metrics
            )
            weights = {name: tensor.clone() for name, tensor in epoch.weights.items()}
    write_json(tmp_path / "run" / "best.json", best.to_json())

    outcome = call(main, tmp_path / "run", "--best", "--format", "py")
    assert (outcome.status, outcome.err) == (0, ""), outcome
    script = tmp_path / "train.py"
    script.write_text(outcome.out)
    assert len(outcome.out.splitlines()) < 100
    for check in (("check", "--select", "E4,E7,F,I"), ("format", "--diff")):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "100", script]
        subprocess.run(command, check=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    scores = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert max(scores) == pytest.approx(best.score, abs=6e-5)
    assert scores.index(max(scores)) + 1 == best.epoch
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved["config"] == best.config
    assert saved["metrics"][task.metric] == pytest.approx(best.score, abs=1e-6)
    for name, tensor in saved["model"].items():
        assert torch.allclose(tensor, weights[name], atol=1e-6), name
