import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from voctrain import features as module
from voctrain.classify import check, new_model, train
from voctrain.config import ClassifyConfig
from voctrain.data import load
from voctrain.features import features
from voctrain.metrics.classification import classify_metrics
from voctrain.models import build_classifier
from voctrain.probe import STRENGTHS, Probe, fit_probe, start_from_probe

CPU = torch.device("cpu")
GOLDEN = [[0.0977, 0.2437, 0.3090], [0.0723, 0.2396, 0.3470]]  # train_loss, val_loss and val_mAP of each epoch
LITE = {"architecture": "tf_efficientnet_lite0", "weights": "imagenet", "image_size": 64, "precision": "float32"}


@pytest.fixture(scope="module")
def sample():
    whole = load("sample", image_size=64)
    return dataclasses.replace(whole, train=whole.train[:96], val=whole.val[:48])


@pytest.fixture(scope="module")
def config():
    return ClassifyConfig(**LITE, head_init="probe", freeze_norm=True, lr=1e-5, epochs=1, batch_size=16)


def test_features_are_the_inputs_of_the_last_layer(sample, config):
    labeled, unlabeled = features(config, sample)
    assert labeled.shape == (2, len(sample.ids), 1280)
    assert unlabeled.shape == (2, len(sample.test_ids), 1280)
    net = new_model(config, sample).eval()
    images = torch.from_numpy(sample.images[:3].copy()).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        for view, seen in enumerate((images, images.flip(-1))):
            expected = net.net.forward_head(net.net.forward_features(net.normalized(seen)), pre_logits=True)
            np.testing.assert_allclose(labeled[view, :3], expected, rtol=1e-3, atol=1e-4)


def test_features_are_computed_once(sample, config, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(module, "build_classifier", lambda *a, **k: calls.append(k) or build_classifier(*a, **k))
    first, again = features(config, sample)[0], features(config, sample)[0]
    assert np.array_equal(first, again)
    assert len(calls) == 1
    # An image, another size, or other weights make them anew.
    features(config, dataclasses.replace(sample, fingerprint="another"))
    assert len(calls) == 2
    net = build_classifier("resnet18", num_classes=3, image_size=64).net
    file = tmp_path / "w.pt"
    own = dataclasses.replace(config, architecture="resnet18", weights=str(file))
    values = []
    for scale in (1.0, 2.0, 2.0):
        torch.save({key: tensor * scale for key, tensor in net.state_dict().items()}, file)
        values.append(features(own, sample)[0])
    assert len(calls) == 4
    assert not np.array_equal(values[0], values[1])
    assert np.array_equal(values[1], values[2])


def test_a_probe_is_scikit_learns():
    rng = np.random.default_rng(0)
    views, labels = rng.normal(size=(1, 60, 7)).astype(np.float32), rng.random((60, 3)) < 0.4
    views[0, :, 0] += labels[:, 1]
    probe = fit_probe(views, labels)
    assert probe.strength in STRENGTHS
    scale = views.std()
    for k in range(3):
        reference = LogisticRegression(C=probe.strength, max_iter=1000).fit(views[0] / scale, labels[:, k])
        expected = reference.predict_proba(views[0] / scale)[:, 1]
        np.testing.assert_allclose(probe.probabilities(views)[:, k], expected, atol=1e-4)


def test_a_class_of_one_kind_of_label_gets_its_frequency():
    probe = fit_probe(np.ones((2, 9, 4), np.float32), np.array([[0, 1]] * 9))
    np.testing.assert_allclose(probe.probabilities(np.zeros((1, 1, 4))), [[0.05, 0.95]], rtol=1e-5)


def test_probabilities_are_averaged_over_views():
    probe = Probe(np.array([[1.0]], np.float32), np.zeros(1, np.float32), 1.0)
    logits = np.array([[[0.0]], [[2.0]]])
    np.testing.assert_allclose(probe.probabilities(logits), [[(0.5 + 1 / (1 + np.exp(-2))) / 2]])


def test_training_starts_at_the_probe(sample, config):
    """Without a step the classifier answers as the probe does; after an epoch of small steps, about as well."""
    views, _ = features(config, sample)
    probe = fit_probe(views[:, sample.train], sample.labels[sample.train])
    model = new_model(config, sample).eval()
    start_from_probe(model, config, sample, CPU)
    images = torch.from_numpy(sample.images[sample.val].copy()).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        np.testing.assert_allclose(model(images).sigmoid(), probe.probabilities(views[:1, sample.val]), atol=1e-4)
    score = classify_metrics(sample.labels[sample.val], probe.probabilities(views[:1, sample.val]))["val_mAP"]
    epoch = next(train(config, sample))
    assert epoch.metrics["val_mAP"] >= score - 0.03
    assert score > 0.2


def test_golden_curve(sample):
    options = {"epochs": 2, "lr": 3e-4, "layer_decay": 0.8, "crop_scale": 0.6, "batch_size": 16}
    epochs = train(ClassifyConfig(**LITE, head_init="probe", freeze_norm=True, **options), sample)
    curve = [[epoch.metrics[name] for name in ("train_loss", "val_loss", "val_mAP")] for epoch in epochs]
    assert np.allclose(curve, GOLDEN, rtol=0, atol=2e-3), curve


def test_what_has_no_probe_is_named(sample, config):
    with pytest.raises(ValueError, match="head_init=probe requires pretrained weights"):
        check(dataclasses.replace(config, weights="none"), sample)
    with pytest.raises(ValueError, match="a probe requires a network with a linear last layer, but it ends in Conv2d"):
        features(dataclasses.replace(config, architecture="squeezenet1_1", weights="none"), sample)
