import pytest
import torch
from torch import nn

from voctrain.config import ClassifyConfig
from voctrain.models import build_classifier, build_segmenter
from voctrain.models.fine_tuning import LAYERS, fine_tune, layers
from voctrain.optim import Schedule, build_optimizer

NAMES = ["resnet18", "tf_efficientnet_lite0", "test_vit", "test_convnext", "resnet9"]


def norms(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize("name", NAMES)
def test_all_but_the_head_has_a_layer_and_depth_grows(name):
    model = build_classifier(name, num_classes=3, image_size=32)
    found = layers(model)
    missing = {n for n, _ in model.named_parameters()} - set(found)
    last = model.last_layers[0]
    assert {f"net.{last}.weight", f"net.{last}.bias"} <= missing
    assert all(key.startswith(f"net.{last.partition('.')[0]}.") for key in missing)
    order = list(found.values())
    assert order == sorted(order)
    assert (order[0], order[-1]) == (0, LAYERS - 1)


def test_the_backbone_of_a_segmenter_is_its_encoder():
    for name in ("fpn_resnet9", "fpn/test_resnet", "lraspp_mobilenet_v3_large"):
        found = set(layers(build_segmenter(name, num_classes=3)))
        assert found
        assert all(key.startswith(("net.encoder.", "net.backbone.")) for key in found)
    assert layers(build_segmenter("unet", num_classes=3, width=4)) == {}


def test_rates_decay_toward_the_input():
    """By hand: the head has lr · head_lr, the last of 12 layers lr · 0.5, the first lr · 0.5^12."""
    model = build_classifier("resnet9", num_classes=3, image_size=32)
    config = ClassifyConfig(layer_decay=0.5, head_lr=4.0, lr=0.1, weight_decay=0.3, epochs=2)
    optimizer = build_optimizer(model, config)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    first, last = next(iter(by_name)), model.last_layers[0]
    assert by_name[f"net.{last}.weight"] == pytest.approx(0.4)
    assert by_name[first] == pytest.approx(0.1 * 0.5**12)
    assert max(by_name[name] for name in layers(model)) == pytest.approx(0.05)
    assert all(decays[id(p)] == (0.3 if p.ndim > 1 else 0) for p in model.parameters())
    schedule = Schedule(optimizer, config, steps_per_epoch=10)
    seen = []
    for _ in range(20):
        seen.append([group["lr"] / group["factor"] for group in optimizer.param_groups])
        assert schedule.lr == pytest.approx(seen[-1][0])
        optimizer.step()
        schedule.step()
    assert all(rates == pytest.approx([rates[0]] * len(rates)) for rates in seen)  # one schedule for all
    assert max(seen)[0] == pytest.approx(0.1, rel=0.05)


def trained(model, config):
    """The state dicts before and after two steps on random images."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build_optimizer(model, config)
    for _ in range(2):
        model.train()
        model(torch.rand(4, 3, 64, 64)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return before, model.state_dict()


def test_frozen_batch_normalization_keeps_its_statistics():
    config = ClassifyConfig(freeze_norm=True, lr=0.1)
    model = build_classifier("resnet18", num_classes=3, image_size=64)
    fine_tune(model, config)
    before, after = trained(model, config)
    kept = {f"{name}.{buffer}" for name, norm in norms(model).items() for buffer, _ in norm.named_buffers()}
    assert len(kept) == 3 * len(norms(model))
    assert all(torch.equal(before[key], after[key]) for key in kept)
    assert not any(torch.equal(before[key], after[key]) for key in before.keys() - kept - {"mean", "std"})


@pytest.mark.parametrize("freeze", [0.5, 1.0])
def test_frozen_layers_stay_as_they_are(freeze):
    config = ClassifyConfig(freeze=freeze, lr=0.1, weight_decay=0.1)
    model = build_classifier("resnet18", num_classes=3, image_size=64)
    fine_tune(model, config)
    found = layers(model)
    frozen = {key for key in found if found[key] < LAYERS * freeze}
    assert 0 < len(frozen) <= len(found)
    assert (len(frozen) == len(found)) == (freeze == 1)
    before, after = trained(model, config)
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not any(torch.equal(before[key], after[key]) for key in found.keys() - frozen)
    still = {key.rpartition(".")[0] for key in frozen}
    for name, norm in norms(model).items():
        assert torch.equal(norm.running_mean, before[f"{name}.running_mean"]) == (name in still)


def test_dropout_before_the_last_layer_acts_in_training_only():
    model = build_classifier("resnet9", num_classes=3, image_size=32)
    fine_tune(model, ClassifyConfig(dropout=0.5))
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        features = model.eval().net[:-1](images)
        assert torch.equal(model(images), model.net[-1](features))
        inputs = []
        model.net[-1].register_forward_hook(lambda module, args, output: inputs.append(args[0]))
        model.train()(images)
    assert 0.4 < (inputs[0] == 0).float().mean() < 0.8


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "convnext_tiny", "tf_efficientnet_lite0"])
def test_blocks_are_dropped_in_training_only_the_last_most_often(name):
    model = build_classifier(name, num_classes=3, image_size=32)
    names = set(model.state_dict())
    before = model.eval()(torch.ones(2, 3, 32, 32))
    fine_tune(model, ClassifyConfig(architecture=name, drop_path=0.9))
    rates = [getattr(m, "drop_prob", getattr(m, "p", None)) for m in model.modules() if "Drop" in type(m).__name__]
    rates += [m.p for m in model.modules() if type(m).__name__ == "StochasticDepth"]
    rates = [rate for rate in rates if rate]
    assert rates == sorted(rates)
    assert rates[-1] == 0.9
    assert set(model.state_dict()) == names
    assert torch.equal(model.eval()(torch.ones(2, 3, 32, 32)), before)
    images = torch.rand(8, 3, 32, 32)
    if name != "test_resnet":  # its residuals start at 0
        assert not torch.equal(model.train()(images), model(images))


def test_a_network_without_such_blocks_is_refused():
    model = build_classifier("resnet9", num_classes=3, image_size=32)
    with pytest.raises(ValueError, match=r"drop_path requires .* resnet9 has none"):
        fine_tune(model, ClassifyConfig(architecture="resnet9", drop_path=0.1))
