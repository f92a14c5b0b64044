import dataclasses
import functools
import io

import numpy as np
import pytest
import torch

from voctrain import segment
from voctrain.config import ClassifyConfig, SegmentConfig
from voctrain.data.class_names import VOID
from voctrain.metrics.segmentation import mask_metrics, score_maps
from voctrain.models import build_segmenter

TINY = {
    **{"architecture": "unet", "width": 4, "depth": 2, "image_size": 32, "batch_size": 4, "epochs": 1},
    **{"precision": "float32", "lr": 0.01},
}
EVERYTHING = {
    **{"vflip": 0.5, "rotation": 30, "zoom": 0.2, "perspective": 0.2, "crop_scale": 0.5, "crop_focus": 0.5},
    **{"hue": 0.1, "copy_paste": 0.5, "sampling": "weighted", "ema_memory": 0.9, "class_balance": 0.5},
}
# For each field of segmentation alone: other fields that it needs to matter, and a second value.
EFFECTS = {
    "architecture": ({"width": 8, "depth": None}, "fpn_complex"),
    "width": ({}, 8),
    "depth": ({}, 3),
    "weights": ({}, "FILE"),
    "class_balance": ({}, 0.5),
    "pos_weight": ({"loss": "bce"}, 100.0),
    "aux_weight": ({"architecture": "fcn_resnet50", "width": None, "depth": None}, 0.0),
    "head_init": ({"architecture": "linear/test_resnet", "width": None, "depth": None}, "probe"),
    "crop_focus": ({"crop_scale": 0.3}, 1.0),
    "copy_paste": ({}, 1.0),
    "aug_repeats": ({}, 2),
    "sampling": ({}, "oversample"),
}


def config(**options):
    return SegmentConfig(**(TINY | options))


def trained(data, **options):
    """The epochs of a training and copies of its last weights."""
    epochs, weights = [], {}
    for epoch in segment.train(config(**options), data):
        epochs.append(epoch)
        weights = {name: tensor.clone() for name, tensor in epoch.weights.items()}
    return epochs, weights


@pytest.fixture(scope="module")
def losses(draw_data, tmp_path_factory):
    """A function from options to the training loss of the first epoch."""
    data, path = draw_data(), str(tmp_path_factory.mktemp("weights") / "weights.pt")
    torch.manual_seed(5)
    torch.save(build_segmenter("unet", num_classes=4, width=4, depth=2).state_dict(), path)

    @functools.cache
    def run(options):
        return next(segment.train(options, data)).metrics["train_loss"]

    return lambda **options: run(config(**{k: path if v == "FILE" else v for k, v in options.items()}))


def test_every_own_field_is_covered():
    own = SegmentConfig.__dataclass_fields__.keys() - ClassifyConfig.__dataclass_fields__.keys()
    assert own <= EFFECTS.keys()


@pytest.mark.parametrize("name", EFFECTS)
def test_every_field_has_an_effect(losses, name):
    others, value = EFFECTS[name]
    before = others if name != "architecture" else {}
    assert losses(**before) != losses(**(others | {name: value}))


def test_losses_differ_from_each_other(losses):
    names = SegmentConfig.__dataclass_fields__["loss"].metadata["choices"]
    assert len({losses(loss=name) for name in names}) == len(names)


def test_fields_without_an_effect_raise():
    for wrong in ({"pos_weight": 2.0}, {"aux_weight": 0.4}, {"crop_focus": 0.5}, {"architecture": "fpn_resnet9"}):
        with pytest.raises(ValueError, match="requires"):
            config(**wrong)
    with pytest.raises(ValueError, match="class_balance requires loss"):
        config(loss="dice", class_balance=0.5)


def test_unknown_class_raises(draw_data):
    wrong = config(sampling="copies", copies_except="zebra")
    with pytest.raises(ValueError, match="copies_except must be one of cat, dog, person, but got 'zebra'"):
        segment.check(wrong, draw_data())


def test_score_is_computed_from_predictions(draw_data):
    data = draw_data()
    (epoch,), weights = trained(data)
    assert epoch.predictions["ids"].tolist() == [data.ids[i] for i in data.val]
    assert epoch.predictions["confusion"].shape == (8, 4, 4)
    metrics = mask_metrics(epoch.predictions["confusion"]) | {"val_dice": epoch.predictions["dice"].mean()}
    assert {name: epoch.metrics[name] for name in metrics} == pytest.approx(metrics)
    # A restored model predicts the same.
    file = io.BytesIO()
    torch.save(segment.checkpoint(config(), data, weights, epoch.metrics), file)
    file.seek(0)
    model, restored = segment.restore(torch.load(file, weights_only=True))
    assert restored == config()
    maps = segment.predict(model, data.images[data.val], restored)
    _, predictions = score_maps(data.masks[data.val], maps, 4)
    assert np.array_equal(predictions["confusion"], epoch.predictions["confusion"])


def test_resumed_equals_uninterrupted(draw_data):
    data, options = draw_data(), EVERYTHING | {"epochs": 3, "schedule": "plateau", "plateau_patience": 0}
    epochs, weights = trained(data, **options)
    state = None
    for _ in range(3):
        file = io.BytesIO()
        epoch = next(segment.train(config(**options), data, resume=state))
        torch.save(epoch.state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    assert epoch.metrics == epochs[-1].metrics
    assert all(torch.equal(tensor, weights[name]) for name, tensor in epoch.weights.items())


def test_training_overfits_a_batch(draw_data):
    data = draw_data()
    data = dataclasses.replace(data, train=data.train[:4], val=data.train[:4])
    epochs, _ = trained(data, width=8, epochs=120, hflip=0.0)
    assert epochs[-1].metrics["train_mIoU"] > 0.9


GOLDEN = [  # train_loss, val_loss, val_mIoU
    [2.09520, 1.24407, 0.01953],
    [1.74017, 1.17341, 0.22473],
    [1.63325, 1.12945, 0.30343],
]


def test_golden_curve(draw_data):
    options = {"epochs": 3, "rotation": 10.0, "brightness": 0.2, "loss": "cross_entropy+lovasz", "copy_paste": 0.3}
    epochs, _ = trained(draw_data(train=24, val=24), **options)
    curve = [[e.metrics[name] for name in ("train_loss", "val_loss", "val_mIoU")] for e in epochs]
    assert np.allclose(curve, GOLDEN, rtol=0, atol=1e-3), curve


def test_class_only_in_validation_is_scored(draw_data):
    data = draw_data()
    masks = np.where(data.masks == 1, VOID, data.masks)
    masks[data.val] = data.masks[data.val]
    labels = data.labels.copy()
    labels[data.train, 0] = 0
    options = {"class_balance": 1.0, "crop_scale": 0.5, "crop_focus": 1.0, "copy_paste": 1.0, "sampling": "weighted"}
    (epoch,), _ = trained(dataclasses.replace(data, masks=masks, labels=labels), **options)
    assert np.isfinite(epoch.metrics["train_loss"])
    assert epoch.predictions["confusion"].sum(0)[1].sum() > 0


def test_void_is_ignored_in_training_and_evaluation(draw_data):
    data = draw_data()
    masks = data.masks.copy()
    masks[data.val[0]] = VOID
    masks[data.train[0]] = VOID
    (epoch,), _ = trained(dataclasses.replace(data, masks=masks))
    assert np.isfinite(epoch.metrics["train_loss"])
    assert epoch.predictions["ids"].tolist() == [data.ids[i] for i in data.val[1:]]
    assert epoch.predictions["confusion"].sum((1, 2)).tolist() == [32 * 32] * 7
    without = dataclasses.replace(data, train=data.train[1:], val=data.val[1:])
    assert trained(without)[0][0].metrics == epoch.metrics


def test_wrong_image_size_or_missing_color_raises(draw_data):
    data = draw_data()
    with pytest.raises(ValueError, match="image_size=64 must be the size of the data, which were loaded at 32"):
        segment.check(config(image_size=64), data)
    gray = dataclasses.replace(data, images=data.images[..., :1])
    segment.check(config(contrast=0.2), gray)
    with pytest.raises(ValueError, match="hue needs color images, but these have one channel"):
        segment.check(config(hue=0.2), gray)


def test_data_without_masks_raise(draw_data):
    data = draw_data()
    with pytest.raises(ValueError, match="segmentation requires masks, but these data have none"):
        next(segment.train(config(), dataclasses.replace(data, masks=None)))
    void = dataclasses.replace(data, masks=np.full_like(data.masks, VOID))
    with pytest.raises(ValueError, match="entirely void"):
        next(segment.train(config(), void))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_segmenter("unet", num_classes=4, width=4, depth=2).eval()


def test_maps_are_predicted_at_the_original_sizes(model):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    sizes = np.array([(1, 1), (50, 37), (32, 32)], np.int32)
    maps = list(segment.predict(model, images, config(), sizes=sizes))
    assert [m.shape for m in maps] == [tuple(size) for size in sizes]
    assert all(m.dtype == np.uint8 for m in maps)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    up = torch.nn.functional.interpolate(logits[1:2], (50, 37), mode="bilinear", align_corners=False)
    assert np.array_equal(maps[1], up[0].argmax(0).numpy())
    assert np.array_equal(maps[2], logits[2].argmax(0).numpy())


def test_maps_of_padded_and_cropped_images_lie_where_the_images_were(model):
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)

    def predicted(size, resize):
        (label_map,) = segment.predict(model, images, config(), sizes=np.array([size]), resize=resize)
        return label_map

    assert np.array_equal(predicted((20, 50), "pad"), predicted((50, 50), "squash")[15:35])
    assert np.array_equal(predicted((51, 20), "pad"), predicted((51, 51), "squash")[:, 15:35])  # 16 columns right of it
    cropped = predicted((20, 50), "crop")
    assert np.array_equal(cropped[:, 15:35], predicted((20, 20), "squash"))
    assert cropped.shape == (20, 50)
    assert not cropped[:, :15].any()
    assert not cropped[:, 35:].any()
    for resize in ("pad", "crop"):
        assert np.array_equal(predicted((40, 40), resize), predicted((40, 40), "squash"))


def test_flips_and_scales_are_averaged(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    both = np.stack([images, images[:, :, ::-1]], 1).reshape(4, 32, 32, 3)
    maps = np.stack(list(segment.predict(model, both, config(), flip=True)))
    assert np.array_equal(maps[0], maps[1][:, ::-1])  # the same for an image and its mirror image
    scaled = list(segment.predict(model, images, config(), scales=(0.5, 1.0, 1.5)))
    assert [m.shape for m in scaled] == [(32, 32)] * 2


def test_each_image_has_its_own_prior(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    prior = np.array([[0, 0, 0, 100.0], [0, 100.0, 0, 0]])
    maps = list(segment.predict(model, images, config(), log_prior=prior))
    assert set(maps[0].ravel()) == {3}
    assert set(maps[1].ravel()) == {1}


def test_large_image_never_needs_full_size_logits(model):
    images = np.zeros((1, 32, 32, 3), np.uint8)
    sizes = np.array([(3000, 4000)], np.int32)
    assert next(segment.predict(model, images, config(), sizes=sizes)).shape == (3000, 4000)
