from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import mlflow
import pytest

from search.cluster.trackers import Tracker, check_tracker
from tests.search.runs import trials_of


@pytest.mark.slow
def test_mlflow_gets_every_trial_with_its_parameters_and_epochs(run, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    outcome = run("--out", tmp_path, "--name", "tracked", "--set", "architecture=simple", "--log", f"mlflow:{uri}")
    assert outcome.status == 0, outcome
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tracked")
    logged = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(logged) == ["training-0000", "training-0001"]
    for trial, (_, run) in zip(trials_of(tmp_path / "tracked"), sorted(logged.items()), strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.params["config/architecture"] == "simple"
        scores = client.get_metric_history(run.info.run_id, "val_mAP")
        assert {metric.step: pytest.approx(metric.value) for metric in scores} == trial.intermediate_values


@pytest.mark.slow
def test_wandb_keeps_the_trials_in_the_run_folder_and_the_key_out_of_it(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "5" * 40)
    outcome = run("--out", tmp_path, "--name", "tracked", "--set", "architecture=simple", "--log", "wandb:flowers")
    assert outcome.status == 0, outcome
    assert outcome.err == ""
    assert len(list((tmp_path / "tracked").glob("wandb/offline-run-*/*.wandb"))) == 2
    assert not any("5" * 40 in file.read_text("latin-1") for file in tmp_path.rglob("*") if file.is_file())


def test_a_tracker_that_fails_is_left_alone_after_one_warning():
    class Broken:
        def setup(self, **info):
            pass

        def on_trial_start(self, **info):
            raise ConnectionError("no route to host\nmore")

    warnings = []
    tracker = Tracker(Broken(), warnings.append)
    tracker.setup()
    tracker.on_trial_start(iteration=1, trials=[], trial=None)
    tracker.on_trial_start(iteration=2, trials=[], trial=None)
    assert warnings == ["--log has ended, and the search goes on without it: no route to host"]


@pytest.fixture
def unavailable():
    """The address of a server that answers 503 to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_tracker_that_cannot_be_used_is_refused(unavailable, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        ValueError, match=rf"^--log mlflow:{unavailable} cannot be used \(.*503.*\): correct the URI, or"
    ):
        check_tracker(f"mlflow:{unavailable}")
    monkeypatch.setattr("search.cluster.trackers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^--log wandb needs wandb: install it with pip install -e '\.\[wandb\]'$"):
        check_tracker("wandb:flowers")


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("tensorboard:x", "argument --log: must be wandb:PROJECT or mlflow:URI, but got 'tensorboard:x'"),
        ("mlflow:https://me:secret@host", "argument --log: must not contain a password, which would be stored: set"),
    ],
)
def test_a_mistyped_tracker_is_refused(refused, typed, answer):
    from search.run import main

    assert answer in refused(main, "classify", "--log", typed)
