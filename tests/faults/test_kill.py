"""kill -9 of the driver, again and again: whatever the moment, --resume ends as if nothing had happened.

Run with `pytest -m faults tests/faults -s`; FAULT_SEED repeats the moments of an earlier run.
"""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.faults.drivers import Driver, check_best, trials_of
from voctrain.data.sample import make_sample

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]

SEED = int(os.environ.get("FAULT_SEED", time.time_ns() % 2**32))
TRIALS, KILLS = 12, 12
NEAR = 0.05  # seconds from a write
# Every fourth kill is bound to a write of the journal, every fourth to one of a checkpoint.
AIMS = ("any", "journal", "any", "checkpoint") * (KILLS // 4)


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    """Start a new run of that name, or continue it."""
    root = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        make_sample(root / "set", num_labeled=40, num_unlabeled=1, max_size=40)
        search = ("--data", root / "set", "--image-size", 32, "--epochs", 9, "--trials", TRIALS, "--seed", 5)

        def command(name: str) -> Driver:
            folder = root / name
            if folder.exists():
                return Driver(folder, "--resume", folder)
            return Driver(folder, *search, "--set", "architecture=simple", "--out", root, "--name", name)

        yield command


@pytest.fixture(scope="module")
def undisturbed(begin) -> tuple[Path, float]:
    """The folder of a run that nobody killed, and the seconds from its run.json to its last trial's end."""
    driver = begin("undisturbed")
    started = driver.wait_for_run()
    assert driver.end() == 0, driver.said()
    return driver.folder, driver.written("journal") - started


def kill(driver: Driver, moment: float, delay: float, aim: str) -> float | None:
    """Kill the driver `moment` seconds from its run.json, or `delay` after the next write from then.

    Returns the seconds since the last write; None where the run was over before.
    """
    time.sleep(max(0.0, driver.wait_for_run() + moment - time.time()))
    last = driver.written(aim)
    while aim != "any" and driver.running() and driver.written(aim) == last:
        time.sleep(0.001)
    last = driver.written(aim)
    time.sleep(delay if aim != "any" else 0)
    alive = driver.running()
    driver.process.send_signal(signal.SIGKILL)
    return time.time() - last if alive else None


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_continues_as_if_nothing_had_happened(number, begin, undisturbed):
    reference, seconds = undisturbed
    rng = np.random.default_rng([SEED, number])
    for attempt in range(5):
        moment, delay, aim = rng.uniform(0, seconds), rng.uniform(0, NEAR / 2), AIMS[number]
        driver = begin(f"killed-{number}-{attempt}")
        distance = kill(driver, moment, delay, aim)
        driver.end()
        print(f"FAULT_SEED={SEED} kill {number} at {moment:.3f} of {seconds:.1f} s: {distance} s after a write ({aim})")
        if distance is not None and (aim == "any" or distance < NEAR):
            break
    else:
        pytest.fail("the run was over, or the write too far, each time")

    folder = driver.folder
    before = [t for t in trials_of(folder) if t.state.is_finished()]
    driver = begin(folder.name)
    assert driver.end() == 0, driver.said()

    after, expected = trials_of(folder), trials_of(reference)
    print(f"  {len(before)} of {TRIALS} trials had finished")
    assert [t.number for t in after] == list(range(TRIALS))
    by_number = {t.number: t for t in after}
    for trial in before:
        assert by_number[trial.number] == trial  # not repeated, not lost: its times are the same, too
    for trial, other in zip(after, expected, strict=True):
        assert (trial.params, trial.state, trial.values) == (other.params, other.state, other.values)
        assert trial.intermediate_values == other.intermediate_values
    check_best(folder, after)
    assert json.loads((folder / "best.json").read_text()) == json.loads((reference / "best.json").read_text())
