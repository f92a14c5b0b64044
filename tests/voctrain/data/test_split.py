import numpy as np
import pytest

from voctrain.data.split import stratified_split


def test_one_class_is_split_at_the_fraction():
    labels = np.zeros((50, 1), np.uint8)
    labels[:20] = 1
    train, val = stratified_split(labels, val_fraction=0.2)
    assert (labels[train].sum(), labels[val].sum()) == (16, 4)
    assert (len(train), len(val)) == (40, 10)


def test_indices_are_sorted_disjoint_and_complete():
    labels = np.random.default_rng(0).random((83, 20)) < 0.1
    train, val = stratified_split(labels, val_fraction=0.3, seed=5)
    assert train.dtype == val.dtype == np.int64
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    assert sorted([*train, *val]) == list(range(83))


def test_class_shares_are_closer_to_the_fraction_than_in_a_random_split():
    rng = np.random.default_rng(1)
    frequencies = np.array([22, 18, 22, 17, 23, 19, 28, 65, 37, 44, 24, 59, 52, 21, 151, 23, 31, 24, 18, 26]) / 472
    labels = rng.random((472, 20)) < frequencies

    def error(val):
        return np.abs(labels[val].sum(0) / labels.sum(0) - 0.2).mean()

    _, val = stratified_split(labels)
    assert 88 <= len(val) <= 102
    assert np.abs(labels[val].sum(0) - 0.2 * labels.sum(0)).max() <= 3
    assert error(val) < 0.5 * min(error(rng.permutation(472)[:95]) for _ in range(20))


@pytest.mark.parametrize("positives", [2, 3, 4, 9])
@pytest.mark.parametrize("val_fraction", [0.1, 0.5, 0.9])
def test_rare_classes_are_on_both_sides(positives, val_fraction):
    labels = np.zeros((60, 4), np.uint8)
    labels[:, 0] = 1
    for c in (1, 2, 3):
        labels[c * positives : (c + 1) * positives, c] = 1
    train, val = stratified_split(labels, val_fraction=val_fraction)
    assert labels[train].any(0).all()
    assert labels[val].any(0).all()


def test_the_seed_determines_the_split():
    labels = np.random.default_rng(0).random((60, 5)) < 0.3
    first, again, other = (stratified_split(labels, seed=seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_images_without_labels_are_split_too():
    train, val = stratified_split(np.zeros((10, 3), np.uint8))
    assert (len(train), len(val)) == (8, 2)


@pytest.mark.parametrize("val_fraction", [0, 1, 20])
def test_a_fraction_that_leaves_one_side_empty_is_rejected(val_fraction):
    with pytest.raises(ValueError, match="0 < val_fraction < 1"):
        stratified_split(np.ones((4, 1)), val_fraction=val_fraction)
