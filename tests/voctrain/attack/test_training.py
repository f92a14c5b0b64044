import dataclasses
import io

import numpy as np
import pytest
import torch

from voctrain import attack
from voctrain.attack.victim import load_victim
from voctrain.attack.visibility import ssim
from voctrain.config import AttackConfig, TrainConfig
from voctrain.images import to_unit

SEEN = {"architecture": "mnist_adversarial", "scale": 0.5}  # perturbs from the first step
# For each field of this task alone: other fields that it needs to matter, and a second value.
EFFECTS = {
    "victim": ({}, "OTHER"),
    "goal": ({}, "hide:dog"),
    "min_ssim": (SEEN | {"ssim_penalty": 10.0}, 0.99),
    "max_ssim": ({"goal": "privacy"}, 0.1),
    "architecture": ({}, "universal"),
    "activation": ({}, "gelu"),
    "middle": ({"architecture": "mnist_adversarial"}, True),
    "width": ({}, 8),
    "contrast_masking": (SEEN, 0.5),
    "scale": ({}, 0.2),
    "fake_label": ({}, 1.0),
    "l2_penalty": ({}, 0.1),
    "ssim_penalty": (SEEN | {"min_ssim": 0.99}, 10.0),
}


def test_every_own_field_is_covered():
    assert AttackConfig.__dataclass_fields__.keys() - TrainConfig.__dataclass_fields__.keys() == EFFECTS.keys()


@pytest.mark.parametrize("name", EFFECTS)
def test_every_field_has_an_effect(draw_data, config, name):
    others, value = EFFECTS[name]
    first, second = (next(attack.train(config(**o), draw_data())).metrics for o in (others, others | {name: value}))
    assert first["train_loss"] != second["train_loss"]


@pytest.mark.parametrize("architecture", ["residual", "guided"])
def test_generator_learns_to_fool_the_victim(trained, architecture, draw_data, config):
    data = draw_data()
    epochs, _ = trained(config(architecture=architecture, epochs=40, scale=0.5, min_ssim=0.3), data)
    assert epochs[-1].metrics["train_loss"] < 0.7 * epochs[0].metrics["train_loss"]
    clean, attacked = (epochs[-1].predictions[name].mean() for name in ("prob_clean", "prob_attacked"))
    assert attacked < 0.9 * clean  # the fake label is 0


def test_perturbations_that_are_not_finite_raise(draw_data, config):
    """A victim recognizes nothing in NaN, which would otherwise count as a perfect attack."""
    evaluator = attack.AttackEvaluator(config(), draw_data())
    broken = torch.zeros(8, 3, 32, 32)
    assert evaluator(broken)[0]["val_score"] == 0
    broken[3, 1, 4, 5] = torch.nan
    with pytest.raises(FloatingPointError, match="no longer finite"):
        evaluator(broken)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_untrained_generator_is_scaled_to_the_budget(draw_data, config, precision):
    data, options = draw_data(), config(scale=2 / 255, precision=precision)
    evaluator = attack.AttackEvaluator(options, data)
    torch.manual_seed(0)
    generator = attack.new_model(options, data)
    change = attack.perturbations(generator, evaluator.images, options)
    metrics = evaluator(change)[0]
    assert metrics["val_unscaled_ssim"] > 0.999
    assert 0.85 <= metrics["val_ssim"] <= 0.852
    made = attack.predict(generator, data.images[data.val], options, factor=metrics["val_factor"])
    made = to_unit(torch.from_numpy(made)).double() - evaluator.images
    exact = generator.double()(evaluator.images.double())
    assert torch.cosine_similarity(made.flatten(), exact.flatten(), dim=0) > 0.99


def test_training_never_uses_labels_or_validation_images(trained, draw_data, config):
    data = draw_data()
    rng = np.random.default_rng(1)
    images = data.images.copy()
    images[data.val] = rng.integers(0, 256, images[data.val].shape)
    other = dataclasses.replace(data, labels=1 - data.labels, images=images)
    (_, first), (_, second) = (trained(config(), d) for d in (data, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_uses_unlabeled_images_if_there_are_any(trained, draw_data, config):
    data = draw_data()
    test = {"test_ids": data.ids[:8], "test_images": data.images[:8]}
    seen = dataclasses.replace(data, **test, images=data.images[::-1].copy())
    (_, first), (_, second) = (trained(config(), dataclasses.replace(d, **test)) for d in (data, seen))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_equals_uninterrupted(trained, draw_data, config):
    data, options = draw_data(), config(epochs=4, ema_memory=0.9, schedule="cosine")
    whole, weights = trained(options, data)
    begun = attack.train(options, data)
    next(begun)
    file = io.BytesIO()
    torch.save(next(begun).state, file)
    file.seek(0)
    for epoch in attack.train(options, data, resume=torch.load(file, weights_only=True)):
        last = epoch
    assert last.metrics == whole[-1].metrics
    assert all(torch.equal(last.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("min_ssim", "options"), [(0.3, {}), (0.99, {}), (0.3, {"architecture": "guided", "contrast_masking": 0.5})]
)
def test_evaluated_attacks_respect_bounds_and_equal_predict(trained, draw_data, config, min_ssim, options):
    data = draw_data()
    options = config(scale=0.1, min_ssim=min_ssim, **options)
    (*_, epoch), weights = trained(options, data)
    metrics = epoch.metrics
    assert min_ssim <= metrics["val_ssim"] <= min_ssim + 0.002
    assert metrics["val_linf"] <= metrics["val_factor"] * 0.1 + 0.5 / 255 + 1e-6
    assert (metrics["val_factor"] < 1) == (min_ssim == 0.99)
    assert metrics["val_unscaled_linf"] <= 0.1 + 0.5 / 255 + 1e-6
    # A restored generator makes the same attacked images as those that were evaluated.
    file = io.BytesIO()
    torch.save(attack.checkpoint(options, data, weights, metrics), file)
    file.seek(0)
    generator, restored = attack.restore(torch.load(file, weights_only=True))
    assert restored == options
    images = data.images[data.val]
    attacked = attack.predict(generator, images, restored, factor=metrics["val_factor"])
    assert attacked.dtype == np.uint8
    victim, unit = load_victim(options.victim), to_unit(torch.from_numpy(attacked))
    predictions = epoch.predictions
    assert predictions["prob_attacked"] == pytest.approx(victim.probabilities(unit), abs=1e-6)
    assert predictions["ssim"] == pytest.approx(ssim(to_unit(torch.from_numpy(images)), unit).numpy(), abs=1e-5)
    assert predictions["ids"].tolist() == [data.ids[i] for i in data.val]


def test_privacy_score_is_negative_while_images_are_visible(draw_data, config):
    options = config(goal="privacy", max_ssim=0.5, scale=0.01)
    metrics = next(attack.train(options, draw_data())).metrics
    assert metrics["val_ssim"] > 0.9
    assert metrics["val_score"] == pytest.approx((0.5 - metrics["val_ssim"]) / 0.5)


def test_batch_of_one(draw_data, config):
    assert np.isfinite(next(attack.train(config(batch_size=1), draw_data())).metrics["train_loss"])


def test_training_without_validation_images(draw_data, config):
    epoch = next(attack.train(config(), draw_data().all_train()))
    assert not [name for name in epoch.metrics if name.startswith("val_")]


def test_invalid_arguments_raise(draw_data, config, victims, tmp_path):
    data = draw_data()
    with pytest.raises(ValueError, match="requires image_size of at least 64 pixels"):
        attack.check(config(architecture="voc_adversarial3"), data)
    with pytest.raises(ValueError, match="goal hide:CLASS must be one of cat, dog, person, but got 'cow'"):
        attack.check(config(goal="hide:cow"), data)
    with pytest.raises(ValueError, match=r"victim\.pt has cat, dog, person, while the data have a, b, c: use"):
        next(attack.train(config(), dataclasses.replace(data, classes=("a", "b", "c"))))
    saved = torch.load(victims / "victim.pt", weights_only=True)
    torch.save(saved | {"task": "segment"}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="a victim must be a voc-search classifier"):
        load_victim(tmp_path / "other.pt")
    del saved["thresholds"]
    torch.save(saved, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="has none"):
        load_victim(tmp_path / "bare.pt")
    for wrong in ({"fake_label": 0.5, "goal": "invert"}, {"max_ssim": 0.5}, {"width": 8, "architecture": "universal"}):
        with pytest.raises(ValueError, match="requires"):
            config(**wrong)
