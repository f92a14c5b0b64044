import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.study.journal import open_study, sync
from search.study.sampler import SeededSampler
from search.study.trials import Attr, best_epoch, portfolio_numbers, rank_trials, state_name, trial_score


def suggest(trial):
    kind = trial.suggest_categorical("kind", ("a", "b"))
    x = trial.suggest_float("x", 0, 1)
    return x + (trial.suggest_float("y", 0, 1) if kind == "a" else trial.suggest_int("z", 0, 9) / 10)


def run(path, trials, sampler):
    """Search in steps, the study opened anew for each of `trials`."""
    for _ in range(trials):
        study = open_study(path, sampler())
        trial = study.ask()
        study.tell(trial, suggest(trial))
    return [t.params for t in study.trials]


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc"])
def test_a_reopened_study_proposes_what_an_uninterrupted_one_does(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("search.study.sampler.STARTUP_TRIALS", 4)
    interrupted = run(tmp_path / "a", 9, lambda: SeededSampler(kind, 1, {}))
    study = open_study(tmp_path / "b", SeededSampler(kind, 1, {}))
    for _ in range(9):
        trial = study.ask()
        study.tell(trial, suggest(trial))
    assert interrupted == [t.params for t in study.trials]
    other = run(tmp_path / "c", 9, lambda: SeededSampler(kind, 2, {}))
    assert other != interrupted


@pytest.mark.parametrize("others", [1000, 5])
def test_a_reopened_study_of_many_trials_proposes_the_same(others, tmp_path, monkeypatch):
    monkeypatch.setattr("search.study.sampler.STARTUP_TRIALS", 4)
    monkeypatch.setattr("search.study.sampler.TPE_OTHERS", others)
    interrupted = run(tmp_path / "a", 12, lambda: SeededSampler("tpe", 1, {}))
    study = open_study(tmp_path / "b", SeededSampler("tpe", 1, {}))
    for _ in range(12):
        trial = study.ask()
        study.tell(trial, suggest(trial))
    assert interrupted == [t.params for t in study.trials]


class TestManyTrials:
    """TPE looks at the latest trials and at the best."""

    def proposals(self, monkeypatch, others):
        monkeypatch.setattr("search.study.sampler.TPE_OTHERS", others)
        study = optuna.create_study(direction="maximize", sampler=SeededSampler("random", 0, {}))
        for number in range(300):
            trial = study.ask()
            x = trial.suggest_float("x", 0, 1)
            score = 10 - abs(x - 0.8) if number < 100 else -x  # only early ones are good
            trial.report(score, 1)
            study.tell(trial, score if number % 3 else None, TrialState.COMPLETE if number % 3 else TrialState.PRUNED)
        study.sampler = SeededSampler("tpe", 0, {})
        return [study.ask().suggest_float("x", 0, 1) for _ in range(20)]

    def test_a_search_with_no_more_is_as_it_was(self, monkeypatch):
        assert self.proposals(monkeypatch, 300) == self.proposals(monkeypatch, 10**6)

    def test_the_best_count_however_old_they_are(self, monkeypatch):
        bounded = self.proposals(monkeypatch, 50)
        assert bounded != self.proposals(monkeypatch, 300)
        assert np.median(np.abs(np.array(bounded) - 0.8)) < 0.1


def test_optuna_itself_reads_the_journal_and_the_disk_is_waited_for_once(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr("os.fsync", waited.append)
    study = open_study(tmp_path / "a", SeededSampler("random", 0, {}))
    for _ in range(3):
        trial = study.ask()
        study.tell(trial, suggest(trial))
    assert not waited
    sync(tmp_path / "a")
    assert len(waited) == 1
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "a")))
    assert optuna.load_study(study_name=None, storage=storage).trials == study.trials
    assert [file.name for file in tmp_path.iterdir()] == ["a"]  # no lock


def test_a_trial_interrupted_between_two_parameters_continues_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("search.study.sampler.STARTUP_TRIALS", 2)

    def third(cut):
        path = tmp_path / str(cut)
        run(path, 4, lambda: SeededSampler("tpe", 3, {}))
        study = open_study(path, SeededSampler("tpe", 3, {}))
        trial = study.ask()
        if cut:
            trial.suggest_categorical("kind", ("a", "b"))
            study = open_study(path, SeededSampler("tpe", 3, {}))
            trial = optuna.trial.Trial(study, study.trials[-1]._trial_id)
        suggest(trial)
        return trial.params

    assert third(cut=True) == third(cut=False)


def test_pins_apply_to_every_trial(tmp_path):
    params = run(tmp_path / "a", 6, lambda: SeededSampler("random", 1, {"kind": "b"}))
    assert {p["kind"] for p in params} == {"b"}
    assert all("z" in p for p in params)


@pytest.mark.parametrize("torn", [b'{"op_code":4,"wor', b'{"op_code":4,"wor\n', b"\0\0\0"])
def test_a_torn_last_line_and_a_stale_lock_are_repaired(torn, tmp_path):
    path = tmp_path / "study.journal"
    before = run(path, 3, lambda: SeededSampler("random", 1, {}))
    with open(path, "ab") as file:
        file.write(torn)
    (tmp_path / "study.journal.lock").symlink_to(path)
    study = open_study(path, SeededSampler("random", 1, {}))
    assert [t.params for t in study.trials] == before
    study.tell(study.ask(), 1.0)
    assert len(open_study(path, SeededSampler("random", 1, {})).trials) == 4


def test_the_score_is_the_best_epoch_of_pruned_trials_too():
    study = optuna.create_study(direction="maximize")

    def add(values, state=TrialState.PRUNED, **attributes):
        trial = study.ask()
        for epoch, value in enumerate(values, 1):
            trial.report(value, epoch)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        study.tell(trial, max(values) if state == TrialState.COMPLETE else None, state)

    add([0.1, 0.5, 0.3])
    add([0.2, 0.4], TrialState.COMPLETE)
    add([0.9], TrialState.FAIL, error="boom")
    add([0.5, 0.5])
    study.ask()
    assert [t.number for t in rank_trials(study.trials)] == [0, 3, 1]
    assert [trial_score(t) for t in study.trials] == [0.5, 0.4, None, 0.5, None]
    assert [best_epoch(t) for t in study.trials] == [2, 2, None, 1, None]
    names = [state_name(t) for t in study.trials]
    assert names == ["pruned", "complete", "failed", "pruned", "running"]
    assert np.isclose(rank_trials(study.trials)[0].intermediate_values[2], 0.5)


def test_only_the_portfolio_is_the_portfolio():
    study = optuna.create_study()
    for origin in ("portfolio 1", "portfolio 12", "portfolio-run, trial 3", "portfolio 1, trial 3"):
        study.enqueue_trial({}, user_attrs={Attr.ORIGIN: origin})
    study.ask()  # one runs, the others wait; the last one is the sampler's
    study.add_trial(optuna.trial.create_trial(value=0.0))
    assert portfolio_numbers(study) == {0, 1}
