import io
from datetime import datetime

import optuna
import pytest
from rich.console import Console
from rich.live import Live

from search.live import Progress, clock, duration
from search.time_left import Plan


def progress(console):
    study = optuna.create_study(direction="maximize")
    plan = Plan(trials=4, epochs=9, concurrent=1, whole=(), sampler="random")
    shown = Progress(study, head="h" * 50, plan=plan, spent={}, metric="val_mAP", deadline=float("inf"))
    shown.console, shown.live = console, Live(console=console, auto_refresh=False)
    return shown


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]


def test_the_time_of_day_has_its_day_where_it_is_not_today():
    now = datetime(2026, 11, 27, 22, 30)
    assert clock(40 * 60, now) == "23:10"
    assert clock(100 * 60, now) == "Sat 28 Nov 00:10"


@pytest.mark.parametrize(("width", "rows"), [(120, 3), (40, 2 + 3 + 1)])
def test_the_block_is_drawn_again_in_its_place(width, rows):
    """Its lines have 50, 102 and 14 characters: in a terminal made narrower they have wrapped."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress(console) as shown:
        shown.tick(force=True)
        assert [len(line) for line in shown.drawn] == [50, 102, 14]
        console.width = width
        before = len(console.file.getvalue())
        shown.tick(force=True)
        written = console.file.getvalue()[before:]
        assert written.count("\x1b[1A") == rows - 1
        assert max(len(line) for line in shown.drawn) <= width
        assert shown.drawn[-1] == "best val_mAP -"


def test_elsewhere_it_is_lines(capsys):
    console = Console(file=io.StringIO(), width=40)
    with progress(console) as shown:
        shown.tick(force=True)
    text = console.file.getvalue()
    assert text.splitlines()[0] == "h" * 50
    assert "\x1b" not in text
    assert text.count("trials 0/4 done") == 2  # asked for, and at the end
