import errno
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.cluster.searcher import StudySearcher
from search.cluster.worker import Job
from search.run_folder.paths import RunPaths
from search.study.sampler import SeededSampler
from search.study.trials import Attr, started_trials

EPOCHS = 9


def make(study=None, trials=3, configure=None, **more):
    study = study or optuna.create_study(direction="maximize", sampler=SeededSampler("random", 0, {}))

    def plain(trial):
        return Job(trial.number, {"x": trial.suggest_float("x", 0, 1)}, {}, 0.0)

    seen = []
    searcher = StudySearcher(
        study,
        paths=RunPaths(Path("run")),
        configure=configure or plain,
        metric="score",
        epochs=EPOCHS,
        trials=trials,
        worst=0.0,
        on_change=lambda trial: seen.append((trial.number, trial.state.name)),
        **more,
    )
    searcher.seen = seen
    return searcher


def report(epoch, score, **more):
    return {"epoch": epoch, "score": score, "seconds": 1.5 * epoch, "hostname": "node", "pid": 7, **more}


def test_no_more_trials_than_asked_for_are_started():
    searcher = make()
    assert [searcher.suggest(name)["training"] for name in "abc"] == [0, 1, 2]
    searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
    assert searcher.suggest("d") == Searcher.FINISHED


def test_states_scores_and_costs():
    searcher = make(trials=5)
    study = searcher.study
    for name in "abcde":
        searcher.suggest(name)
    searcher.on_trial_result("a", report(1, 0.7))
    searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))  # all epochs
    searcher.on_trial_complete("b", report(3, 0.2, done=True))  # stopped by the scheduler
    searcher.on_trial_result("c", report(1, 0.3))
    searcher.on_trial_complete("c", {"done": True, "outcome": "ended"})  # early stopping
    searcher.on_trial_complete("d", {"done": True, "outcome": "diverged", "error": "diverged: nan"})
    searcher.on_trial_complete("e", {"done": True, "outcome": "failed", "error": "KeyError: 'x'"})
    states = [t.state for t in study.trials]
    assert states == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.FAIL,
    ]
    assert [t.value for t in study.trials] == [0.7, 0.2, 0.3, 0.0, None]
    assert study.trials[3].user_attrs[Attr.ERROR] == "diverged: nan"
    assert study.trials[0].user_attrs[Attr.WORKER] == ["node", 7]
    assert study.trials[0].user_attrs[Attr.SECONDS] == 13.5
    assert searcher.seen[-1] == (4, "FAIL")


def test_an_epoch_reported_twice_counts_once_and_a_lost_one_is_recorded():
    searcher = make()
    searcher.suggest("a")
    for epoch, score in [(1, 0.1), (2, 0.2), (1, 0.1), (2, 0.2), (3, 0.3)]:  # a worker that came back
        searcher.on_trial_result("a", report(epoch, score))
    assert searcher.study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}


def test_unfinished_trials_come_first_and_stopping_leaves_them_unfinished():
    first = make()
    first.suggest("a")
    first.suggest("b")
    first.on_trial_result("b", report(1, 0.1))
    first.on_trial_complete("a", None)  # the whole search was stopped
    second = make(first.study)
    assert [second.suggest(name)["training"] for name in "ab"] == [0, 1]
    second.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
    assert second.suggest("c")["training"] == 2


def test_a_trial_whose_share_of_a_gpu_is_too_small_runs_again_after_all_others_and_fails_only_then(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    searcher = make(trials=3, shares_gpus=True)
    no_memory = {"done": True, "outcome": "out of memory", "error": "out of memory: 2 GB"}
    assert [searcher.suggest(name)["training"] for name in "ab"] == [0, 1]
    searcher.on_trial_result("a", report(1, 0.3))
    searcher.on_trial_complete("a", no_memory)
    assert Attr.ERROR not in searcher.study.trials[0].user_attrs
    assert searcher.suggest("c")["training"] == 2
    assert searcher.suggest("d")["training"] == 0
    assert searcher.study.trials[0].user_attrs[Attr.ALONE]
    searcher.on_trial_complete("b", report(EPOCHS, 0.5, done=True))
    assert searcher.suggest("e") is None  # trial 2 may have to run again
    searcher.on_trial_complete("c", no_memory)
    assert searcher.suggest("f")["training"] == 2
    searcher.on_trial_complete("d", no_memory)
    searcher.on_trial_complete("f", report(EPOCHS, 0.5, done=True))
    assert searcher.suggest("g") == Searcher.FINISHED
    assert searcher.study.trials[0].user_attrs[Attr.ERROR] == "out of memory: 2 GB"
    assert [t.value for t in searcher.study.trials] == [0.0, 0.5, 0.5]


def test_a_trial_with_a_gpu_to_itself_fails_without_memory():
    searcher = make(trials=1)
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"done": True, "outcome": "out of memory", "error": "out of memory: 2 GB"})
    assert searcher.study.trials[0].user_attrs[Attr.ERROR] == "out of memory: 2 GB"


def test_three_equal_failures_in_a_row_end_the_search():
    searcher = make(trials=9)
    for name, error in zip("abcd", ["x", "y", "y", "y"], strict=True):
        assert searcher.broken is None
        searcher.suggest(name)
        searcher.on_trial_complete(name, {"done": True, "outcome": "failed", "error": error})
    assert searcher.broken == "y"
    assert searcher.suggest("e") == Searcher.FINISHED


def test_failures_end_the_search_even_if_an_earlier_trial_completes():
    searcher = make(trials=9)
    for name in "abcd":
        searcher.suggest(name)
    for name, place in zip("bcd", (12, 900, 4), strict=True):
        searcher.on_trial_complete(name, {"done": True, "outcome": "failed", "error": f"no space at {place}"})
    searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
    assert searcher.broken == "no space at 4"


@pytest.mark.parametrize("kind", [ValueError, KeyError, ZeroDivisionError])
def test_an_impossible_configuration_or_a_mistake_in_the_space_is_a_failed_trial(kind):
    def configure(trial):
        if trial.number == 0:
            raise kind("no such\nthing")
        return Job(trial.number, {}, {}, 0.0)

    searcher = make(configure=configure)
    assert searcher.suggest("a")["training"] == 1
    assert searcher.study.trials[0].state == TrialState.FAIL
    assert searcher.study.trials[0].user_attrs[Attr.ERROR].startswith(f"{kind.__name__}: ")
    assert "\n" not in searcher.study.trials[0].user_attrs[Attr.ERROR]


def test_a_trial_that_lost_its_workers_is_unfinished_and_each_loss_is_counted(tmp_path):
    searcher = make()
    searcher.paths = RunPaths(tmp_path)
    (tmp_path / "logs").mkdir()
    searcher.suggest("a")
    searcher.on_loss("a")
    searcher.on_trial_complete("a", error=True)
    [trial] = searcher.study.trials
    assert (trial.state, trial.user_attrs[Attr.LOST]) == (TrialState.RUNNING, 2)
    assert Attr.ERROR not in trial.user_attrs
    first, last = (tmp_path / "logs" / "0000.log").read_text().splitlines()
    assert first.endswith("the worker was lost; another one continues from the last checkpoint")
    assert last.endswith("the worker was lost several times: see the memory and the logs of its node")


def test_three_trials_in_a_row_that_lose_their_workers_end_the_search():
    searcher = make(trials=9)
    for name in "abc":
        searcher.suggest(name)
        searcher.on_trial_complete(name, error=True)
    assert searcher.broken.startswith("the worker was lost several times")
    assert searcher.suggest("d") == Searcher.FINISHED


class TestTheMachineFails:
    def full(self, searcher, monkeypatch):
        """From now on the study's disk is full."""

        def refuse(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        for name in ("create_new_trial", "set_trial_state_values", "set_trial_intermediate_value"):
            monkeypatch.setattr(searcher.study._storage, name, refuse)

    def test_a_study_that_cannot_be_written_ends_the_search_and_leaves_its_trials_unfinished(self, monkeypatch):
        searcher = make(trials=9)
        searcher.suggest("a")
        searcher.suggest("b")
        self.full(searcher, monkeypatch)
        searcher.on_trial_result("a", report(1, 0.3))
        assert str(searcher.halted).startswith("cannot write run: No space left on device (the disk at ")
        searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
        searcher.on_trial_result("b", report(1, 0.3))
        assert searcher.suggest("c") == Searcher.FINISHED
        monkeypatch.undo()
        assert [t.state for t in searcher.study.trials] == [TrialState.RUNNING] * 2

    def test_no_trial_starts_on_a_full_disk(self, monkeypatch):
        searcher = make()
        self.full(searcher, monkeypatch)
        assert searcher.suggest("a") == Searcher.FINISHED
        assert "No space left on device" in str(searcher.halted)

    def test_a_worker_that_cannot_write_leaves_its_trial_unfinished(self):
        searcher = make(trials=9)
        searcher.suggest("a")
        searcher.on_trial_result("a", report(1, 0.3))
        searcher.on_trial_complete("a", {"done": True, "outcome": "interrupted", "error": "cannot write weights.pt: x"})
        assert str(searcher.halted) == "cannot write weights.pt: x"
        assert searcher.suggest("b") == Searcher.FINISHED
        [trial] = searcher.study.trials
        assert trial.state == TrialState.RUNNING
        assert make(searcher.study).suggest("a")["training"] == 0  # continued

    def test_an_error_of_ours_ends_the_search_and_blames_no_trial(self):
        broken = ZeroDivisionError("a figure")

        def on_change(trial):
            if trial.state.is_finished():
                raise broken

        searcher = make(trials=9)
        searcher.on_change = on_change
        searcher.suggest("a")
        searcher.on_trial_complete("a", report(EPOCHS, 0.5, done=True))
        assert searcher.halted is broken
        assert searcher.suggest("b") == Searcher.FINISHED


class TestNoConfigurationTwice:
    def four(self, trial):
        config = {name: trial.suggest_categorical(name, (1, 2)) for name in "xy"}
        trial.set_user_attr(Attr.CONFIG, config)
        return Job(trial.number, config, {}, 0.0)

    def run(self, searcher):
        """Start trials until there are no more; their configurations."""
        configs = []
        while (configured := searcher.suggest(str(len(configs)))) != Searcher.FINISHED:
            configs.append(configured["config"])
            searcher.on_trial_complete(str(len(configs) - 1), report(EPOCHS, 0.5, done=True))
        return configs

    def test_a_space_of_four_ends_after_four(self):
        searcher = make(trials=50, configure=self.four)
        configs = self.run(searcher)
        assert sorted((c["x"], c["y"]) for c in configs) == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert searcher.exhausted
        assert len(started_trials(searcher.study)) == 4

    def test_a_resumed_search_knows_earlier_configurations(self):
        first = make(trials=2, configure=self.four)
        before = self.run(first)
        second = make(first.study, trials=50, configure=self.four)
        after = self.run(second)
        assert len(before) == len(after) == 2
        assert not any(config in before for config in after)

    def test_an_unfinished_trial_does_not_repeat_itself(self):
        first = make(trials=2, configure=self.four)
        config = first.suggest("a")["config"]
        assert make(first.study, trials=2, configure=self.four).suggest("a") == Job(0, config, {}, 0.0).to_tune()

    def test_a_sampler_without_repeats_is_not_disturbed(self):
        searcher = make(trials=20)
        assert [searcher.suggest(str(n))["training"] for n in range(20)] == list(range(20))


def test_an_enqueued_trial_that_does_not_fit_keeps_waiting():
    searcher = make(trials=9)
    searcher.study.enqueue_trial({"x": 0.25})
    searcher.study.enqueue_trial({"x": 0.5})
    searcher.fits = lambda trial: trial.number != 0
    assert searcher.suggest("a")["config"] == {"x": 0.5}
    assert searcher.suggest("b")["training"] == 2
    searcher.fits = lambda trial: True
    assert searcher.suggest("c") == Job(0, {"x": 0.25}, {}, 0.0).to_tune()
