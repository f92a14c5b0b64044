import numpy as np
import pytest
import torch

from voctrain.classify import train
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.data.class_names import VOID
from voctrain.data.sample import make_sample
from voctrain.self_training import (
    CONFIDENCES,
    Unlabeled,
    believed_maps,
    least_confidence,
    mean_probabilities,
    read_unlabeled,
    unlabeled_of,
    with_pseudo_labels,
)


@pytest.fixture
def data(draw_data):
    return draw_data()


@pytest.fixture
def unlabeled():
    images = np.random.default_rng(1).integers(0, 255, (5, 32, 32, 3)).astype(np.uint8)
    return Unlabeled(tuple("abcde"), images, None, np.full((5, 2), 40, np.int32))


def test_unlabeled_images_are_added_to_the_training_part(data, unlabeled):
    count, more = len(data.ids), len(unlabeled.ids)
    soft = np.full((more, len(data.classes)), 0.3, np.float32)
    found = with_pseudo_labels(data, unlabeled, (soft > 0.5).astype(np.uint8), soft=soft)
    assert found.train.tolist() == [*data.train, *range(count, count + more)]
    assert found.val.tolist() == data.val.tolist()
    assert len(found.ids) == len(set(found.ids)) == len(found.images) == len(found.labels) == count + more
    assert (found.images[count:] == unlabeled.images).all()
    assert (found.masks[count:] == VOID).all()
    assert (found.soft_labels[:count] == data.labels).all()
    assert (found.soft_labels[count:] == soft).all()


def test_a_classifier_is_trained_on_soft_labels(data, unlabeled):
    config = ClassifyConfig(architecture="simple", image_size=32, epochs=1, lr=0.0, hflip=0.0)
    labels = np.zeros((len(unlabeled.ids), len(data.classes)), np.uint8)
    losses = []
    for share in (0.0, 0.3):
        soft = np.full(labels.shape, share, np.float32)
        [epoch] = train(config, with_pseudo_labels(data, unlabeled, labels, soft=soft))
        losses.append(epoch.metrics["train_loss"])
        assert set(np.unique(epoch.predictions["y_true"])) <= {0, 1}
    assert losses[0] != losses[1]


def test_a_class_is_believed_from_the_confidence_on_at_which_it_is_right():
    """By hand: class 0 is always right; class 1 is right at 0.9 and wrong at 0.6; class 2 is never right."""
    probabilities = torch.tensor([[0.6, 0.3, 0.05, 0.2], [0.3, 0.6, 0.9, 0.2], [0.1, 0.1, 0.05, 0.6]]).view(3, 2, 2)
    truth = np.array([[0, 0], [1, 0]], np.uint8)
    least = least_confidence([probabilities], [truth], 3)
    assert least[0] == pytest.approx(CONFIDENCES[0])
    assert 0.6 < least[1] <= 0.9
    assert least[2] == pytest.approx(CONFIDENCES[-1])
    [found] = believed_maps([probabilities], least, 2)
    assert found.tolist() == [[0, VOID], [1, VOID]]
    [large] = believed_maps([probabilities], least, 4)
    assert large.shape == (4, 4)
    truth[0, 1] = VOID  # does not count against class 1
    assert least_confidence([probabilities], [truth], 3)[1] == pytest.approx(CONFIDENCES[0])


def test_probabilities_are_averaged_over_models():
    first, second = torch.zeros(2, 1, 1), torch.tensor([0.0, np.log(3.0)]).view(2, 1, 1)
    [found] = mean_probabilities([iter([first]), iter([second])])
    assert found.flatten().tolist() == pytest.approx([0.375, 0.625])


def test_images_of_a_folder_are_read_at_both_sizes(data, tmp_path):
    from PIL import Image

    (tmp_path / "more").mkdir()
    for name, size in (("more/b.png", (40, 20)), ("a.jpg", (20, 40))):
        Image.new("RGB", size, (200, 0, 0)).save(tmp_path / name)
    seen = []
    found = read_unlabeled(tmp_path, data, lambda *progress: seen.append(progress))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (found.ids, found.sizes.tolist()) == (("a", "more/b"), [[40, 20], [20, 40]])
    assert found.images.shape == (2, *data.images.shape[1:])
    assert found.detail is None
    with pytest.raises(ValueError, match="no images in"):
        read_unlabeled(tmp_path / "more" / "nothing", data)


def test_unlabeled_images_of_a_set_have_its_detail(cache, tmp_path):
    make_sample(tmp_path / "set", num_labeled=20, num_unlabeled=4, max_size=40)
    data = load(tmp_path / "set", image_size=32, store_size=48)
    found = unlabeled_of(data)
    assert found.ids == data.test_ids
    assert (found.images == data.test_images).all()
    assert found.detail.shape == (len(data.test_ids), 48, 48, 3)
