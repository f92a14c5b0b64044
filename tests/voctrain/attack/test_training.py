import dataclasses
import io

import numpy as np
import pytest
import torch

from voctrain import attack, classify
from voctrain.attack import objective
from voctrain.attack.victim import digits_victim, load_victim
from voctrain.attack.visibility import ssim
from voctrain.config import AttackConfig, ClassifyConfig, TrainConfig
from voctrain.data import load
from voctrain.images import to_unit

SEEN = {"architecture": "mnist_adversarial", "scale": 0.5}  # perturbs from the first step on
# Of each field that other tasks do not have: what else must be set for it to matter, and another value.
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


def save_victim(path, data, seed):
    """A classifier of these data after some epochs, as a run's best.pt."""
    tiny = {"architecture": "simple", "image_size": 32, "batch_size": 4, "precision": "float32"}
    config = ClassifyConfig(**tiny, epochs=6, lr=3e-3, seed=seed)
    for epoch in classify.train(config, data):
        saved = classify.checkpoint(config, data, epoch.weights, epoch.metrics)
    torch.save(saved | {"thresholds": [0.4] * len(data.classes)}, path)


@pytest.fixture(scope="module")
def victims(draw_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("victims")
    for seed, name in enumerate(("victim.pt", "other.pt")):
        save_victim(folder / name, draw_data(), seed)
    return folder


@pytest.fixture(scope="module")
def config(victims):
    def make(**options):
        known = {"image_size": 32, "epochs": 2, "batch_size": 4, "precision": "float32", "lr": 5e-3, "scale": 0.1}
        known |= {"victim": str(victims / "victim.pt"), "architecture": "residual"}
        if options.get("architecture", "residual") in ("residual", "guided"):
            known["width"] = 4
        if options.get("victim") == "OTHER":
            options["victim"] = str(victims / "other.pt")
        return AttackConfig(**(known | options))

    return make


def trained(config, data):
    """Its epochs, and copies of its last weights."""
    epochs, weights = [], {}
    for epoch in attack.train(config, data):
        epochs.append(epoch)
        weights = {name: tensor.clone() for name, tensor in epoch.weights.items()}
    return epochs, weights


def test_every_field_of_its_own_is_tried():
    assert AttackConfig.__dataclass_fields__.keys() - TrainConfig.__dataclass_fields__.keys() == EFFECTS.keys()


@pytest.mark.parametrize("name", EFFECTS)
def test_every_field_has_an_effect(draw_data, config, name):
    others, value = EFFECTS[name]
    first, second = (next(attack.train(config(**o), draw_data())).metrics for o in (others, others | {name: value}))
    assert first["train_loss"] != second["train_loss"]


@pytest.mark.parametrize("architecture", ["residual", "guided"])
def test_it_learns_to_fool_the_victim(architecture, draw_data, config):
    data = draw_data()
    epochs, _ = trained(config(architecture=architecture, epochs=40, scale=0.5, min_ssim=0.3), data)
    assert epochs[-1].metrics["train_loss"] < 0.7 * epochs[0].metrics["train_loss"]
    clean, attacked = (epochs[-1].predictions[name].mean() for name in ("prob_clean", "prob_attacked"))
    assert attacked < 0.9 * clean  # fake label 0 takes away


def test_a_diverged_generator_fools_nobody(draw_data, config):
    """To NaN a victim answers nothing at all, which would be the best of attacks."""
    evaluator = attack.AttackEvaluator(config(), draw_data())
    broken = torch.zeros(8, 3, 32, 32)
    assert evaluator(broken)[0]["val_score"] == 0
    broken[3, 1, 4, 5] = torch.nan
    with pytest.raises(FloatingPointError, match="no longer finite"):
        evaluator(broken)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_untrained_generator_is_judged_at_the_bound_by_what_it_makes(draw_data, config, precision):
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


@pytest.mark.parametrize("goal", ["fake", "invert", "hide:dog", "privacy"])
def test_gradients_are_of_float32_whatever_precision_surrounds_them(draw_data, config, goal):
    evaluator = attack.AttackEvaluator(config(goal=goal), draw_data())
    noise = 0.1 * torch.rand_like(evaluator.images)  # at the images themselves privacy has no gradient

    def gradients():
        yield objective.gradient(evaluator.images + noise, evaluator.losses(evaluator.images))
        yield evaluator.descent(evaluator.images)

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert evaluator.victim(evaluator.images).dtype == torch.bfloat16
        surrounded = list(gradients())
        assert evaluator.victim(evaluator.images).dtype == torch.bfloat16
    for ours, exact in zip(surrounded, gradients(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, exact)


def test_it_never_sees_a_label_nor_a_validation_image(draw_data, config):
    data = draw_data()
    rng = np.random.default_rng(1)
    images = data.images.copy()
    images[data.val] = rng.integers(0, 256, images[data.val].shape)
    other = dataclasses.replace(data, labels=1 - data.labels, images=images)
    (_, first), (_, second) = (trained(config(), d) for d in (data, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unlabeled_images_are_what_it_learns_from(draw_data, config):
    data = draw_data()
    test = {"test_ids": data.ids[:8], "test_images": data.images[:8]}
    seen = dataclasses.replace(data, **test, images=data.images[::-1].copy())
    (_, first), (_, second) = (trained(config(), dataclasses.replace(d, **test)) for d in (data, seen))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("architecture", ["residual", "guided"])
def test_the_victim_stays_as_it_is_and_out_of_the_generator(architecture, draw_data, config, victims, monkeypatch):
    used = []

    def keep(*arguments):
        used.append(load_victim(*arguments))
        return used[-1]

    monkeypatch.setattr(objective, "load_victim", keep)
    data, options = draw_data(), config(architecture=architecture)
    epochs, weights = trained(options, data)
    fresh = load_victim(victims / "victim.pt").state_dict()
    for victim in used:
        assert not victim.training
        assert not victim.model.training
        assert all(torch.equal(tensor, fresh[name]) for name, tensor in victim.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in victim.parameters())
    shapes = {tuple(tensor.shape) for tensor in weights.values()}
    assert len(weights) == len(attack.new_model(options, data).state_dict())
    assert not {tuple(p.shape) for p in used[0].parameters() if p.ndim == 2} & shapes
    count = sum(p.numel() for p in attack.new_model(options, data).parameters())
    moments = [v["exp_avg"].numel() for v in epochs[-1].state["optimizer"]["state"].values()]
    assert sum(moments) == count


def test_resumed_it_ends_as_if_it_had_not_stopped(draw_data, config):
    data, options = draw_data(), config(epochs=4, ema_decay=0.9, schedule="cosine")
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
def test_what_is_judged_is_within_its_bounds_and_what_predict_makes(draw_data, config, min_ssim, options):
    data = draw_data()
    options = config(scale=0.1, min_ssim=min_ssim, **options)
    (*_, epoch), weights = trained(options, data)
    metrics = epoch.metrics
    assert min_ssim <= metrics["val_ssim"] <= min_ssim + 0.002
    assert metrics["val_linf"] <= metrics["val_factor"] * 0.1 + 0.5 / 255 + 1e-6
    assert (metrics["val_factor"] < 1) == (min_ssim == 0.99)
    assert metrics["val_unscaled_linf"] <= 0.1 + 0.5 / 255 + 1e-6
    # A restored generator makes the attacked images of which the victim's answers are recorded.
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


def test_an_image_that_is_still_seen_does_not_count_as_hidden(draw_data, config):
    options = config(goal="privacy", max_ssim=0.5, scale=0.01)
    metrics = next(attack.train(options, draw_data())).metrics
    assert metrics["val_ssim"] > 0.9
    assert metrics["val_score"] == pytest.approx((0.5 - metrics["val_ssim"]) / 0.5)


def test_an_interval_does_not_decide_again_whether_an_image_is_hidden(draw_data, config):
    options = config(goal="privacy", max_ssim=0.5)
    evaluator = attack.AttackEvaluator(options, draw_data())
    _, predictions = evaluator(torch.zeros_like(evaluator.images))
    for ssim_, score in ((0.75, -0.5), (0.45, 1.0)):  # not hidden; hidden, and answered as before
        known = predictions | {"ssim": np.linspace(ssim_ - 0.2, ssim_ + 0.2, len(evaluator.images))}
        assert evaluator.measure(known)["score"] == pytest.approx(score)
        assert [evaluator.rescored(known)([i]) for i in range(len(evaluator.images))] == pytest.approx([score] * 8)


def test_a_batch_of_one(draw_data, config):
    assert np.isfinite(next(attack.train(config(batch_size=1), draw_data())).metrics["train_loss"])


def test_without_validation_it_trains_unjudged(draw_data, config):
    epoch = next(attack.train(config(), draw_data().all_train()))
    assert not [name for name in epoch.metrics if name.startswith("val_")]


def test_what_cannot_be_is_refused(draw_data, config, victims, tmp_path):
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


@pytest.mark.slow
def test_digits_have_a_victim_of_exclusive_classes(cache):
    data = load("digits", image_size=28)
    assert data.images.shape == (1797, 28, 28, 1)
    path = digits_victim(data, 28)
    assert sum(t.numel() for n, t in torch.load(path)["model"].items() if n.startswith("net")) == 21_840
    victim = load_victim(path)
    images = to_unit(torch.from_numpy(data.images[data.val]))
    decided = victim.decide(torch.from_numpy(victim.probabilities(images))).numpy()
    assert (decided.sum(1) == 1).all()
    assert (decided.argmax(1) == data.labels[data.val].argmax(1)).mean() > 0.95
    before = path.stat().st_mtime_ns
    assert digits_victim(data, 28).stat().st_mtime_ns == before
    config = AttackConfig(
        victim=str(path), architecture="mnist_adversarial", image_size=28, epochs=2, scale=0.25, fake_label=0.1, hflip=0
    )
    epochs, _ = trained(config, data)
    assert epochs[-1].metrics["val_clean_f1_macro"] > 0.95
