import json
import re
import shlex
import shutil
from functools import reduce
from html.parser import HTMLParser

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial

from search.options import run_parser
from search.report.__main__ import main
from search.report.page import command
from search.report.trials import RELIABLE
from search.study.journal import open_study
from voctrain.config import ClassifyConfig

pytestmark = pytest.mark.slow
VOID = ("meta", "link", "img", "br")


class Page(HTMLParser):
    """Checks a page as it is read: what it needs, its headings, the texts beside its images."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.images, self.headings, self.anchors, self.ids = "", [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            assert attributes["src"].startswith("data:image/")
            assert attributes["alt"]
            self.images.append(attributes["alt"])
        else:
            assert "src" not in attributes
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"] == "data:,"
            self.anchors.append(attributes["href"].removeprefix("#"))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def read(run):
    page = Page((run / "report.html").read_text())
    assert page.headings == [1, *[2] * 7]
    assert set(page.anchors) - {"data:,"} == set(page.ids)
    return page


def remade(call, run):
    outcome = call(main, run)
    assert outcome.status == 0, outcome
    assert outcome.out == f"drawing the report of {run}\nwrote {run / 'report.html'}\n"
    return read(run)


def replaced(finished, target, trials):
    """A copy of the finished run with other trials, and nothing else of the old ones."""
    shutil.copytree(finished, target)
    for name in ("study.journal", "best.pt", "best.json", "val_predictions.npz"):
        (target / name).unlink()
    study = open_study(target / "study.journal", optuna.samplers.RandomSampler())
    study.add_trials(trials)
    return target


def trial(state=TrialState.COMPLETE, scores=(0.1, 0.2), params={"lr": 0.01}, **attributes):  # noqa: B006
    value = max(scores) if state == TrialState.COMPLETE else None
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=dict.fromkeys(params, optuna.distributions.FloatDistribution(1e-3, 0.1, log=True)),
        intermediate_values=dict(enumerate(scores, 1)),
        user_attrs=attributes,
    )


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
    # SEED.md §2: every curve, examples a class, histogram, an augmented batch, confusion, a grid of predictions.
    titles = ("Score of each trial", "Learning curves", "Images of each class", "An example of each class")
    titles += (
        "A batch of images, and what the best configuration trains on in their place",
        "Best validation images",
        "Worst validation images",
    )
    titles += ("in which a class is predicted (column)", "Where the budget went")
    titles += tuple(f"{name} of the best trial" for name in ("loss", "accuracy", "precision", "recall", "f1", "mAP"))
    assert not [title for title in titles if title not in page.text]
    assert "true: " in " ".join(page.images)
    assert len(page.images) > 15
    assert page.text.count("logs/000") == 4
    assert "python -m search.run classify --data " in page.text
    assert "--trials 4 --epochs 3 --image-size 32 " in page.text
    assert "--set architecture=simple" in page.text
    assert "--name" not in page.text
    assert "unless it is a natural one" not in page.text  # too few trials


def test_a_deleted_checkpoint_is_said(call, copy):
    (copy / "best.pt").unlink()
    assert "best.pt is missing" in remade(call, copy).text


def test_deleted_predictions_and_data_are_said(call, copy):
    (copy / "val_predictions.npz").unlink()
    facts = json.loads((copy / "run.json").read_text())
    facts["options"]["data"] = "/nowhere"
    (copy / "run.json").write_text(json.dumps(facts))
    text = remade(call, copy).text
    assert "val_predictions.npz is missing" in text
    assert "The data cannot be shown: " in text
    assert "95 % interval" not in text


def test_a_run_with_one_trial(call, finished, tmp_path):
    page = remade(call, replaced(finished, tmp_path / "run", [trial()]))
    assert "0.2000 (trial 0, epoch 2)" in page.text
    assert "With 1 scored trials nothing can be said of parameters: it takes 10." in page.text
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


def test_a_run_that_has_just_begun(call, finished, tmp_path):
    assert "No trial has scored yet." in remade(call, replaced(finished, tmp_path / "run", [])).text


@pytest.mark.parametrize(("count", "trust"), [(RELIABLE - 1, "is not reliable yet"), (RELIABLE, "means something")])
def test_importances_have_intervals_and_say_whether_to_trust_them(count, trust, call, finished, tmp_path):
    drawn = np.random.default_rng(0).uniform(-3, -1, (count, 2))
    trials = [trial(scores=(0.5 + 0.1 * a,), params={"lr": 10**a, "decay": 10**b}) for a, b in drawn]
    page = remade(call, replaced(finished, tmp_path / "run", trials))
    alt = next(alt for alt in page.images if "80% intervals" in alt)
    share, low, high = map(float, re.match(r"lr ([\d.]+) \(([\d.]+) to ([\d.]+)\), decay", alt).groups())
    assert 0.5 < low <= share <= high <= 1
    assert re.search(f"ranking {trust}", page.text)
    assert f"{RELIABLE}" in page.text


def test_500_trials_take_less_than_five_megabytes(call, finished, tmp_path):
    trials = [trial(scores=[0.3 + 0.001 * ((i * e) % 97) for e in range(27)]) for i in range(500)]
    run = replaced(finished, tmp_path / "run", trials)
    assert "500 complete" in remade(call, run).text
    assert (run / "report.html").stat().st_size < 5e6


def test_what_lies_there_now_must_be_what_the_run_had(call, copy):
    facts = json.loads((copy / "run.json").read_text())
    facts["data"]["fingerprint"] = "0" * 32
    (copy / "run.json").write_text(json.dumps(facts))
    assert "is no longer what it was" in remade(call, copy).text
    (copy / "val_predictions.npz").write_bytes(b"PK damaged")
    assert "val_predictions.npz is missing" in remade(call, copy).text


def test_a_kept_best_older_than_the_best_score_is_said(call, finished, copy):
    study = open_study(copy / "study.journal", optuna.samplers.RandomSampler())
    study.add_trial(trial(state=TrialState.RUNNING, scores=(0.99,)))
    text = remade(call, copy).text
    best = json.loads((copy / "best.json").read_text())
    assert re.search(r"0\.9900 \(trial \d+, epoch 1\)", text)
    assert f"95 % interval of trial {best['trial']}, kept in best.json" in text


def validate_on_14_images(run, y_prob):
    """Give a run predictions of 14 validation images, each of them the only one of its class."""
    facts = json.loads((run / "run.json").read_text())
    ids = facts["split"]["train"][:14]
    (run / "run.json").write_text(json.dumps(facts | {"split": {"train": facts["split"]["train"][14:], "val": ids}}))
    np.savez(run / "val_predictions.npz", ids=ids, y_true=np.eye(14, 20), y_prob=y_prob)


def test_an_interval_without_its_own_score_says_that_images_are_too_few(call, finished, copy, tmp_path):
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


def test_the_printed_command_is_one(finished, tmp_path):
    facts = json.loads((finished / "run.json").read_text())
    asked = {"data": "digits", "image_size": 28, "task": "attack", "time_budget": 90.0, "set": ["lr=0.1", "a='b c'"]}
    facts["options"] |= asked | {"use_val": True, "goal": "invert", "name": "x"}
    words = shlex.split(command(finished, facts | {"task": "attack"}))
    assert words[:4] == ["python", "-m", "search.run", "attack"]
    given = vars(run_parser().parse_args(words[3:]))
    known = {name: facts["options"][name] for name in ("data", "image_size", "time_budget", "set", "use_val", "goal")}
    assert {name: given[name] for name in known} == known
    assert "name" not in given


def test_names_are_escaped(call, finished, tmp_path):
    run = replaced(finished, tmp_path / "<b>&run", [trial(error="<script>alert(1)</script>")])
    assert "<script>alert(1)</script>" in remade(call, run).text


def test_runs_side_by_side(call, finished, copy, tmp_path):
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
        facts = json.loads((run / "run.json").read_text()) | {"task": task}
        if run.name == "second":
            *path, last = place
            reduce(dict.__getitem__, path, facts)[last] = value
        (run / "run.json").write_text(json.dumps(facts))
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
    facts = json.loads((copy / "run.json").read_text())
    facts["options"]["image_size"] = 64
    (copy / "run.json").write_text(json.dumps(facts))
    outcome = call(main, finished, copy, "--out", tmp_path / "compare.html")
    assert "+0.0000 (+0.0000 to +0.0000)" in outcome.out
    assert "differ in" not in outcome.out


@pytest.mark.parametrize(
    ("form", "read"), [("yaml", yaml.safe_load), ("json", json.loads), ("py", lambda text: eval(text, {}))]
)
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
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(facts | {"task": "segment"}))
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
def test_arguments_that_do_not_go_together(arguments, call):
    outcome = call(main, *arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
