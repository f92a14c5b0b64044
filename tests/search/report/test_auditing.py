"""search.audit, from out-of-fold predictions to a run with corrected labels."""

import csv
import shutil

import numpy as np
import pytest

from search.audit import main
from search.run_folder.files import write_arrays
from search.run_folder.paths import RunPaths
from tests.search.report.pages import Page
from tests.search.runs import data_of


@pytest.fixture
def audited(unstarted):
    """A run whose models contradict one label: they are sure that the first image shows a dog, and are wrong there."""
    data = data_of(unstarted)
    dog = data.classes.index("dog")
    y_prob = np.stack([0.1 + 0.8 * data.labels, 0.2 + 0.6 * data.labels]).astype(np.float32)
    y_prob[:, 0, dog] = 1 - y_prob[:, 0, dog]
    arrays = {"ids": np.array(data.ids), "names": np.array(["a", "b"]), "y_true": data.labels, "y_prob": y_prob}
    write_arrays(RunPaths(unstarted).out_of_fold, arrays)
    return unstarted, data.ids[0], int(data.labels[0, dog])


def rows(run):
    with open(run / "audit.csv", newline="") as file:
        return list(csv.DictReader(file))


def tick(run, action):
    """Write an action into the row of the label that is most in doubt."""
    text = (run / "audit.csv").read_text()
    (run / "audit.csv").write_text(text.replace("0.85,1.0,\n", f"0.85,1.0,{action}\n"))


def test_the_label_that_models_contradict_comes_first(audited, call):
    run, image, label = audited
    outcome = call(main, run, "--top", 30)
    assert outcome.status == 0, outcome
    assert "audit.csv: 60 labels in doubt" in outcome.out
    of_kind = [[row for row in rows(run) if row["label"] == str(kind)] for kind in (label, 1 - label)]
    (first, *others), missing = of_kind
    assert first == {
        "rank": "1",
        "image": image,
        "class": "dog",
        "label": str(label),
        "doubt": "0.85",
        "agreement": "1.0",
        "action": "",
    }
    assert [row["rank"] for row in others] == [str(n) for n in range(2, 31)]
    assert {row["doubt"] for row in (*others, *missing)} == {"0.15"}
    page = Page((run / "audit.html").read_text())
    assert any(f"1. {image} dog" in alt for alt in page.images)
    assert f"--corrections {run}/audit.csv" in page.text


def test_a_search_with_the_ticked_table_has_the_other_label(audited, call, begin, dataset, tmp_path):
    run, image, label = audited
    call(main, run)
    tick(run, "flip")
    new = ("--data", dataset, "--image-size", 32, "--epochs", 3, "--set", "architecture=simple", "--out", tmp_path)
    session = begin("classify", *new, "--name", "again", "--corrections", run / "audit.csv")
    again, data = session.paths, session.data
    row, dog = data.ids.index(image), data.classes.index("dog")
    assert data.labels[row, dog] == 1 - label

    shutil.copytree(run / "final", again.folder / "final")
    for _ in range(2):  # the table has no other decisions than those that the run was made with
        outcome = call(main, again.folder)
        assert outcome.status == 0, outcome
    kept = [row for row in rows(again.folder) if row["action"]]
    assert [(row["image"], row["class"], row["action"]) for row in kept] == [(image, "dog", "flip")]


def test_actions_are_not_overwritten(audited, call):
    run, *_ = audited
    call(main, run)
    tick(run, "ignore")
    before = (run / "audit.csv").read_text()
    outcome = call(main, run)
    assert outcome.status == 2
    assert "has actions that would be lost" in outcome.err
    assert (run / "audit.csv").read_text() == before


def test_masks_are_audited_by_their_pixels(begin, call, dataset, tmp_path):
    new = ("--data", dataset, "--image-size", 32, "--weights", "none", "--set", "architecture=unet", "--out", tmp_path)
    run = begin("segment", *new, "--name", "masks").paths.folder
    data = data_of(run)
    confusion = np.zeros((2, len(data.ids), 21, 21), np.int32)
    confusion[:, :, 0, 0] = 1000
    confusion[:, 5, 0, 3] = 200  # a bird that its mask does not have
    ids, names = np.array(data.ids), np.array(["a", "b"])
    arrays = {"ids": ids, "names": names, "confusion": confusion, "dice": np.zeros((2, len(ids)))}
    write_arrays(RunPaths(run).out_of_fold, arrays)
    outcome = call(main, run)
    assert outcome.status == 0, outcome
    (row,) = rows(run)
    assert (row["image"], row["class"], row["label"], row["doubt"]) == (data.ids[5], "bird", "0", "0.1667")
    page = Page((run / "audit.html").read_text())
    assert "flip" not in page.text


def test_a_run_without_out_of_fold_predictions_is_refused(unstarted, call):
    outcome = call(main, unstarted)
    assert outcome.status == 2
    assert outcome.err.startswith("error: an audit needs out-of-fold predictions")
    assert len(outcome.err.splitlines()) == 1


def test_an_attack_has_no_labels(unstarted, call, monkeypatch):
    monkeypatch.setattr("search.tasks.classify.Classify.doubt", None)
    outcome = call(main, unstarted)
    assert outcome.status == 2
    assert "learns from no labels" in outcome.err


def test_a_set_that_has_changed_is_refused(audited, call):
    run, *_ = audited
    record = (run / "run.json").read_text()
    (run / "run.json").write_text(record.replace('"fingerprint": "', '"fingerprint": "0'))
    outcome = call(main, run)
    assert outcome.status == 2
    assert "has changed since" in outcome.err
