"""Runs in an object store, as a user sees them."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from ray._private import worker

from search.run_folder.history import read_history
from search.run_folder.location import locate
from search.run_folder.store import Store
from tests.search.conftest import contents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stored(run, bucket):
    """The URI of a run of two trials, which two workers have trained, and the bytes that the driver has uploaded."""
    outcome = run("--concurrent", 2, "--set", "architecture=simple", "--out", f"{bucket.uri}/runs", "--name", "one")
    assert outcome.status == 0, outcome
    assert "working folder" in outcome.out
    assert "--resume" not in outcome.err
    return f"{bucket.uri}/runs/one"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, dataset):
    """A machine of its own, which knows nothing of earlier runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_store_has_the_whole_run(stored):
    paths = locate(stored)
    there = paths.mirror.store.files()
    top = {"run.json", "study.journal", "trials.csv", "best.json", "best.pt", "val_predictions.npz", "report.html"}
    assert top <= set(there)
    assert {f"{kind}/000{n}.{end}" for kind, end in (("logs", "log"), ("history", "jsonl")) for n in (0, 1)} <= set(
        there
    )
    for name in top | {"history/0000.jsonl"}:
        assert paths.mirror.store.read(name) == (paths.folder / name).read_bytes(), name
    assert "checkpoints/0000/weights.pt" in there
    assert not [name for name in there if "state" in name or name.endswith(("run.lock", ".pkl"))]


def test_credentials_are_written_nowhere(stored):
    paths = locate(stored)
    texts = [content for content in contents(paths.folder).values() if content is not None]
    texts += [paths.mirror.store.read(name) or b"" for name in paths.mirror.store.files()]
    ray_logs = Path(worker._global_node.get_logs_dir_path())
    texts += [content for content in contents(ray_logs).values() if content is not None]
    assert len(texts) > 30
    assert not [text for text in texts if b"do-not-tell" in text]


def test_a_run_is_extended_on_another_machine(stored, elsewhere, run):
    before = locate(stored).mirror.store.read("trials.csv")
    outcome = run("--resume", stored, "--trials", 3, "--concurrent", 2)
    assert outcome.status == 0, outcome
    paths = locate(stored)
    assert elsewhere in paths.folder.parents
    trials = pd.read_csv(paths.trials)
    assert trials["number"].tolist() == [0, 1, 2]
    assert paths.trials.read_bytes().splitlines()[1:3] == before.splitlines()[1:3]
    assert set(read_history(paths.history(2))) <= {1, 2, 3}
    assert paths.mirror.store.read("trials.csv") == paths.trials.read_bytes()


def test_other_commands_take_the_uri(stored, elsewhere, call, dataset, tmp_path):
    from search.export import main as export
    from search.predict import main as predict
    from search.report.__main__ import main as report
    from search.submit import main as submit

    outcome = call(submit, "--data", dataset, "--classify", stored, "--out", tmp_path / "submission.csv")
    assert outcome.status == 0, outcome
    images = tmp_path / "images"
    images.mkdir()

    Image.new("RGB", (40, 30)).save(images / "a.png")
    outcome = call(predict, stored, images, "--out", tmp_path / "predictions")
    assert outcome.status == 0, outcome
    outcome = call(export, stored, "--to", "safetensors", "--out", tmp_path / "model.safetensors")
    assert outcome.status == 0, outcome
    store = locate(stored).mirror.store
    store.delete("report.html")
    assert call(report, stored, "--now").status == 0
    assert store.find("report.html") is not None
    best = call(report, stored, "--best", "--format", "json")
    assert json.loads(best.out)["architecture"] == "simple"


def test_the_final_model_goes_to_the_store(stored, elsewhere, on_cluster, call, dataset):
    from search.final import main

    outcome = on_cluster(main, stored, "--top", 1, "--seeds", 1)
    assert outcome.status == 0, outcome
    store = locate(stored).mirror.store
    assert {"final/final.json", "final/final.pt", "final/card.md"} <= set(store.files())
    assert stored in store.read("final/card.md").decode()
    shutil.rmtree(elsewhere)  # another machine still
    again = on_cluster(main, stored, "--top", 1, "--seeds", 1)
    assert again.status == 0, again
    assert "val_mAP best" not in again.out, "nothing is trained twice"


def test_uploads_are_bounded(run, bucket, monkeypatch):
    """Of small files by the time that a search takes, not by its epochs."""
    names, upload = [], Store.upload
    monkeypatch.setattr(Store, "upload", lambda self, file, name: (names.append(name), upload(self, file, name)))
    monkeypatch.setattr("search.run_folder.mirror.PUSH_SECONDS", 1000.0)
    monkeypatch.setattr("search.run_folder.uploads.PUSH_SECONDS", 0.01)
    outcome = run("--epochs", 20, "--trials", 1, "--set", "architecture=simple", "--out", bucket.uri, "--name", "many")
    assert outcome.status == 0, outcome
    counts = Counter(names)
    assert counts["study.journal"] <= 2, "after its start, and at its end"


@pytest.fixture
def here(bucket):
    return bucket.uri


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("s3://no-such-bucket/runs", r"cannot write s3://no-such-bucket/runs/\.check-\w+ \(AWS Error NO_SUCH_BUCKET"),
        ("nowhere://bucket/runs", r"cannot open nowhere://bucket/runs \(Protocol not known"),
        ("s3://key:secret@bucket/runs", "a URI must not contain a password"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(here, refused, dataset, out, message):
    from search.run import main

    line = refused(main, "classify", "--data", dataset, "--out", out)
    assert re.match(message, line), line


def test_a_run_that_is_not_there_is_one_line(here, refused):
    from search.run import main

    assert refused(main, "classify", "--resume", f"{here}/none").endswith("give the URI that a search printed")
