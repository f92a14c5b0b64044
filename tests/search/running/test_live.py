import io
import math
import time
from datetime import datetime
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from search.running.live import Progress
from search.study.time_left import Workload
from search.text import clock, duration


def progress(console, deadline=math.inf, epochs=0):
    """Of a search of four trials, of which the first has run this many epochs in ten seconds each."""
    study = optuna.create_study(direction="maximize")
    if epochs:
        scores = dict.fromkeys(range(1, epochs + 1), 0.5)
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values=scores))
    workload = Workload(trials=4, epochs=9, concurrent=1, protected=range(4), sampler="random")
    spent = {0: 10.0 * epochs} if epochs else {}
    shown = Progress(study, head="h" * 50, workload=workload, spent=spent, metric="val_mAP", deadline=deadline)
    shown.console = console
    return shown


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]


def test_the_clock_shows_the_date_if_it_is_not_today():
    now = datetime(2026, 11, 27, 22, 30)
    assert clock(40 * 60, now) == "23:10"
    assert clock(100 * 60, now) == "Sat 28 Nov 00:10"


@pytest.mark.parametrize(("width", "rows"), [(120, 3), (40, 2 + 2 + 1)])
def test_the_block_is_drawn_again_in_its_place(width, rows):
    """Its lines have 50, 78 and 14 characters: in a terminal made narrower they have wrapped."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress(console) as shown:
        shown.tick(force=True)
        assert [len(line) for line in shown.drawn] == [50, 78, 14]
        console.width = width
        before = len(console.file.getvalue())
        shown.tick(force=True)
        written = console.file.getvalue()[before:]
        assert written.count("\x1b[1A") == rows - 1
        assert max(len(line) for line in shown.drawn) <= width
        assert shown.drawn[-1] == "best val_mAP -"


def test_plain_lines_are_printed_without_a_terminal(capsys):
    console = Console(file=io.StringIO(), width=40)
    with progress(console) as shown:
        shown.tick(force=True)
    text = console.file.getvalue()
    assert text.splitlines()[0] == "h" * 50
    assert "\x1b" not in text
    assert text.count("trials 0/4 done") == 2  # asked for, and at the end


def lines(shown):
    with shown:
        shown.tick(force=True)
    return shown.console.file.getvalue().splitlines()[1:]


def plain():
    return Console(file=io.StringIO(), width=200)


def test_the_time_left_is_limited_by_the_budget():
    """Ten seconds per epoch: 6 epochs of the first trial are left, and 27 of three others: 330 seconds."""
    assert "| about 5:30 left, until " in lines(progress(plain(), epochs=3))[0]
    assert "| about 5:30 left, until " in lines(progress(plain(), time.monotonic() + 331, epochs=3))[0]
    assert "| time budget ends in 2:00, at " in lines(progress(plain(), time.monotonic() + 120, epochs=3))[0]


def test_before_the_first_epoch_the_display_tells_what_it_waits_for(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("search.running.live.time", SimpleNamespace(monotonic=lambda: now))
    with progress(plain()) as shown:
        for moment in (1001, 1004.9):
            now = moment
            shown.tick()
        assert shown.console.file.getvalue().count("starting workers") == 1
        now = 1006.0
        shown.tick()
        assert shown.console.file.getvalue().count("starting workers") == 2
        now = 1007.0
        shown.training_starts()
        assert "first epoch running for 0:00" in shown.console.file.getvalue()
        now = 1013.0
        shown.tick()
        assert "first epoch running for 0:06" in shown.console.file.getvalue()
