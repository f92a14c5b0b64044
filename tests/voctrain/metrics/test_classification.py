import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as reference

from voctrain.metrics.classification import (
    average_precision,
    classify_metrics,
    classify_report,
    co_confusion,
    decide,
    random_baseline,
    row_dice,
)


def by_scikit_learn(y_true, y_prob):
    y_true, y_pred = y_true.astype(int), (y_prob >= 0.5).astype(int)
    present = np.flatnonzero(y_true.any(0))
    some = len(present) > 0
    weighted = {"average": "weighted", "zero_division": 0}
    fallback = y_pred.copy()
    for i in np.flatnonzero(~y_pred.any(1)) if y_true.any(1).all() else ():
        fallback[i, y_prob[i].argmax()] = 1
    return {
        "accuracy": reference.accuracy_score(y_true.ravel(), y_pred.ravel()),
        "precision": reference.precision_score(y_true, y_pred, **weighted),
        "recall": reference.recall_score(y_true, y_pred, **weighted),
        "f1": reference.f1_score(y_true, y_pred, **weighted),
        "f1_macro": reference.f1_score(y_true, y_pred, labels=present, average="macro", zero_division=0) if some else 0,
        "mAP": reference.average_precision_score(y_true[:, present], y_prob[:, present]) if some else 0,
        "dice": reference.f1_score(y_true, fallback, average="samples", zero_division=1),
    }


@st.composite
def cases(draw):
    shape = (draw(st.integers(2, 12)), draw(st.integers(2, 6)))
    coarse = st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])  # many ties, and probabilities at the threshold
    fine = st.floats(0, 1, width=32)
    return draw(arrays(np.uint8, shape, elements=st.integers(0, 1))), draw(
        arrays(np.float32, shape, elements=draw(st.sampled_from([coarse, fine])).map(np.float32))
    )


@settings(deadline=None, max_examples=60)
@given(cases())
def test_metrics_equal_scikit_learn(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = by_scikit_learn(*case)
    assert classify_metrics(*case, prefix="") == pytest.approx(expected, abs=1e-9)


def test_metrics_equal_scikit_learn_on_a_whole_validation_set():
    rng = np.random.default_rng(0)
    y_true = (rng.random((95, 20)) < 0.08).astype(np.uint8)
    y_true[:, 7] = 0  # an absent class
    y_prob = np.round(rng.random((95, 20)), 2).astype(np.float32)  # ties
    y_prob[:10] /= 3  # images without a decision
    expected = by_scikit_learn(y_true, y_prob)
    assert classify_metrics(y_true, y_prob) == pytest.approx({f"val_{k}": v for k, v in expected.items()})


def test_metrics_by_hand():
    y_true = np.array([[1, 0], [1, 1], [0, 0]])
    y_prob = np.array([[0.9, 0.1], [0.2, 0.4], [0.8, 0.3]])
    assert classify_metrics(y_true, y_prob, prefix="") == pytest.approx(
        {
            "accuracy": 3 / 6,  # three errors: both labels of the second image, the first of the third
            "precision": (2 * 1 / 2 + 1 * 0) / 3,
            "recall": (2 * 1 / 2 + 1 * 0) / 3,
            "f1": (2 * 1 / 2 + 1 * 0) / 3,
            "f1_macro": 1 / 4,
            "mAP": ((1 / 2 * 1 + 1 / 2 * 2 / 3) + 1) / 2,
            "dice": (1 + 0 + 0) / 3,  # the second image gets no class, as the third has none
        }
    )


def test_an_image_without_a_decision_gets_its_most_probable_class_where_all_images_have_one():
    y_true, y_prob = np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.1], [0.2, 0.4]])
    assert classify_metrics(y_true, y_prob, prefix="")["dice"] == pytest.approx((1 + 2 / 3) / 2)


def test_a_single_class_is_reported_like_several():
    found = classify_report(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.1]]), 0.5, ["defect"])
    assert found["multilabel_confusion"] == [[[0, 1], [1, 1]]]
    assert (found["report"]["defect"]["precision"], found["report"]["defect"]["support"]) == (0.5, 2)


def test_without_labels_no_class_is_right_and_all_other_scores_are_zero_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = classify_metrics(np.zeros((3, 2), int), np.zeros((3, 2)), prefix="train_")
    assert (metrics.pop("train_accuracy"), metrics.pop("train_dice")) == (1, 1)
    assert metrics == dict.fromkeys(("train_" + n for n in ("precision", "recall", "f1", "f1_macro", "mAP")), 0)


def test_equal_scores_are_ranked_together():
    y_true = np.array([[1], [0], [0], [0]])
    assert average_precision(y_true, np.full((4, 1), 0.3)) == pytest.approx([1 / 4])  # not 1, whatever the order


def test_decide_falls_back_to_the_most_probable_class():
    y_prob = np.array([[0.3, 0.2], [0.5, 0.5], [0.1, 0.4]])
    assert decide(y_prob, 0.5).tolist() == [[True, False], [True, True], [False, True]]
    # the most probable class, although another is closer to its threshold
    assert decide(y_prob, np.array([0.9, 0.25])).tolist() == [[True, False], [False, True], [False, True]]
    assert y_prob[0].tolist() == [0.3, 0.2]


def test_row_dice():
    y_true = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.uint8)
    assert row_dice(y_true, np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])).tolist() == pytest.approx([2 / 3, 0, 1])


def test_random_baseline_scores_match_frequencies():
    rng = np.random.default_rng(1)
    labels = (rng.random((400, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(np.uint8)
    scores = random_baseline(labels, labels, seed=3)
    frequency = labels.mean(0)
    assert scores["val_accuracy"] == pytest.approx((frequency**2 + (1 - frequency) ** 2).mean(), abs=0.02)
    assert scores["val_mAP"] == pytest.approx(frequency[:3].mean(), abs=0.02)
    assert scores["val_recall"] == pytest.approx(frequency @ frequency / frequency.sum(), abs=0.02)
    assert scores == random_baseline(labels, labels, seed=3)
    assert scores != random_baseline(labels, labels, seed=4)


def test_random_baseline_falls_back_to_the_most_common_class():
    train = np.array([[0, 1]] + [[0, 0]] * 999)
    assert random_baseline(train, np.array([[0, 1]] * 5), seed=0)["val_dice"] == 1
    assert random_baseline(train, np.array([[1, 0]] * 5), seed=0)["val_dice"] == 0


def test_co_confusion_counts_images():
    y_true = np.array([[1, 1, 0], [1, 0, 0]], dtype=np.uint8)
    y_pred = np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)
    assert co_confusion(y_true, y_pred).tolist() == [[1, 0, 2], [1, 0, 1], [0, 0, 0]]
    many = np.ones((300, 2), dtype=np.uint8)
    assert co_confusion(many, many).tolist() == [[300, 300], [300, 300]]  # no overflow in 8 bits


def test_report_is_plain_and_uses_thresholds():
    y_true = np.array([[1, 0], [1, 1], [0, 1]])
    y_prob = np.array([[0.3, 0.2], [0.1, 0.4], [0.8, 0.3]], dtype=np.float32)
    report = classify_report(y_true, y_prob, np.array([0.25, 0.25]), ("cat", "dog"))
    assert json.loads(json.dumps(report)) == report
    assert report["multilabel_confusion"] == [[[0, 1], [1, 1]], [[1, 0], [0, 2]]]
    assert report["co_confusion"] == [[1, 1], [1, 2]]
    assert report["report"]["cat"] == {"precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 2.0}
    assert report["report"]["dog"]["f1-score"] == 1
    assert report["averages"]["macro avg"]["recall"] == 0.75


def test_a_class_may_be_named_like_an_average_or_a_number():
    y_true = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    names = ("accuracy", "macro avg", "0")
    report = classify_report(y_true, y_true / 2, 0.25, names)
    assert list(report["report"]) == list(names)
    assert [row["support"] for row in report["report"].values()] == [2, 2, 1]
    assert report["averages"]["macro avg"]["support"] == 5
