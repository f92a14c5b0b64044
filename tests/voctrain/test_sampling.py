import numpy as np
import pytest
import torch

from voctrain.config import ClassifyConfig
from voctrain.sampling import Pool, sampling_pool

CLASSES = ("cat", "dog", "person", "cow")
# Classes in 1, 2, 4 and 0 images: the median of those that occur is 2, inverse frequencies are 2, 1 and 1/2.
LABELS = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=np.uint8)


def pool(labels=LABELS, **options):
    return sampling_pool(labels, ClassifyConfig(**options), CLASSES)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"sampling": "shuffle"}, [1, 1, 1, 1, 1]),
        ({"sampling": "copies"}, [5, 5, 5, 5, 5]),
        ({"sampling": "copies", "extra_copies": 2, "copies_except": "dog"}, [3, 1, 1, 3, 3]),
        ({"sampling": "weighted"}, [0.5, (1 + 0.5) / 2, (2 + 1 + 0.5) / 3, 0.5, 1]),
        ({"sampling": "oversample"}, [1, 1, 2, 1, 1]),  # the rarest class: 1/2, 1, 2, 1/2, none
        ({"sampling": "undersample"}, [0.5, 1, 1, 0.5, 1]),
    ],
)
def test_weights_by_hand(options, weights):
    assert pool(**options).weights.tolist() == pytest.approx(weights)


def test_absent_class_changes_nothing():
    for sampling in ("weighted", "oversample", "undersample"):
        without = pool(LABELS[:, :3], sampling=sampling)
        assert torch.equal(without.weights, pool(sampling=sampling).weights)


def test_labels_are_not_modified():
    labels = LABELS.copy()
    labels.flags.writeable = False
    for sampling in ("shuffle", "copies", "weighted", "oversample", "undersample"):
        assert len(pool(labels, sampling=sampling).draw()) == 5


def test_shuffling_draws_every_image_once():
    torch.manual_seed(0)
    draws = [pool().draw().tolist() for _ in range(10)]
    assert all(sorted(draw) == [0, 1, 2, 3, 4] for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 1


def test_copies_are_drawn_without_replacement():
    torch.manual_seed(0)
    drawn = torch.stack([Pool(torch.tensor([1, 2, 1]), copies=True).draw() for _ in range(4000)])  # (4000, 3)
    counts = torch.stack([(drawn == i).sum(1) for i in range(3)])
    assert counts.amax(1).tolist() == [1, 2, 1]
    # Three of four copies are drawn, each with probability 3/4.
    assert (counts.sum(1) / len(drawn)).tolist() == pytest.approx([0.75, 1.5, 0.75], abs=0.03)


def test_drawing_probabilities_match_weights():
    torch.manual_seed(0)
    drawn = torch.cat([Pool(torch.tensor([1.0, 2.0, 0.0, 5.0]), copies=False).draw() for _ in range(4000)])
    assert (drawn.bincount(minlength=4) / len(drawn)).tolist() == pytest.approx([1 / 8, 2 / 8, 0, 5 / 8], abs=0.02)


@pytest.mark.parametrize("sampling", ["shuffle", "copies", "weighted", "oversample", "undersample"])
def test_epoch_draws_as_many_images_as_there_are_by_seed_alone(sampling):
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(pool(np.tile(LABELS, (8, 1)), sampling=sampling).draw().tolist())
    assert [len(d) for d in drawn] == [40] * 3
    assert drawn[0] == drawn[1] != drawn[2]
