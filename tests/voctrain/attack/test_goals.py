import numpy as np
import pytest
import torch

from voctrain.attack.goals import Goal, goal_losses, goal_metrics, parse_goal, shortfall

CLASSES = ("cat", "dog", "person")
TRUE = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
BEFORE = np.array([[0.9, 0.1, 0.1], [0.8, 0.7, 0.2], [0.1, 0.6, 0.1], [0.2, 0.1, 0.4]])
AFTER = np.array([[0.3, 0.1, 0.1], [0.8, 0.2, 0.6], [0.1, 0.6, 0.1], [0.2, 0.1, 0.4]])


def measured(goal):
    return goal_metrics(goal, TRUE, (BEFORE, AFTER), (BEFORE >= 0.5, AFTER >= 0.5))


def test_parse_goal():
    assert parse_goal("fake", CLASSES) == Goal("fake")
    assert parse_goal("hide:dog", CLASSES) == parse_goal("hide: Dog", CLASSES) == Goal("hide", 1)
    for wrong in ("hide", "hide:cow", "add:", "fool", "fake:dog", "privacy:dog"):
        with pytest.raises(ValueError, match="but got"):
            parse_goal(wrong, CLASSES)


def test_hiding_the_only_class_harms_no_other():
    one = np.array([[1.0], [1.0]])
    values = goal_metrics(Goal("hide", 0), one, (one * 0.9, one * [[0.2], [0.8]]), (one > 0, one * [[0], [1]] > 0))
    assert (values["score"], values["collateral"], values["delta"]) == (0.5, 0, 0)


def test_metrics_by_hand():
    values = measured(Goal("fake"))
    # Before: cat 2 of 2, dog 2 of 2, person none of 1. After: cat 1 of 2, dog 1 of 2, person 1 wrong of 1.
    assert values["clean_f1_macro"] == pytest.approx((1 + 1 + 0) / 3)
    assert values["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert values["clean_f1_micro"] == pytest.approx(8 / 9)
    assert values["f1_micro"] == pytest.approx(4 / 8)
    assert values["score"] == pytest.approx(2 / 3 - 4 / 9)
    assert values["flip_rate"] == pytest.approx(3 / 12)
    assert values["empty"] == pytest.approx(2 / 4)
    assert values["labels"] == pytest.approx(3 / 4)
    assert values["confidence"] == pytest.approx(np.abs(AFTER - 0.5).mean())
    # Dice of the decisions: none left; {cat, dog} and {cat, person}; unchanged; none before and after.
    assert values["agreement"] == pytest.approx((0 + 1 / 2 + 1 + 1) / 4)


def test_hide_and_add_metrics_by_hand():
    hidden = measured(Goal("hide", 1))  # dog was seen twice, and now once
    assert hidden["flip_rate"] == pytest.approx(1 / 2)
    assert hidden["collateral"] == pytest.approx(2 / 8)  # cat of the first, person of the second image
    assert hidden["delta"] == pytest.approx((0.6 + 0.4) / 8)
    assert hidden["score"] == pytest.approx(1 / 2 - 2 / 8)
    added = measured(Goal("add", 2))  # person was seen nowhere, and now once
    assert added["flip_rate"] == pytest.approx(1 / 4)
    assert added["collateral"] == pytest.approx(2 / 8)
    everywhere = goal_metrics(Goal("add", 0), TRUE, (TRUE, TRUE), (TRUE > 2, TRUE > -1))
    assert everywhere["flip_rate"] == 1
    never = goal_metrics(Goal("hide", 0), TRUE, (TRUE, TRUE), (TRUE > 2, TRUE > -1))
    assert never["flip_rate"] == 0  # it was seen nowhere


def test_shortfall():
    for kind in ("hide", "add"):
        assert shortfall(Goal(kind, 0), 0.05, 0.9, None) == 0
        assert shortfall(Goal(kind, 0), 0.08, 0.9, None) == pytest.approx(0.03)
    assert shortfall(Goal("privacy"), 0.5, 0.4, 0.5) == 0
    assert shortfall(Goal("privacy"), 0.0, 0.75, 0.5) == pytest.approx(0.5)
    assert shortfall(Goal("fake"), 0.5, 0.9, None) == 0


def test_losses_by_hand():
    logits, clean = torch.tensor([[0.0, 2.0, -1.0]]), torch.tensor([[1.0, -3.0, 0.5]])
    decided = torch.tensor([[1.0, 0.0, 1.0]])

    def cross_entropy(target):
        p = logits.sigmoid()
        return -(target * p.log() + (1 - target) * (1 - p).log())

    def loss(goal, fake_label=None):
        return goal_losses(goal, logits, clean, decided, fake_label)

    torch.testing.assert_close(loss(Goal("fake"), 0.25), cross_entropy(torch.full((1, 3), 0.25)).mean(1))
    torch.testing.assert_close(loss(Goal("invert")), cross_entropy(1 - decided).mean(1))
    kept = cross_entropy(clean.sigmoid())
    torch.testing.assert_close(loss(Goal("privacy")), kept.mean(1))
    # The target class has half the weight of the others.
    others = kept[:, [0, 2]].sum(1)
    torch.testing.assert_close(loss(Goal("hide", 1)), (cross_entropy(torch.zeros(1, 3))[:, 1] / 2 + others) / 3)
    torch.testing.assert_close(loss(Goal("add", 1)), (cross_entropy(torch.ones(1, 3))[:, 1] / 2 + others) / 3)
