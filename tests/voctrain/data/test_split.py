import numpy as np
import pytest

from voctrain.data.split import stratified_folds, stratified_split


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


def test_the_parts_of_voc_are_those_of_earlier_versions():
    """Run folders and published scores depend on them."""
    frequencies = np.array([22, 18, 22, 17, 23, 19, 28, 65, 37, 44, 24, 59, 52, 21, 151, 23, 31, 24, 18, 26]) / 472
    labels = np.random.default_rng(1).random((472, 20)) < frequencies
    _, val = stratified_split(labels)
    assert (len(val), val[:6].tolist(), int(val.sum())) == (94, [6, 9, 10, 12, 16, 23], 22203)


@pytest.mark.parametrize("labels", [[[1], [1]], [[1], [0]], [[0], [0]], [[1, 0], [0, 1]], [[1, 1], [1, 0]]])
def test_two_images_are_one_on_each_side(labels):
    train, val = stratified_split(np.array(labels))
    assert (len(train), len(val)) == (1, 1)


def test_what_is_moved_to_an_empty_side_has_a_class_that_the_other_keeps():
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
    train, val = stratified_split(labels, val_fraction=0.05)
    assert (train.tolist(), val.tolist()) == ([1, 2, 3], [0])


@pytest.mark.parametrize("classes", [1, 7, 200])
def test_groups_stay_together(classes):
    """Videos of 1 to 30 frames, which look alike."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 31, 90)
    groups = np.repeat([f"video {i}" for i in range(90)], lengths)
    labels = np.repeat(rng.random((90, classes)) < 0.2, lengths, axis=0)
    order = rng.permutation(len(groups))
    groups, labels = groups[order], labels[order]
    train, val = stratified_split(labels, groups=groups)
    assert sorted([*train, *val]) == list(range(len(groups)))
    assert not set(groups[train]) & set(groups[val])
    assert len(val) / len(groups) == pytest.approx(0.2, abs=0.04)
    share = labels[val].sum(0) / labels.sum(0)
    assert np.abs(share - 0.2).mean() < 0.08
    folds = stratified_folds(labels, 4, groups=groups)
    assert sorted(np.concatenate(folds)) == list(range(len(groups)))
    for fold in folds:
        assert not set(groups[fold]) & set(np.delete(groups, fold))
        assert len(fold) / len(groups) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("sizes", [(50, 50), (50, 40, 10), (1, 99), (30, 30, 30, 10)])
def test_large_groups_leave_both_sides_something(sizes):
    groups = np.repeat(np.arange(len(sizes)).astype(str), sizes)
    train, val = stratified_split(np.ones((len(groups), 1)), groups=groups)
    assert len(train) >= len(val) > 0
    assert not set(groups[train]) & set(groups[val])


def test_single_images_as_groups_change_nothing():
    labels = np.random.default_rng(3).random((80, 6)) < 0.3
    alone = stratified_split(labels, seed=4)
    grouped = stratified_split(labels, seed=4, groups=[f"{i:03}" for i in range(80)])
    assert all(np.array_equal(a, b) for a, b in zip(alone, grouped, strict=True))


def test_folds_have_equal_shares_of_each_class():
    labels = np.random.default_rng(5).random((300, 12)) < 0.1
    folds = stratified_folds(labels, 5)
    assert sorted(np.concatenate(folds)) == list(range(300))
    assert {len(fold) for fold in folds} <= {59, 60, 61}
    assert max(np.abs(labels[fold].sum(0) - labels.sum(0) / 5).max() for fold in folds) <= 2
    assert [len(fold) for fold in stratified_folds(np.ones((3, 1)), 3)] == [1, 1, 1]


def test_fewer_groups_than_parts_are_rejected():
    with pytest.raises(ValueError, match="3 parts need as many images, or groups of images, but there are 2"):
        stratified_folds(np.ones((4, 1)), 3, groups=["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="2 parts need"):
        stratified_split(np.ones((4, 1)), groups=["a"] * 4)
