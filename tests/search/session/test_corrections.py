"""--corrections: labels that a user has looked at."""

import json

import pytest

from search.run import main
from voctrain.data import load


@pytest.fixture
def corrections(dataset, tmp_path):
    """A table with an action for the first labeled image."""

    def write(action: str, image: str | None = None, label: str = "dog"):
        name = load(dataset, image_size=32).ids[0] if image is None else image
        file = tmp_path / "audit.csv"
        file.write_text(f"rank,image,class,label,action\n1,{name},{label},0,{action}\n")
        return file

    return write


def test_a_run_keeps_its_corrections(begin, prepared, call, dataset, corrections, tmp_path):
    file = corrections("flip")
    new = ("--data", dataset, "--image-size", 32, "--epochs", 3, "--trials", 1, "--set", "architecture=simple")
    session = begin("classify", *new, "--corrections", file, "--out", tmp_path, "--name", "run")
    plain = load(dataset, image_size=32)
    assert (session.data.labels != plain.labels).sum() == 1
    recorded = json.loads(session.paths.record.read_text())
    assert recorded["options"]["corrections"] == str(file)
    assert recorded["data"]["fingerprint"] == session.data.fingerprint != plain.fingerprint

    again = prepared("classify", "--resume", session.paths.folder)
    assert (again.data.labels == session.data.labels).all()
    again.close()
    corrections("ignore")
    outcome = call(main, "classify", "--resume", session.paths.folder)
    assert outcome.status == 2
    assert "are not those of this run" in outcome.err


@pytest.mark.parametrize(
    ("action", "image", "label", "said"),
    [
        ("flip", "nobody", "dog", "'nobody'"),
        ("flip", None, "unicorn", "'unicorn'"),
        ("remove", None, "dog", "an action must be ignore, flip or empty"),
    ],
)
def test_a_wrong_correction_is_refused(refused, dataset, corrections, action, image, label, said):
    file = corrections(action, image, label)
    assert said in refused(main, "classify", "--data", dataset, "--image-size", 32, "--corrections", file)


def test_masks_have_no_labels_to_flip(refused, prepared, dataset, corrections):
    file = corrections("flip")
    line = refused(main, "segment", "--data", dataset, "--image-size", 32, "--corrections", file)
    assert line.startswith("--corrections can only ignore images of segment")
    corrections("ignore")
    new = ("--data", dataset, "--image-size", 32, "--trials", 1, "--weights", "none", "--set", "architecture=unet")
    session = prepared("segment", *new, "--corrections", file)
    assert len(session.data.ids) == 39
