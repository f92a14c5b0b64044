from types import SimpleNamespace

from search.running import upkeep as module
from search.running.upkeep import UPKEEP_SECONDS, Upkeep


def test_changes_are_written_a_few_seconds_later_and_for_a_twentieth_of_the_time(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    written, cost = [], 0.0

    def write():
        written.append(clock.now)
        clock.now += cost

    upkeep = Upkeep(write)

    def ticks(until):
        while clock.now < until:
            upkeep.tick()
            clock.now += 0.25
        return len(written)

    assert ticks(110) == 0  # nothing has changed
    upkeep.stale = True
    assert ticks(111) == 1  # at once, since nothing was written lately
    upkeep.stale = True
    assert ticks(110 + UPKEEP_SECONDS) == 1
    assert ticks(110.5 + UPKEEP_SECONDS) == 2  # although nothing has changed since
    assert ticks(150) == 2
    cost = 2.0
    for _ in range(int(800 / 0.25)):
        upkeep.stale = True
        upkeep.tick()
        clock.now += 0.25
    assert 15 <= len(written) - 2 <= 21
