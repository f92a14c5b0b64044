import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.running.cost import fits_in, portfolio_operations, training_operations
from search.study.trials import Attr
from voctrain.config import ClassifyConfig

OPERATIONS = {"portfolio 1": 10.0, "portfolio 2": 30.0, "portfolio 3": 100.0}
EPOCHS = 9


def enqueued(name):
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={Attr.ORIGIN: name} if name else None)
    return study.trials[0]


def begun(*trials):
    """Portfolio trials with epochs done and the seconds that they took, if they have ended."""
    study = optuna.create_study()
    for name, epochs, seconds in trials:
        attributes = {Attr.ORIGIN: name} | ({Attr.SECONDS: seconds} if seconds else {})
        scores = dict.fromkeys(range(1, epochs + 1), 0.5)
        study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values=scores, user_attrs=attributes))
    return study.trials


def fits(name, left, *trials, spent=()):
    return fits_in(lambda: left, OPERATIONS, EPOCHS, lambda: begun(*trials), dict(spent))(enqueued(name))


def test_a_recipe_longer_than_the_time_left_does_not_fit():
    """One recipe took 20 seconds for 2 epochs: one second per operation, so 90 and 270 seconds for 9 epochs."""
    first = ("portfolio 1", 2, 20.0)
    assert fits("portfolio 2", 271.0, first)
    assert not fits("portfolio 2", 269.0, first)
    assert fits("portfolio 1", 91.0, first)
    # A second one of 60 seconds for one epoch: 80 seconds for 50 operations.
    assert not fits("portfolio 1", 143.0, first, ("portfolio 2", 1, 60.0))
    assert fits("portfolio 1", 145.0, first, ("portfolio 2", 1, 60.0))


def test_unknown_costs_always_fit():
    assert fits("portfolio 3", 1.0)
    assert fits("portfolio 3", 1.0, ("portfolio 1", 0, 0.0))
    assert fits(None, 1.0, ("portfolio 1", 2, 20.0))
    assert fits("other-run, trial 3", 1.0, ("portfolio 1", 2, 20.0))


def test_the_seconds_of_a_running_trial_count():
    [running] = begun(("portfolio 1", 1, 0.0))
    ready = fits_in(lambda: 100.0, OPERATIONS, EPOCHS, lambda: [running], {0: 50.0})
    assert not ready(enqueued("portfolio 1"))  # 450 seconds


@pytest.mark.parametrize("channels", [(64, 128, 256, 512)])
def test_operations_are_those_of_the_network(channels, begin, dataset, tmp_path):
    """resnet18 at 32 pixels, by hand: its convolutions forward, and about twice as much backward."""
    session = begin(
        *("classify", "--data", dataset, "--image-size", 32, "--epochs", 3, "--trials", 2, "--out", tmp_path),
        *("--set", "architecture=resnet18", "--name", "run", "--weights", "none"),
    )
    config = ClassifyConfig(architecture="resnet18", image_size=32, epochs=3, hflip=0.0)
    # 7x7/2 to 16², pool to 8², then two blocks of two 3x3 convolutions for each width, halving the side.
    forward, side, before = 2 * 16**2 * 64 * 3 * 49, 8, 64
    for width in channels:
        side = side if width == 64 else side // 2
        forward += 2 * side**2 * 9 * width * (before + 3 * width)
        forward += 0 if width == before else 2 * side**2 * before * width
        before = width
    counted = training_operations(session.problem, config, session.data)
    # Four images forward and backward (the first layer needs no gradient for the images), one evaluated.
    assert counted == pytest.approx((4 * 3 + 1) * forward, rel=0.1)
    twice = ClassifyConfig(architecture="resnet18", image_size=32, epochs=3, hflip=0.0, aug_repeats=2)
    assert training_operations(session.problem, twice, session.data) / counted == pytest.approx(25 / 13, rel=0.02)


def test_the_operations_of_every_recipe_are_counted(begin, dataset, tmp_path):
    asked = ("--data", dataset, "--image-size", 32, "--epochs", 3, "--trials", 2, "--out", tmp_path, "--name", "run")
    asked += ("--weights", "none")
    session = begin("classify", *asked)
    counted = portfolio_operations(session.problem, session.data)
    assert counted.keys() == dict(session.problem.portfolio()).keys()
    assert all(operations > 0 for operations in counted.values())
    by_architecture = {entry["architecture"]: counted[name] for name, entry in session.problem.portfolio()}
    assert by_architecture["resnet34"] / by_architecture["resnet18"] == pytest.approx(2, rel=0.1)
