import itertools

import pytest

from search.run_folder.files import read_torch
from search.trial import training
from search.trial.training import STATE, WEIGHTS, checkpointed_training
from voctrain import classify
from voctrain.config import ClassifyConfig
from voctrain.data import load


@pytest.fixture
def train(dataset, monkeypatch):
    """The epochs of a training in that folder, which saves its state after each."""
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(training, "SAVE_COSTS", 0)
    config = ClassifyConfig(architecture="simple", image_size=32, epochs=6, batch_size=16, lr=0.01)
    data = load(dataset, image_size=32)
    return lambda folder: checkpointed_training(classify, config, data, folder, device="cpu")


@pytest.mark.parametrize("damaged", [None, STATE, WEIGHTS])
def test_whatever_is_damaged_a_continued_training_ends_with_the_best_epoch(damaged, train, tmp_path):
    expected = list(train(tmp_path / "a"))
    list(itertools.islice(train(tmp_path / "b"), 5))
    if damaged is not None:
        (tmp_path / "b" / damaged).write_bytes(b"")
    continued = list(train(tmp_path / "b"))
    assert [e["val_mAP"] for e in continued] == pytest.approx([e["val_mAP"] for e in expected], abs=1e-9)
    best, other = (read_torch(tmp_path / name / WEIGHTS) for name in "ab")
    assert best["epoch"] < 5  # it is not trained again
    assert (best["epoch"], best["score"]) == (other["epoch"], other["score"])
