"""Reading and making reports in tests."""

import re
import shutil
from html.parser import HTMLParser

import optuna
from optuna.trial import TrialState, create_trial

from search.report.__main__ import main
from search.run_folder.records import read_run
from search.study.journal import open_study

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
    study = open_study(target / "study.journal", optuna.samplers.RandomSampler(), read_run(target).id)
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
