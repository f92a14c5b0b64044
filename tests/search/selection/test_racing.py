import numpy as np

from search.selection.racing import losers

RIGHT = np.random.default_rng(0).random((3, 5, 60))  # of three configurations, in five folds of 60 images


def scores_of(means):
    """Shares of right answers, by the numbers of folds that each has been trained on."""
    right = {name: RIGHT[i] < mean for i, (name, mean) in enumerate(means.items())}

    def scores(name, folds):
        if folds > known[name]:
            return None
        answers = right[name][:folds].ravel()
        return (lambda rows: float(answers[rows].mean())), len(answers)

    known = dict.fromkeys(means, 5)
    return scores, known


def test_what_is_clearly_worse_is_dropped_after_two_folds():
    scores, _ = scores_of({"a": 0.8, "b": 0.5, "c": 0.79})
    assert losers(["a", "b", "c"], 5, scores) == {"b": 2}


def test_a_smaller_difference_takes_more_folds():
    scores, _ = scores_of({"a": 0.8, "b": 0.695, "c": 0.79})
    assert losers(["a", "b", "c"], 5, scores) == {"b": 4}


def test_decisions_wait_for_complete_folds_and_stay():
    scores, known = scores_of({"a": 0.8, "b": 0.5, "c": 0.79})
    known["c"] = 1
    assert losers(["a", "b", "c"], 5, scores) == {}
    known["c"] = 2
    assert losers(["a", "b", "c"], 5, scores) == {"b": 2}
    known["b"] = 2  # its later folds are not needed any more
    known["c"] = 5
    assert losers(["a", "b", "c"], 5, scores) == {"b": 2}
