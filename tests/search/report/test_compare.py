import json
import re
import shutil
from functools import reduce

import numpy as np
import pytest

from search.report.__main__ import main
from tests.search.report.pages import Page, remade

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def validate_on_14_images(run, y_prob):
    """Give a run predictions of 14 validation images, each of them the only one of its class."""
    record = json.loads((run / "run.json").read_text())
    ids = record["split"]["train"][:14]
    (run / "run.json").write_text(json.dumps(record | {"split": {"train": record["split"]["train"][14:], "val": ids}}))
    np.savez(run / "val_predictions.npz", ids=ids, y_true=np.eye(14, 20), y_prob=y_prob)


def test_an_interval_that_excludes_its_score_reports_too_few_images(call, finished, copy, tmp_path):
    """Where each image is ranked last in its class, an mAP of 1 / 14.

    An image that is drawn twice raises its class's AP, and one that is not drawn takes its class out of the mean:
    resamples have a higher mAP, so the basic interval lies below 1 / 14. That of the lead over a perfect ranking, whose
    mAP is always 1, lies below the lead.
    """
    perfect = shutil.copytree(finished, tmp_path / "perfect")
    validate_on_14_images(perfect, np.eye(14, 20))
    validate_on_14_images(copy, 1 - np.eye(14, 20))
    assert "95 % intervaltoo few images to tell, by bootstrap" in remade(call, copy).text
    out = tmp_path / "compare.html"
    outcome = call(main, perfect, copy, "--out", out)
    assert outcome.status == 0, outcome
    rows = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert "1.0000 to 1.0000" in rows["perfect"]
    assert re.search(r"  too few images to tell +-0\.9286 \(too few images to tell\)  ", rows["copy"])
    assert Page(out.read_text()).text.count("too few images to tell") == 2


def test_runs_are_compared(call, finished, copy, tmp_path):
    out = tmp_path / "compare.html"
    outcome = call(main, finished, copy, "--out", out)
    assert outcome.status == 0, outcome
    title, *table = outcome.out.splitlines()
    assert title == "comparing 2 runs"
    best = json.loads((copy / "best.json").read_text())
    assert [line.split()[0] for line in table[:3]] == ["run", "finished", "copy"]
    assert f"{best['score']:.4g}" in table[2]
    assert "+0.0000 (+0.0000 to +0.0000)" in table[2]  # the same predictions
    page = Page(out.read_text())
    assert "Their best configurations do not differ." in page.text
    assert len(page.images) == 2
    best["config"]["patience"] = 77
    (copy / "best.json").write_text(json.dumps(best))
    assert call(main, finished, copy, "--out", out).status == 0
    text = Page(out.read_text()).text
    assert "Where their best configurations differ" in text
    assert "patience" in text


@pytest.mark.parametrize(
    ("task", "place", "value", "said"),
    [
        ("classify", ("data", "fingerprint"), "0" * 32, "data set"),
        ("classify", ("split", "val"), ["other"], "validation images"),
        ("classify", ("metric",), "val_AP", "metric (val_AP and val_mAP)"),
        ("segment", ("options", "image_size"), 64, "image size (64 and 32)"),
        ("segment", ("options", "resize"), "pad", "resize (pad and squash)"),
        ("attack", ("options", "image_size"), 64, "image size (64 and 32)"),
        ("attack", ("digests", "victim"), "0" * 32, "victim"),
        ("attack", ("options", "goal"), "invert", "goal (invert and fake)"),
        ("attack", ("options", "min_ssim"), 0.9, "min-ssim (0.9 and 0.85)"),
        ("attack", ("options", "max_ssim"), 0.4, "max-ssim (0.4 and None)"),
    ],
)
def test_scores_that_are_not_comparable_have_no_lead(task, place, value, said, call, finished, tmp_path):
    runs = [shutil.copytree(finished, tmp_path / name) for name in ("first", "second", "third")]
    for run in runs:
        record = json.loads((run / "run.json").read_text()) | {"task": task}
        if task == "attack":
            record["options"].pop("weights")
            record["options"] |= {"goal": "fake", "min_ssim": 0.85, "max_ssim": None}
        if run.name == "second":
            *path, last = place
            reduce(dict.__getitem__, path, record)[last] = value
        (run / "run.json").write_text(json.dumps(record))
        if task != "classify":  # its predictions would be others
            (run / "val_predictions.npz").unlink()
    out = tmp_path / "compare.html"
    outcome = call(main, *runs, "--out", out)
    assert outcome.status == 0, outcome
    remark = f"second and first differ in {said}: their scores are not comparable, so no lead is given."
    assert [line for line in outcome.out.splitlines() if "differ" in line] == [remark]
    assert remark in Page(out.read_text()).text
    rows = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert "+0.0000" not in rows["second"]
    assert ("+0.0000" in rows["third"]) == (task == "classify")


def test_classifiers_of_different_image_sizes_are_comparable(call, finished, copy, tmp_path):
    record = json.loads((copy / "run.json").read_text())
    record["options"]["image_size"] = 64
    (copy / "run.json").write_text(json.dumps(record))
    outcome = call(main, finished, copy, "--out", tmp_path / "compare.html")
    assert "+0.0000 (+0.0000 to +0.0000)" in outcome.out
    assert "differ in" not in outcome.out
