import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from search import final, run, submit
from voctrain.models import build_classifier

SIZE = ("--image-size", 32, "--epochs", 3, "--trials", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "task"),
        (("detect",), "choose from"),
        (("classify", "--trials", "0"), "--trials: must be an integer of at least 1, but got '0'"),
        (("classify", "--trials", "many"), "--trials"),
        (("classify", "--epochs", "0"), "--epochs"),
        (("classify", "--image-size", "27"), "--image-size: must be an integer of at least 28"),
        (("classify", "--resize", "stretch"), "--resize"),
        (("classify", "--sampler", "guess"), "--sampler"),
        (("classify", "--seed", "-1"), "--seed"),
        (("classify", "--time-budget", "soon"), "--time-budget: must be a duration such as 90s"),
        (("classify", "--time-budget", "0s"), "--time-budget"),
        (("classify", "--concurrent", "0"), "--concurrent"),
        (("classify", "--cpus-per-trial", "0"), "--cpus-per-trial"),
        (("classify", "--gpus-per-trial", "-1"), "--gpus-per-trial"),
        (("classify", "--gpus-per-trial", "1.5"), "--gpus-per-trial"),
        (("classify", "--set"), "--set"),
        (("classify", "--tirals", "3"), "--tirals"),
    ],
)
def test_arguments_that_do_not_parse(arguments, message, refused):
    assert message in refused(run.main, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "lr"), "--set takes key=value, but got 'lr'"),
        (("--set", "architecture=resnet19"), "resnet19"),
        (("--set", "learning_rate=1"), "unknown configuration key 'learning_rate'"),
        (("--set", "lr=-1"), "lr must be at least 0, but got -1"),
        (("--set", "optimizer=lion"), "optimizer must be one of adamw"),
        (("--weights", "none", "--set", "optimizer=adam", "momentum=0.9"), "--set momentum has no effect beside"),
        (("--set", "optimizer=adam", "momentum=0.3"), "momentum requires optimizer=sgd"),
        (("--set", "epochs=5"), "--epochs"),
        (("--gpus-per-trial", "2"), "must be between 0 and 1, because a trial uses one GPU, but got '2'"),
        (("--cpus-per-trial", "4096"), "--cpus-per-trial must be at most the"),
        (("--use-val",), "use_val needs the devkit layout"),
        (("--val", "7/5"), "--val K/N is fold K of N, counted from 1"),
        (("--val", "ids.txt"), "there is no file"),
        (("--val", "val.txt"), "--val val.txt needs the set's own validation part"),
        (("--group-by", "["), "--group-by must be a regular expression"),
        (("--group-by", "patient"), "'patient' matches none"),
        (("--space", "missing.py"), "missing.py is not a file"),
        (("--resume", "missing"), "no run folder"),
        (("--warm-start", "missing"), "no run folder"),
        (("--weights", "missing.pt"), "there is no file"),
        (("--weights", "."), "has no best.pt"),
        (("--out", "/proc"), "give --out a folder that you may write to"),
        (("--address", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1"),
        (("--address", "nowhere.invalid:6379"), "no Ray cluster at nowhere.invalid:6379"),
    ],
)
def test_arguments_of_run(arguments, message, refused, dataset):
    assert message in refused(run.main, "classify", "--data", dataset, *SIZE, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no suggest(trial, problem)"),
        ("suggest = 1", "has no suggest(trial, problem)"),
        ("def suggest(trial", "cannot be imported: SyntaxError"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("def suggest(trial, problem):\n    raise KeyError('x')", "suggest of the space fails: KeyError"),
        ("def suggest(trial, problem):\n    return None", "must return a dict"),
        ("def suggest(trial, problem):\n    return {'lr': -1.0}", "lr must be at least 0"),
        ("def suggest(trial, problem):\n    return {'rate': 1.0}", "unknown configuration key 'rate'"),
        ("def suggest(trial, problem):\n    return {'architecture': 'resnet19'}", "resnet19"),
    ],
)
def test_spaces(text, message, refused, dataset, tmp_path):
    (tmp_path / "space.py").write_text(text)
    assert message in refused(run.main, "classify", "--data", dataset, *SIZE, "--space", tmp_path / "space.py")


def test_a_space_that_is_not_a_python_file(refused, dataset, tmp_path):
    (tmp_path / "space.txt").write_text("")
    message = refused(run.main, "classify", "--data", dataset, *SIZE, "--space", tmp_path / "space.txt")
    assert "does not end in .py" in message


class TestWeights:
    def refuse(self, refused, dataset, file):
        pins = ("--set", "architecture=simple")
        return refused(run.main, "classify", "--data", dataset, *SIZE, *pins, "--weights", file)

    def test_a_file_that_is_no_checkpoint(self, refused, dataset, tmp_path):
        (tmp_path / "w.pt").write_bytes(b"not weights at all")
        assert "w.pt" in self.refuse(refused, dataset, tmp_path / "w.pt")

    def test_pickled_objects_are_not_loaded(self, refused, dataset, tmp_path):
        torch.save({"model": len}, tmp_path / "w.pt")
        assert "contains pickled objects" in self.refuse(refused, dataset, tmp_path / "w.pt")

    def test_weights_of_another_model(self, refused, dataset, tmp_path):
        torch.save(build_classifier("complex", image_size=32).state_dict(), tmp_path / "w.pt")
        assert "does not fit simple (2 tensors of another shape" in self.refuse(refused, dataset, tmp_path / "w.pt")


class TestResume:
    def test_a_folder_that_is_not_a_run(self, refused, tmp_path):
        assert "has no run.json" in refused(run.main, "classify", "--resume", tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"task": "classify"', "\0"])
    def test_a_broken_run_json(self, text, refused, unstarted):
        (unstarted / "run.json").write_text(text)
        message = refused(run.main, "classify", "--resume", unstarted)
        assert "start a new run" in message or f"python -m search.check {unstarted} --repair" in message

    def test_another_task(self, refused, unstarted):
        record = json.loads((unstarted / "run.json").read_text())
        (unstarted / "run.json").write_text(json.dumps(record | {"task": "segment"}))
        assert "is a run of segment" in refused(run.main, "classify", "--resume", unstarted)
        assert "is segment" in refused(run.main, "classify", "--data", "x", "--warm-start", unstarted)

    def test_other_data(self, refused, unstarted, dataset, tmp_path):
        root = shutil.copytree(dataset, tmp_path / "other")
        image = np.load(root / "train/img/train_3.npy")
        image[0, 0, 0] ^= 1
        np.save(root / "train/img/train_3.npy", image)
        assert "are not those of" in refused(run.main, "classify", "--resume", unstarted, "--data", root)

    def test_the_same_data_elsewhere_are_accepted(self, call, unstarted, dataset, tmp_path):
        root = shutil.copytree(dataset, tmp_path / "moved")
        assert call(run.main, "classify", "--resume", unstarted, "--data", root, "--dry-run").status == 0

    @pytest.mark.parametrize(
        "changed",
        [
            ("--epochs", 4),
            ("--image-size", 33),
            ("--resize", "pad"),
            ("--sampler", "random"),
            ("--seed", 1),
            ("--name", "other"),
            ("--set", "lr=0.1"),
            ("--weights", "IMAGENET1K_V1"),
            ("--space", "space.py"),
            ("--warm-start", "run"),
            ("--use-val",),
            ("--val", "1/5"),
            ("--group-by", "a"),
        ],
    )
    def test_arguments_that_may_not_change(self, changed, refused, unstarted):
        message = refused(run.main, "classify", "--resume", unstarted, *changed)
        assert message.startswith(changed[0])
        assert "cannot become" in message

    def test_repeated_arguments_are_accepted(self, call, unstarted):
        outcome = call(run.main, "classify", "--resume", unstarted, *SIZE, "--set", "architecture=simple", "--dry-run")
        assert outcome.status == 0, outcome

    def test_an_existing_name(self, refused, unstarted, dataset):
        place = ("--out", unstarted.parent, "--name", unstarted.name)
        message = refused(run.main, "classify", "--data", dataset, *SIZE, *place)
        assert f"continue it with --resume {unstarted}" in message

    def test_a_study_that_is_gone(self, refused, unstarted):
        (unstarted / "study.journal").unlink()
        for main, arguments in ((run.main, ("classify", "--resume", unstarted)), (final.main, (unstarted,))):
            assert "has no study.journal: start the run again" in refused(main, *arguments)

    def test_a_second_driver(self, refused, unstarted):
        code = "import fcntl, os, sys; h = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(h, fcntl.LOCK_EX)"
        code += "; print('locked', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, unstarted / "run.lock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as first:
            assert first.stdout.readline() == "locked\n"
            assert "is used by another process" in refused(run.main, "classify", "--resume", unstarted)
            first.stdin.close()

    def test_out_below_a_file(self, refused, dataset, tmp_path):
        (tmp_path / "file").write_text("")
        message = refused(run.main, "classify", "--data", dataset, *SIZE, "--out", tmp_path / "file")
        assert "give --out a folder" in message

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_out_not_writable(self, refused, dataset, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o500)
        message = refused(run.main, "classify", "--data", dataset, *SIZE, "--out", tmp_path / "closed")
        assert "give --out a folder that you may write to" in message


class TestFinal:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "give a run folder, or --config"),
            (("run", "--config", "best.json"), "give a run folder, or --config"),
            (("--config", "best.json"), "--config needs --data"),
            (("run", "--top", "0"), "--top"),
            (("run", "--seeds", "x"), "--seeds"),
            (("missing",), "no run folder"),
            (("--config", "missing.json", "--data", "x"), "missing.json"),
        ],
    )
    def test_arguments(self, arguments, message, refused):
        assert message in refused(final.main, *arguments)

    def test_a_run_without_a_score(self, refused, unstarted):
        assert "has no trial that scored" in refused(final.main, unstarted)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"task": "paint", "config": {}}', '{"task": "classify"}', "\0"])
    def test_not_a_best_json(self, text, refused, tmp_path, dataset):
        (tmp_path / "best.json").write_text(text)
        message = refused(final.main, "--config", tmp_path / "best.json", "--data", dataset)
        assert "--config takes a best.json" in message

    @pytest.mark.parametrize(
        ("config", "arguments", "message"),
        [
            ({"lr": -1}, (), "lr must be at least 0"),
            ({}, ("--gpus-per-trial", 2), "must be between 0 and 1"),
            ({"architecture": "resnet19"}, (), "resnet19"),
            ({"weights": "/missing.pt"}, (), "/missing.pt"),
            ({}, ("--address", "127.0.0.1:1"), "no Ray cluster"),
            ({}, ("--unlabeled", "."), "--unlabeled is for --self-training"),
            ({}, ("--self-training", "--unlabeled", "missing"), "no images in missing"),
        ],
    )
    def test_a_configuration(self, config, arguments, message, refused, tmp_path, dataset):
        best = {"task": "classify", "config": {"architecture": "simple", "image_size": 32, **config}}
        (tmp_path / "best.json").write_text(json.dumps(best))
        given = ("--config", tmp_path / "best.json", "--data", dataset, "--out", tmp_path / "out", *arguments)
        assert message in refused(final.main, *given)


WHOLE = {"config": {}, "classes": [], "image_size": 32, "model": {}}  # what every checkpoint has


class TestSubmit:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "required"),
            (("--data", "x"), "--classify"),
            (("--data", "x", "--classify", "missing"), "has neither final/final.pt nor best.pt"),
            (("--data", "x", "--classify", "."), "has neither final/final.pt nor best.pt"),
            (
                ("--data", "x", "--classify", ".", "--out", "missing/s.csv"),
                "--out must be a file in an existing folder",
            ),
            (("--data", "x", "--classify", ".", "--out", "."), "--out must be a file"),
        ],
    )
    def test_arguments(self, arguments, message, refused):
        assert message in refused(submit.main, *arguments)

    @pytest.mark.parametrize(
        ("saved", "message"),
        [
            ({"weight": torch.zeros(2)}, "is not a voc-search checkpoint"),
            ({"task": "classify", "model": len}, "is not a voc-search checkpoint"),
            (WHOLE | {"task": "segment"}, "--classify takes a model of task classify, but "),
            (WHOLE | {"task": "attack"}, "is of task attack: give a classify run"),
        ],
    )
    def test_checkpoints(self, saved, message, refused, dataset, tmp_path):
        torch.save(saved, tmp_path / "best.pt")
        for given in (tmp_path, tmp_path / "best.pt"):
            assert message in refused(submit.main, "--data", dataset, "--classify", given)
