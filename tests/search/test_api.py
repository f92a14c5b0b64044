import shutil
from pathlib import Path

import optuna
import pytest

from search import api
from search.reporter import Reporter
from voctrain.config import ClassifyConfig

ONE_CPU = {"concurrent": 1, "cpus_per_trial": 1, "gpus_per_trial": 0}


@pytest.mark.slow
def test_a_notebook_searches_finalizes_and_submits(cluster, dataset, space, tmp_path, capsys):
    verbosity = optuna.logging.get_verbosity()
    small = {
        "data": dataset,
        "image_size": 32,
        "epochs": 1,
        "trials": 2,
        "space": space,
        "set": {"batch_size": 16},
        **ONE_CPU,
    }
    run = api.search("classify", **small, out=tmp_path, name="run")
    assert run.folder == tmp_path / "run"
    assert (run.outcome.finished, run.outcome.missing, run.outcome.signal) == (2, 0, None)
    assert "trials 2/2 done" in capsys.readouterr().out  # it shows progress
    assert list(run.trials["state"]) == ["complete", "complete"]
    assert run.best.score == pytest.approx(run.trials["score"].max())
    assert ClassifyConfig.from_dict(run.best.config).architecture == "simple"
    assert run.record.options.trials == 2

    longer = api.search("classify", resume=str(run.folder), trials=3, reporter=Reporter(quiet=True), quiet=True)
    assert len(longer.trials) == 3
    assert "trials 3/3 done" not in capsys.readouterr().out

    final = api.finalize(longer, top=1, seeds=1, **ONE_CPU)
    assert final.record.seeds == 1
    assert final.weights.exists()
    submission = api.submit(data=str(dataset), classify=longer, out=str(tmp_path / "submission.csv"))
    assert submission.images == 8
    assert submission.file.exists()
    assert optuna.logging.get_verbosity() == verbosity  # everything is as before


@pytest.mark.slow
def test_a_run_is_opened(finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    run = api.open_run(copy)
    assert len(run.trials) == 4
    (copy / "report.html").unlink()
    assert run.report() == copy / "report.html"
    (copy / "best.json").unlink()
    assert run.best is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: api.open_run("missing"), "no run folder missing"),
        (lambda: api.search("classify", tirals=3), "there is no option 'tirals'"),
        (lambda: api.search("classify", victim="x"), "--victim applies to attack only"),
        (lambda: api.search("classify", trials=0), "--trials must be an integer of at least 1, but got '0'"),
        (lambda: api.search("classify", sampler="guess"), "--sampler must be one of tpe"),
        (lambda: api.search("paint"), "the task must be one of attack, classify, segment, but got 'paint'"),
        (lambda: api.finalize("missing", topp=3), "there is no option 'topp'"),
        (lambda: api.submit(data="x", attack="run"), "attack cannot be submitted: give a run of classify or segment"),
        (lambda: api.submit(data="x"), "give a run of classify or segment"),
        (lambda: api.submit(data="x", gate=True, classify="run"), "the gate needs runs of classify and segment"),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  # compared below
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
