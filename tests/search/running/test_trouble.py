import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from optuna.trial import TrialState

from search.cluster.worker import Worker
from search.run_folder.files import StorageError
from search.run_folder.paths import RunPaths
from search.study.trials import Attr
from tests.search.runs import data_of, read, rows_of, trials_of
from voctrain import classify
from voctrain.config import ClassifyConfig

pytestmark = pytest.mark.slow


def wait_for(condition, seconds=120):
    """What `condition` returns, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return value


BROKEN = """
def suggest(trial, problem):
    config = {{"architecture": "simple", "optimizer": "sgd", "lr": trial.suggest_float("lr", 1e-3, 1e-2)}}
    diverging, failing = {diverging}, {failing}
    if trial.number in diverging:
        config["lr"] *= 1e33
    if trial.number in failing and trial.study.study_name == "search":  # not when the space is probed
        config |= {{"sampling": "copies", "copies_except": "unicorn"}}
    return config
"""


class TestTrouble:
    def broken(self, run, tmp_path, *arguments, diverging=(), failing=()):
        file = tmp_path / "broken.py"
        file.write_text(BROKEN.format(diverging=diverging, failing=failing))
        outcome = run("--space", file, "--out", tmp_path, "--name", "broken", "--quiet", *arguments)
        return outcome, tmp_path / "broken"

    def test_the_search_continues_after_failed_trials(self, run, tmp_path):
        outcome, folder = self.broken(run, tmp_path, "--trials", 3, diverging=(0,), failing=(1,))
        assert outcome.status == 0, outcome
        rows = rows_of(folder)
        assert [row["state"] for row in rows] == ["failed", "failed", "complete"]
        assert "diverged: the " in rows[0]["error"]
        assert "ValueError: copies_except must be one of" in rows[1]["error"]
        assert [row["score"] != "" for row in rows] == [False, False, True]
        assert "Traceback" in (folder / rows[1]["log"]).read_text()
        assert read(folder, "best")["trial"] == 2
        told = [(t.state, t.value) for t in trials_of(folder)][:2]
        assert told == [(TrialState.COMPLETE, 0.0), (TrialState.FAIL, None)]  # the sampler learns of the first

    def test_three_equal_failures_in_a_row_end_the_run(self, run, tmp_path):
        outcome, folder = self.broken(run, tmp_path, "--trials", 9, failing=range(9))
        assert outcome.status == 1
        assert re.fullmatch(r"error: 3 trials in a row failed: .*unicorn.* \(see .*/logs\)\n", outcome.err)
        assert len(rows_of(folder)) == 3

    def test_a_run_without_a_score_has_failed(self, run, tmp_path):
        outcome, folder = self.broken(run, tmp_path, "--trials", 2, diverging=range(2))
        assert outcome.status == 1
        assert re.fullmatch(r"error: no trial has scored: .*\n", outcome.err)
        assert not (folder / "best.json").exists()

    def test_a_lost_worker_is_replaced_and_continues_from_its_checkpoint(self, run, tmp_path, space, monkeypatch):
        class Saving(Worker):  # local: Ray ships it by value
            def setup(self, config, **more):
                import search.trial.training

                search.trial.training.SAVE_SECONDS = 0.0
                Worker.setup(self, config, **more)

        monkeypatch.setattr("search.cluster.execution.Worker", Saving)
        log = RunPaths(tmp_path / "lost").log(0)
        killed = []

        def kill():
            wait_for(lambda: log.exists() and "epoch 5," in log.read_text())
            killed.append(int(re.search(r"process (\d+):", log.read_text())[1]))
            os.kill(killed[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        searched = ("--space", space, "--sampler", "gp", "--trials", 1, "--epochs", 150)
        outcome = run(*searched, "--out", tmp_path, "--name", "lost", "--quiet")
        thread.join()
        assert outcome.status == 0, outcome
        lives = log.read_text().split("training 0 on ")[1:]
        assert len(lives) == 2
        pids = [int(re.search(r"process (\d+):", life)[1]) for life in lives]
        assert pids[0] == killed[0] != pids[1]
        continued = re.findall(r"epoch (\d+), seconds ([\d.]+)", lives[1])
        told_again = sum(seconds == continued[0][1] for _, seconds in continued)
        assert told_again >= 1  # the epochs of the checkpoint, all told with the time that it had cost
        [trial] = trials_of(tmp_path / "lost")
        assert trial.state == TrialState.COMPLETE
        assert sorted(trial.intermediate_values) == list(range(1, 151))
        config, data = ClassifyConfig.from_dict(trial.user_attrs[Attr.CONFIG]), data_of(tmp_path / "lost")
        expected = [epoch.metrics["val_mAP"] for epoch in classify.train(config, data)]
        assert list(trial.intermediate_values.values()) == pytest.approx(expected, abs=1e-9)

    def test_a_worker_that_hangs_is_ended_and_another_one_continues(self, run, tmp_path, space, monkeypatch):
        monkeypatch.setattr("search.cluster.hangs.HANG_SECONDS", 3.0)
        monkeypatch.setattr("search.cluster.hangs.HANG_EPOCHS", 1)
        monkeypatch.setattr("search.cluster.hangs.LOOK_SECONDS", 0.5)
        log = RunPaths(tmp_path / "hung").log(0)

        def stop():
            wait_for(lambda: log.exists() and "epoch 5," in log.read_text())
            os.kill(int(re.search(r"process (\d+):", log.read_text())[1]), signal.SIGSTOP)

        thread = threading.Thread(target=stop)
        thread.start()
        searched = ("--space", space, "--sampler", "gp", "--trials", 1, "--epochs", 150)
        outcome = run(*searched, "--out", tmp_path, "--name", "hung", "--quiet")
        thread.join()
        assert outcome.status == 0, outcome
        said = r"no epoch for 0:\d\d, although none has taken longer than 0:\d\d: the worker is ended"
        assert re.search(said, log.read_text())
        assert "the worker was lost; another one continues from the last checkpoint" in log.read_text()
        [trial] = trials_of(tmp_path / "hung")
        assert (trial.state, trial.user_attrs[Attr.LOST]) == (TrialState.COMPLETE, 1)
        assert sorted(trial.intermediate_values) == list(range(1, 151))

    def test_a_worker_that_hangs_before_its_first_epoch_is_ended_too(self, run, tmp_path, space, monkeypatch):
        class Stopping(Worker):  # it stops itself in the second trial, once
            def reset_config(self, new_config):
                note = self.paths.folder / "stopped"
                if new_config["training"] == 1 and not note.exists():
                    note.touch()
                    os.kill(os.getpid(), signal.SIGSTOP)
                return Worker.reset_config(self, new_config)

        monkeypatch.setattr("search.cluster.execution.Worker", Stopping)
        monkeypatch.setattr("search.cluster.hangs.FIRST_SECONDS", 25.0)  # a new worker needs some itself
        monkeypatch.setattr("search.cluster.hangs.LOOK_SECONDS", 0.5)
        outcome = run("--space", space, "--out", tmp_path, "--name", "hung", "--quiet")
        assert outcome.status == 0, outcome
        assert "(raylet)" not in outcome.out + outcome.err  # Ray's own words
        assert "the worker is ended" in RunPaths(tmp_path / "hung").log(1).read_text()
        first, second = trials_of(tmp_path / "hung")
        assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
        assert Attr.LOST not in first.user_attrs
        assert second.user_attrs[Attr.LOST] >= 1  # more if the machine is so busy that a new worker seems to hang

    def test_a_trial_whose_workers_die_again_and_again_is_unfinished_and_resumes(
        self, run, tmp_path, space, monkeypatch
    ):
        class Dying(Worker):
            def step(self):
                if self.job.training == 0:
                    os._exit(1)
                return Worker.step(self)

        monkeypatch.setattr("search.cluster.execution.Worker", Dying)
        monkeypatch.setattr("search.cluster.execution.LOST_WORKERS", 1)
        outcome = run("--space", space, "--out", tmp_path, "--name", "dying", "--quiet")
        folder = tmp_path / "dying"
        assert outcome.status == 1
        assert outcome.err.startswith("error: trial 0: the worker was lost several times: see the memory and the logs")
        assert outcome.err.endswith(f", then continue with: python -m search.run classify --resume {folder}\n")
        rows = [(row["state"], row["lost"], row["error"]) for row in rows_of(folder)]
        assert rows == [("running", "2", ""), ("complete", "0", "")]
        monkeypatch.undo()
        assert run("--resume", folder).status == 0
        assert all(trial.state.is_finished() for trial in trials_of(folder))

    def test_a_full_disk_on_a_worker_ends_the_search_in_one_line_and_resume_runs_the_trial(
        self, run, tmp_path, space, monkeypatch
    ):
        class Full(Worker):
            def setup(self, config, **more):
                import search.trial.training

                def refuse(path, value):
                    raise StorageError.of(path, OSError(errno.ENOSPC, "No space left on device"))

                search.trial.training.write_torch = refuse
                Worker.setup(self, config, **more)

        monkeypatch.setattr("search.cluster.execution.Worker", Full)
        self.end_on_a_full_disk(run, tmp_path, space, monkeypatch, "checkpoints/0000/weights.pt")

    def test_a_full_disk_on_the_driver_ends_the_search_in_one_line(self, run, tmp_path, space, monkeypatch):
        def refuse(*arguments, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("search.running.publishing.Publisher.publish", refuse)
        self.end_on_a_full_disk(run, tmp_path, space, monkeypatch, "")

    def test_a_lost_cluster_is_not_reported_as_a_full_disk(self, run, tmp_path, space, monkeypatch):
        def lose(*args, **kwargs):
            raise ConnectionError("Ray Client is not connected.\nDetails follow.")

        monkeypatch.setattr("search.running.driver.execute", lose)
        outcome = run("--space", space, "--out", tmp_path, "--name", "lost", "--quiet")
        assert outcome.status == 1
        again = f"continue with: python -m search.run classify --resume {tmp_path / 'lost'}"
        assert outcome.err == f"error: Ray Client is not connected: check that the cluster runs, then {again}\n"

    def end_on_a_full_disk(self, run, tmp_path, space, monkeypatch, place):
        folder = tmp_path / "full"
        outcome = run("--space", space, "--out", tmp_path, "--name", folder.name, "--quiet")
        assert outcome.status == 1
        assert outcome.err.startswith(f"error: cannot write {folder / place}: No space left on device (the disk at /")
        assert outcome.err.endswith(f"continue with: python -m search.run classify --resume {folder}\n")
        assert outcome.err.count("\n") == 1
        assert not any(t.state.is_finished() for t in trials_of(folder))
        monkeypatch.undo()
        continued = run("--resume", folder)
        assert continued.status == 0, continued
        assert [t.state.is_finished() for t in trials_of(folder)] == [True, True]

    def test_ctrl_c_stops_cleanly_and_the_printed_command_resumes(self, run, dataset, space, tmp_path):
        folder = tmp_path / "stopped"
        size = ["--image-size", "32", "--epochs", "90", "--trials", "2", "--concurrent", "1", "--gpus-per-trial", "0"]
        command = [sys.executable, "-m", "search.run", "classify", "--data", str(dataset), *size]
        with subprocess.Popen(
            [*command, "--space", str(space), "--name", folder.name, "--out", "."],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                log = RunPaths(folder).log(0)
                wait_for(lambda: process.poll() is not None or (log.exists() and "epoch 2," in log.read_text()))
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
                out, err = process.communicate(timeout=90)
            finally:
                process.kill()
        assert process.returncode == 130, out + err
        assert "Traceback" not in out + err
        command = "python -m search.run classify --resume stopped"
        told = out.index(f"stopping; continue with: {command}\n")  # at once
        assert f"stopped with 2 trials to go; continue with: {command}\n" in out[told:]
        assert [t.state for t in trials_of(folder)] == [TrialState.RUNNING]

        continued = run("--resume", folder)
        assert continued.status == 0, continued
        trials = trials_of(folder)
        assert [t.state.is_finished() for t in trials] == [True, True]
        for trial in trials:
            assert sorted(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
