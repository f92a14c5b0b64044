import dataclasses

import pytest

from search.cluster.resources import Resources, share_resources
from search.options import ResourceOptions
from search.run import main
from search.study.journal import read_study


def shared(machines, trials=50, **asked):
    return share_resources(machines, ResourceOptions(**asked), trials=trials)


def assert_shares(machines, asked, expected):
    """Values and types: Tune asserts that the number of concurrent trials is an int, and 1.0 == 1."""
    resources = shared(machines, **asked)
    values = (resources.concurrent, resources.cpus, resources.gpus)
    assert values == expected
    assert [type(value) for value in values] == [int, int, float]


@pytest.mark.parametrize(
    ("have", "asked", "expected"),
    [
        ({"CPU": 2}, {}, (2, 1, 0)),
        ({"CPU": 8}, {"concurrent": 2}, (2, 4, 0)),
        ({"CPU": 8}, {"cpus_per_trial": 3}, (2, 3, 0)),
        ({"CPU": 8}, {"concurrent": 4, "cpus_per_trial": 4}, (2, 4, 0)),
        ({"CPU": 8}, {"trials": 3}, (3, 2, 0)),
        ({"CPU": 2}, {"concurrent": 5}, (2, 1, 0)),
        ({"CPU": 16, "GPU": 2}, {}, (2, 8, 1)),
        ({"CPU": 16, "GPU": 2}, {"concurrent": 4}, (4, 4, 0.5)),
        ({"CPU": 16, "GPU": 1}, {"gpus_per_trial": 0.25}, (4, 4, 0.25)),
        ({"CPU": 4, "GPU": 1}, {"gpus_per_trial": 0}, (4, 1, 0)),
        ({"CPU": 4, "GPU": 1}, {"gpus_per_trial": 1, "concurrent": 3}, (1, 4, 1)),
        ({"CPU": 10, "GPU": 3}, {"concurrent": 5}, (5, 2, 0.5)),  # no share is cut in two
        ({"CPU": 8, "GPU": 1}, {"gpus_per_trial": 0.3}, (3, 2, 0.3)),
    ],
)
def test_shares(have, asked, expected):
    assert_shares([have], asked, expected)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (2, 2, 1)),  # the head's CPUs serve no GPU
        ({"concurrent": 4}, (4, 1, 0.5)),
        ({"gpus_per_trial": 0}, (10, 1, 0)),
        ({"gpus_per_trial": 0, "concurrent": 3}, (3, 2, 0)),
        ({"trials": 1}, (1, 2, 1)),
    ],
)
def test_a_trial_runs_on_one_machine(asked, expected):
    cluster = [{"CPU": 6.0}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert_shares(cluster, asked, expected)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"concurrent": 4, "gpus_per_trial": 1}, (1, 2, 1.0, 4, True)),
        ({"concurrent": 4, "cpus_per_trial": 1, "gpus_per_trial": 0}, (2, 1, 0.0, 4, True)),
        ({"concurrent": 1}, (1, 2, 1.0, 1, False)),
        ({}, (1, 2, 1.0, 9, False)),  # nodes that join are used, and none is asked for
    ],
)
def test_a_cluster_that_may_grow_is_asked_for_more_than_there_is_room_for(asked, expected):
    shares = share_resources([{"CPU": 2, "GPU": 1}], ResourceOptions(**asked), trials=9, elastic=True)
    assert dataclasses.astuple(shares) == expected


@pytest.mark.parametrize(
    ("machines", "per_gpu", "expected"),
    [
        ([{"CPU": 16, "GPU": 2}], 3, (6, 2, 1 / 3)),
        ([{"CPU": 4, "GPU": 2}], 3, (4, 1, 0.5)),  # every trial has a CPU
        ([{"CPU": 64, "GPU": 8}], 8, (50, 1, 1 / 7)),  # no more than there are trials
    ],
)
def test_trials_share_gpus_as_measured(machines, per_gpu, expected):
    resources = share_resources(machines, ResourceOptions(), trials=50, per_gpu=per_gpu)
    assert (resources.concurrent, resources.cpus, resources.gpus) == expected
    assert resources.gpus_of(alone=True) == 1.0


def test_a_combination_that_no_machine_has_is_refused():
    with pytest.raises(ValueError, match="no machine has 4 CPUs and 1 GPUs: lower --cpus-per-trial"):
        shared([{"CPU": 6}, {"CPU": 2, "GPU": 1}], cpus_per_trial=4)


def test_more_than_the_machines_have_is_refused():
    with pytest.raises(ValueError, match="--cpus-per-trial must be at most the 8 CPUs"):
        shared([{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1}], cpus_per_trial=9)
    with pytest.raises(ValueError, match=r"--gpus-per-trial must be 0, because Ray knows of no GPU, but got 0\.5"):
        shared([{"CPU": 8}], gpus_per_trial=0.5)


@pytest.mark.parametrize("wrong", [(1.0, 1, 0.0), (1, 1.0, 0.0), (1, 1, 0), (0, 1, 0.0), (1, 0, 0.0)])
def test_resources_of_wrong_types_or_zero_are_refused(wrong):
    with pytest.raises(AssertionError):
        Resources(*wrong)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [(), ("--gpus-per-trial", 0.5)])
def test_a_machine_with_fewer_gpus_than_cpus_searches_with_default_arguments(
    asked, call, cluster, dataset, space, tmp_path, monkeypatch
):
    monkeypatch.setattr("search.session.session.available", lambda *asked: [{"CPU": 2.0, "GPU": 1.0}])
    place = ("--out", tmp_path, "--name", "run", "--space", space)
    outcome = call(
        main, "classify", "--data", dataset, "--image-size", 32, "--epochs", 1, "--trials", 2, *place, *asked
    )
    assert outcome.status == 0, outcome
    assert outcome.err == ""
    assert (" of its time: 2 share one\n" in outcome.out) == (not asked)
    assert [t.state.name for t in read_study(tmp_path / "run" / "study.journal").trials] == ["COMPLETE"] * 2
