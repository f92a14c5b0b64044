import dataclasses
import errno
import json
import re
import shutil
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from search import run
from search.report.source import read_source
from search.reporter import Reporter
from search.run_folder.records import read_run
from search.session.origin import git_revision
from search.session.session import claim, open_session
from voctrain.data import load
from voctrain.models import build_classifier

SIZE = ("--image-size", 32, "--epochs", 3, "--trials", 2)


def test_two_searches_started_in_the_same_second(prepared, dataset, tmp_path, monkeypatch):
    given = ("classify", "--data", dataset, *SIZE, "--out", tmp_path / "my runs", "--set", "architecture=simple")
    monkeypatch.setattr("search.session.folder.datetime", SimpleNamespace(now=lambda: datetime(2026, 11, 25, 12, 0)))
    session = prepared(*given)
    folders = [claim(session).paths.folder.name for _ in range(3)]
    assert folders == ["classify-20261125-120000", "classify-20261125-120000-2", "classify-20261125-120000-3"]
    options = dataclasses.replace(session.options, name="as given")
    session.paths.record.touch()
    named = dataclasses.replace(session, record=dataclasses.replace(session.record, options=options))
    with pytest.raises(ValueError, match="exists: continue it with --resume '"):  # quoted: it has a space
        claim(named)


def test_a_moved_data_set_is_recorded(unstarted, dataset, tmp_path, prepared):
    moved = shutil.copytree(dataset, tmp_path / "moved")
    assert prepared("classify", "--resume", unstarted, "--data", moved).record.options.data == str(moved)


@pytest.mark.parametrize(
    ("data", "asked", "weights", "epochs"),
    [
        ("own", (), "imagenet", 9),
        ("own", ("--weights", "none"), "none", 27),
        ("own", ("--epochs", 4), "imagenet", 4),
        ("sample", (), "none", 15),
    ],
)
def test_defaults_depend_on_where_a_training_starts(data, asked, weights, epochs, prepared, dataset):
    place = ("--data", dataset if data == "own" else data, "--image-size", 32)
    options = prepared("classify", *place, "--set", "architecture=tf_efficientnet_lite0", *asked).options
    assert (options.weights, options.epochs) == (weights, epochs)


class TestSplit:
    def begin(self, begin, dataset, tmp_path, *asked):
        place = ("--data", dataset, *SIZE, "--out", tmp_path, "--name", "run", "--set", "architecture=simple")
        session = begin("classify", *place, *asked)
        return session, shutil.copytree(session.paths.folder, tmp_path / "copy")  # this process holds the first's lock

    def test_a_list_is_needed_only_at_the_start(self, begin, prepared, dataset, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ids = load(dataset, image_size=32).ids
        (tmp_path / "list.txt").write_text("\n".join(ids[:7]))
        session, copy = self.begin(begin, dataset, tmp_path, "--val", "list.txt")
        assert session.record.split.val == ids[:7]
        assert session.options.val == str(tmp_path / "list.txt")
        (tmp_path / "list.txt").unlink()
        data = prepared("classify", "--resume", copy).data
        assert [data.ids[i] for i in data.val] == list(ids[:7])
        assert read_source(copy).data.val.tolist() == data.val.tolist()

    def test_folds_and_groups_are_recorded(self, begin, prepared, dataset, tmp_path):
        session, copy = self.begin(begin, dataset, tmp_path, "--val", "2/3", "--group-by", "(.)$")
        assert (session.options.val, session.options.group_by) == ("2/3", "(.)$")
        split = session.record.split
        assert {name[-1] for name in split.train}.isdisjoint({name[-1] for name in split.val})
        assert 7 <= len(split.val) <= 20
        assert prepared("classify", "--resume", copy).data.val.tolist() == session.data.val.tolist()


def test_the_source_of_a_warm_start_is_needed_only_at_the_start(unstarted, prepared, refused, dataset):
    record = json.loads((unstarted / "run.json").read_text())
    record["options"]["warm_start"] = "/gone"
    (unstarted / "run.json").write_text(json.dumps(record))
    assert prepared("classify", "--resume", unstarted).paths.folder == unstarted
    message = refused(run.main, "classify", "--data", dataset, *SIZE, "--warm-start", "/gone")
    assert message.startswith("no run folder /gone")


def test_a_space_gets_the_device_that_the_run_started_with(unstarted, prepared, monkeypatch):
    """Its choices may depend on it, and those of a study never change."""
    monkeypatch.setattr("search.session.session.available", lambda *asked: [{"CPU": 2, "GPU": 1}])
    session = prepared("classify", "--resume", unstarted)
    assert session.resources.gpus == 1
    assert session.problem.info["device"] == "cpu"


def test_moved_weights_must_be_unchanged(begin, prepared, refused, dataset, tmp_path):
    weights = tmp_path / "weights.pt"
    torch.save(build_classifier("simple", image_size=32).state_dict(), weights)
    given = ("--data", dataset, *SIZE, "--out", tmp_path, "--name", "run", "--set", "architecture=simple")
    begun = begin("classify", *given, "--weights", weights).paths.folder
    folder = shutil.copytree(begun, tmp_path / "copy")  # this process holds the lock of the other
    moved, other = weights.rename(tmp_path / "moved.pt"), tmp_path / "other.pt"
    torch.save(build_classifier("simple", image_size=32).state_dict(), other)
    assert "weights.pt" in refused(run.main, "classify", "--resume", folder)
    message = refused(run.main, "classify", "--resume", folder, "--weights", other)
    assert f"--weights {other} is not the file that this run began with" in message
    assert prepared("classify", "--resume", folder, "--weights", moved).problem.fixed["weights"] == str(moved)


def test_what_a_weights_file_gave_is_told_once(dataset, tmp_path, capsys):
    state = build_classifier("simple", num_classes=7, image_size=32).net.state_dict()
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, tmp_path / "w.pt")
    given = {"data": str(dataset), "image_size": 32, "epochs": 3, "trials": 2, "out": str(tmp_path)}
    given |= {"set": ["architecture=simple"], "weights": str(tmp_path / "w.pt")}
    open_session("classify", given, Reporter())
    told = [line for line in capsys.readouterr().out.splitlines() if "w.pt" in line]
    assert told == [
        "w.pt: 4 of 6 tensors of simple loaded, found under 'state_dict.module.'; the head is initialized anew"
        " (7 classes in the file, 20 here)"
    ]


class TestRevision:
    def git(self, folder, *command):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.com")
        subprocess.run(["git", "-C", folder, *identity, *command], check=True, capture_output=True)

    def test_the_revision_is_that_of_the_checkout(self, tmp_path):
        self.git(tmp_path, "init")
        (tmp_path / "file").write_text("1")
        self.git(tmp_path, "add", "file")
        self.git(tmp_path, "commit", "-m", "Begin")
        revision = git_revision(tmp_path)
        assert re.fullmatch(r"[0-9a-f]{12}", revision)
        (tmp_path / "file").write_text("2")
        assert git_revision(tmp_path) == revision + "+"

    def test_a_repository_around_an_installation_is_ignored(self, tmp_path):
        self.git(tmp_path, "init")
        self.git(tmp_path, "commit", "--allow-empty", "-m", "Begin")
        (tmp_path / "site-packages").mkdir()
        assert git_revision(tmp_path / "site-packages") is None

    def test_a_revision_may_be_missing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert git_revision(tmp_path) is None


def test_run_json_records_the_version_of_the_package(unstarted):
    record = json.loads((unstarted / "run.json").read_text())
    assert record["versions"]["voc-search"] == version("voc-search")


def test_a_folder_that_a_killed_driver_left_before_the_run_began_is_taken(begin, unstarted, dataset):
    (unstarted / "run.json").unlink()
    assert (unstarted / "study.journal").exists()
    place = ("--out", unstarted.parent, "--name", unstarted.name, "--set", "architecture=simple")
    begin("classify", "--data", dataset, "--image-size", 32, "--epochs", 5, "--trials", 2, *place)
    assert read_run(unstarted).epochs == 5


def test_a_folder_with_anything_else_is_not(call, unstarted, dataset):
    (unstarted / "run.json").unlink()
    (unstarted / "mine.txt").write_text("mine")
    place = ("--out", unstarted.parent, "--name", unstarted.name, "--set", "architecture=simple")
    outcome = call(run.main, "classify", "--data", dataset, "--image-size", 32, *place)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {unstarted} exists: continue it with --resume")


def test_a_disk_that_is_full_before_a_run_begins_is_no_mistake_of_the_user(call, dataset, tmp_path, monkeypatch):
    make = Path.mkdir

    def refuse(self, *arguments, **more):
        if self == tmp_path / "runs" / "run":
            raise OSError(errno.ENOSPC, "No space left on device")
        make(self, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("search.api.connect", lambda address, cpus: "no dashboard")
    asked = ("--data", dataset, "--image-size", 32, "--set", "architecture=simple", "--out", tmp_path / "runs")
    outcome = call(run.main, "classify", *asked, "--name", "run")
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: cannot write {tmp_path}/runs/run: No space left on device (the disk at /")
    assert outcome.err.count("\n") == 1
