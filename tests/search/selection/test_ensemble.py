"""Greedy selection, cross-fitted weights, and the choice between one model and several, on made-up probabilities."""

import itertools

import numpy as np
import pytest

from search.selection.ensemble import Column, bagged, greedy, mean, mixtures, simplest
from search.selection.retraining import Retraining
from voctrain.config import ClassifyConfig

TRUTH = np.random.default_rng(0).random(200) < 0.5


def scorer(probabilities, rows):
    """Accuracy of probabilities (n, 1)."""
    right = (probabilities[:, 0] > 0.5) == TRUTH[rows]
    return lambda chosen: float(right[chosen].mean())


def column(name, probabilities, *, mirrored=False, folds=1):
    networks = tuple(Retraining(f"{name}, fold {i}", ClassifyConfig(), f"{name}{i}", 1) for i in range(folds))
    return Column(name, mirrored, networks, np.asarray(probabilities, np.float32)[:, None])


def noisy(seed, noise):
    """What a model says that is right on average, with errors of its own."""
    return 0.5 + 0.1 * (2 * TRUTH - 1) + np.random.default_rng(seed).normal(0, noise, len(TRUTH))


def test_greedy_selection_finds_the_best_mixture_of_few_steps():
    """Every multiset of up to eight columns is tried: no first step is better, and the kept one beats each column."""
    columns = [column(str(seed), noisy(seed, 0.15)) for seed in range(3)]
    rows = np.arange(200)
    weights = greedy(columns, scorer, rows)
    found = scorer(mean(columns, weights), rows)(slice(None))
    singles = [scorer(each.probabilities, rows)(slice(None)) for each in columns]
    pairs = [
        scorer((columns[int(np.argmax(singles))].probabilities + other.probabilities) / 2, rows)(slice(None))
        for other in columns
    ]
    assert weights.sum() == pytest.approx(1)
    assert found >= max(singles)
    assert found >= max(pairs)  # its second step at least


def test_what_adds_nothing_weighs_nothing():
    good, bad = column("good", noisy(1, 0.12)), column("bad", 1 - noisy(2, 0.12))
    assert greedy([bad, good], scorer, np.arange(200)).tolist() == [0, 1]
    assert bagged([bad, good], scorer, np.arange(200), None).tolist() == [0, 1]


def test_the_weights_behind_an_image_were_fitted_on_others(monkeypatch):
    fitted = []

    def recorded(columns, scorer, rows, most):
        fitted.append(set(rows.tolist()))
        return np.array([len(fitted) % 2, 1 - len(fitted) % 2], float)

    monkeypatch.setattr("search.selection.ensemble.bagged", recorded)
    columns, fold = [column("a", noisy(1, 0.1)), column("b", noisy(2, 0.1))], np.arange(200) % 4
    crossed = mixtures(columns, 0, scorer, fold, None)[2].probabilities
    for number in range(4):
        held_out = np.flatnonzero(fold == number)
        assert not fitted[number] & set(held_out.tolist())
        assert np.array_equal(crossed[held_out], columns[number % 2].probabilities[held_out])


def test_one_network_is_kept_unless_several_are_clearly_better():
    several = [column(str(seed), noisy(seed, 0.2)) for seed in range(8)]
    found = mixtures(several, 0, scorer, np.arange(200) % 5, None)
    scores = [scorer(mixture.probabilities, np.arange(200))(slice(None)) for mixture in found]
    assert scores[1] > scores[0] + 0.05  # the errors of eight models average out
    assert found[simplest(found, scorer)].name == "uniform"
    same = [column("a", several[0].probabilities[:, 0]), column("b", several[0].probabilities[:, 0])]
    found = mixtures(same, 0, scorer, np.arange(200) % 5, None)
    assert found[simplest(found, scorer)].name == "single"


@pytest.mark.parametrize(("most", "kept"), [(4, []), (5, ["2"]), (9, ["2"]), (10, ["2", "1"]), (None, ["2", "1", "0"])])
def test_an_ensemble_has_at_most_that_many_networks(most, kept):
    """Each configuration has five, for two views: they count once."""
    pairs = itertools.product(range(3), (False, True))
    columns = [column(str(i), noisy(i, 0.3 - 0.1 * i), mirrored=mirrored, folds=5) for i, mirrored in pairs]
    found = mixtures(columns, 4, scorer, np.arange(200) % 5, most)
    assert len(found) == (3 if kept else 1)
    for mixture in found[1:]:
        used = {each.name for each, weight in zip(columns, mixture.weights, strict=True) if weight}
        assert used <= set(kept)
        assert mixture.weights.sum() == pytest.approx(1)
