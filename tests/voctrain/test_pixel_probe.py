import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from voctrain import classify, pixel_probe
from voctrain.config import ClassifyConfig, SegmentConfig
from voctrain.data.class_names import VOID
from voctrain.images import to_unit
from voctrain.metrics.segmentation import all_background
from voctrain.models import build_segmenter
from voctrain.models.linear_maps import cell_features
from voctrain.pixel_probe import fit_pixel_probe, set_pixel_probe, start_from_pixel_probe
from voctrain.segment import new_model, probe_metrics, train

LITE = {"architecture": "linear/tf_efficientnet_lite0", "weights": "imagenet", "precision": "float32"}
CPU = torch.device("cpu")


@pytest.fixture
def blocks(draw_data):
    """Images whose left or right half has the color of its class."""

    def make(size):
        data = draw_data(size=32)
        count = len(data.ids)
        images = np.full((count, size, size, 3), 128, np.uint8)
        masks = np.zeros((count, size, size), np.uint8)
        for i in range(count):
            half = slice(0, size // 2) if i % 2 else slice(size // 2, size)
            images[i, :, half] = np.eye(3, dtype=np.uint8)[i % 3] * 255
            masks[i, :, half] = 1 + i % 3
        return dataclasses.replace(data, images=images, masks=masks)

    return make


@pytest.mark.parametrize("classes", [[0, 1, 2, 4], [1, 4]])
def test_probe_equals_scikit_learns_regression(classes):
    rng = np.random.default_rng(0)
    rows, truth = rng.normal(size=(300, 5)).astype(np.float32), rng.choice(classes, 300)
    rows[:, 0] += truth
    probe = fit_pixel_probe(rows, truth, np.bincount(truth, minlength=6))
    expected = LogisticRegression(C=pixel_probe.STRENGTH, max_iter=100).fit(rows / rows.std(), truth)
    logits = torch.from_numpy(rows @ probe.weight.T + probe.bias)
    found = logits.softmax(1).numpy()
    np.testing.assert_allclose(found[:, classes], expected.predict_proba(rows / rows.std()), atol=0.01)
    others = sorted(set(range(6)) - set(classes))
    assert found[:, others].max() < 0.01


@pytest.mark.parametrize("size", [64, 72])
def test_features_of_imagenet_tell_colors_apart(size, blocks):
    """Images are padded to a multiple of 32 pixels, and the maps stay aligned with them."""
    data = blocks(size)
    with warnings.catch_warnings(action="error"):
        found = probe_metrics(SegmentConfig(**LITE, image_size=size), data)
    assert found["val_mIoU"] > 0.7
    assert found["val_mIoU"] > 2 * all_background((data.masks[i] for i in data.val), 4)["val_mIoU"]


def test_void_and_missing_classes_do_not_matter(blocks):
    data = blocks(64)
    masks = np.where(data.masks == 3, VOID, data.masks)
    found = probe_metrics(SegmentConfig(**LITE, image_size=64), dataclasses.replace(data, masks=masks))
    assert 0.7 < found["val_mIoU"] <= 1


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit", "test_convnext"])
def test_weights_may_be_a_file(encoder, blocks, tmp_path):
    data, name = blocks(40), f"linear/{encoder}"
    torch.save(build_segmenter(name, num_classes=4, image_size=40).state_dict(), tmp_path / "weights.pt")
    config = SegmentConfig(architecture=name, weights=str(tmp_path / "weights.pt"), image_size=40)
    assert 0 <= probe_metrics(config, data)["val_mIoU"] <= 1


def test_training_starts_from_the_probe(blocks):
    data = blocks(64)
    config = SegmentConfig(**LITE, image_size=64, head_init="probe", lr=0.0, freeze_norm=True, epochs=1)
    [epoch] = train(config, data)
    assert epoch.metrics["val_mIoU"] == pytest.approx(probe_metrics(config, data)["val_mIoU"])
    [random] = train(dataclasses.replace(config, head_init="random"), data)
    assert random.metrics["val_mIoU"] < epoch.metrics["val_mIoU"] - 0.2


def test_the_decoder_of_weights_stays(blocks, tmp_path):
    """A run that continues from a segmenter of the same classes keeps what that has learned."""
    data = blocks(64)
    config = SegmentConfig(architecture="linear/test_resnet", image_size=64, head_init="probe")
    torch.save(new_model(config, data).state_dict(), tmp_path / "w.pt")
    config = dataclasses.replace(config, weights=str(tmp_path / "w.pt"))
    model = new_model(config, data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from_pixel_probe(model, config, data, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_fit_is_kept(blocks, monkeypatch, cache):
    """The second training, with another seed, finds the probe of the first."""
    data, counter = blocks(64), itertools.count()
    config = SegmentConfig(**LITE, image_size=64, head_init="probe")

    def counted(*arrays):
        next(counter)
        return fit_pixel_probe(*arrays)

    monkeypatch.setattr(pixel_probe, "fit_pixel_probe", counted)
    heads = []
    for seed in (0, 1):
        model = new_model(dataclasses.replace(config, seed=seed), data)
        start_from_pixel_probe(model, config, data, CPU)
        heads.append([layer.weight.clone() for layer in model.net.heads])
    assert next(counter) == 1
    assert list(cache.glob("probes/*"))
    assert all(torch.equal(*pair) for pair in zip(*heads, strict=True))


def test_a_classifier_starts_from_both_probes(blocks):
    """The classes of places, from a probe of the masks, add to those of whole images. Void masks teach nothing."""
    data = blocks(64)
    masks = data.masks.copy()
    masks[data.train[:3]] = VOID
    masks[masks == 2] = VOID  # so that no training mask has this class
    data = dataclasses.replace(data, masks=masks)
    still = {"image_size": 64, "head_init": "probe", "lr": 0.0, "freeze_norm": True, "epochs": 1}
    config = ClassifyConfig(**LITE | still | {"architecture": "tf_efficientnet_lite0", "mask_pooling": True})
    [epoch] = classify.train(config, data)
    assert epoch.weights["mask_heads.located"].tolist() == [1, 0, 1]
    layer = epoch.weights["mask_heads.layers.0.weight"]
    model = classify.new_model(config, data)
    known = dataclasses.replace(data, train=data.train[3:])  # the others' masks are void
    set_pixel_probe(model, config, known, CPU)
    assert torch.equal(model.mask_heads.layers[0].weight, layer)
    [alone] = classify.train(dataclasses.replace(config, mask_pooling=False), data)
    assert np.array_equal(alone.predictions["y_prob"][:, 1], epoch.predictions["y_prob"][:, 1])
    assert not np.allclose(alone.predictions["y_prob"][:, 0], epoch.predictions["y_prob"][:, 0], atol=0.01)


def test_without_a_known_mask_only_the_classes_of_images_count(blocks):
    data = blocks(64)
    data = dataclasses.replace(data, masks=np.full_like(data.masks, VOID))
    config = ClassifyConfig(
        **LITE | {"architecture": "tf_efficientnet_lite0", "image_size": 64, "head_init": "probe", "lr": 0.0},
        **{"freeze_norm": True, "epochs": 1, "mask_loss": 1.0, "mask_pooling": True},
    )
    [epoch] = classify.train(config, data)
    [alone] = classify.train(dataclasses.replace(config, mask_pooling=False, mask_loss=0.0), data)
    np.testing.assert_allclose(epoch.predictions["y_prob"], alone.predictions["y_prob"], atol=1e-6)


def test_outputs_are_a_linear_map_of_the_features():
    model = build_segmenter("linear/test_resnet", num_classes=4, image_size=64).eval()
    images = to_unit(torch.randint(0, 255, (2, 64, 96, 3), dtype=torch.uint8))
    with torch.no_grad():
        prepared = model.prepared(images)
        features = cell_features(model.net.encoder(prepared), prepared)
        weight = torch.cat([layer.weight for layer in model.net.heads], 1)
        cells = torch.nn.functional.conv2d(features, weight, model.net.heads[-1].bias)
        expected = torch.nn.functional.interpolate(cells, (64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(images), expected)


def test_other_segmenters_have_no_probe():
    for name in ("unet", "fpn_resnet18", "fpn/test_resnet"):
        with pytest.raises(ValueError, match=r"head_init requires architecture=linear/\*"):
            SegmentConfig(architecture=name, head_init="probe")
