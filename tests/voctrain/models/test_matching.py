"""Files as other tools write them, loaded into small networks."""

import copy
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from voctrain.models import build_classifier

NAMED, NUMBERED = "shufflenet_v2_x0_5", "resnet9"  # named modules, and a sequence
HEADS = {NAMED: "fc.", NUMBERED: "19."}


def trained(name, num_classes=7):
    """A network with numbers of its own everywhere."""
    net = build_classifier(name, num_classes=num_classes, image_size=32).net
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) + 0.5) if tensor.is_floating_point() else tensor.fill_(3)
    return net


NETS = {name: trained(name) for name in HEADS}
STATES = {name: net.state_dict() for name, net in NETS.items()}


def load(path, name=NAMED, num_classes=7, **options):
    return build_classifier(name, num_classes=num_classes, image_size=32, weights=str(path), **options)


def assert_body(model, name=NAMED, state=None, head=False):
    """All tensors but those of the head are the file's; with `head`, those, too."""
    state, own = state or STATES[name], model.net.state_dict()
    kept = [key for key in own if head or not key.startswith(HEADS[name])]
    assert len(kept) > 20
    assert all(torch.equal(own[key], state[key].to(own[key].dtype)) for key in kept)
    if not head:
        assert not any(torch.equal(own[key], state[key]) for key in own.keys() - set(kept) if key in state)


def error_of(*args, **kwargs):
    """The message, which must be one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        load(*args, **kwargs)
    return str(error.value)


def prefixed(prefix, state):
    return OrderedDict((prefix + key, tensor) for key, tensor in state.items())


NESTS = [
    *[(), ("state_dict",), ("model_state_dict",), ("model",), ("model_ema",), ("net",), ("network",), ("ema",)],
    *[("state_dict_ema",), ("module",), ("checkpoint", "model"), ("a", "b", "c", "d")],
]
PREFIXES = [
    *["", "module.", "model.", "backbone.", "net.", "encoder.", "_orig_mod.", "module.module.", "module.model."],
    *["_orig_mod.module.", "module._orig_mod.", "model._orig_mod.", "module.encoder_q.", "model.model.model."],
    *["timm_model.", "feature_extractor.", "0.", "backbone.body.", "student.module.backbone.", "resnet18."],
]
EXTRAS = {
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "epoch": 3,
    "best_acc1": torch.tensor(69.7),
}


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(list(HEADS)),
    nest=st.sampled_from(NESTS),
    prefix=st.sampled_from(PREFIXES),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    headless=st.booleans(),
    legacy=st.booleans(),
    safetensors=st.booleans(),
    num_classes=st.sampled_from([7, 5]),
)
def test_all_combinations_load(tmp_path_factory, name, nest, prefix, dtype, headless, legacy, safetensors, num_classes):
    kept = {key: t for key, t in STATES[name].items() if not (headless and key.startswith(HEADS[name]))}
    state = prefixed(prefix, {key: t.to(dtype) if t.is_floating_point() else t for key, t in kept.items()})
    path = tmp_path_factory.mktemp("files") / "w.pt"
    if safetensors:
        save_file({".".join((*nest, key)): tensor for key, tensor in state.items()}, path)
    else:
        for key in reversed(nest):
            state = {key: state, **EXTRAS}
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    torch.manual_seed(1)  # of the new head
    model = load(path, name, num_classes)
    has_head = not headless and num_classes == 7
    assert_body(model, name, {key: t.to(dtype) for key, t in kept.items()}, has_head)
    total = len(STATES[name])
    assert (model.loaded.loaded, model.loaded.total) == (total if has_head else total - 2, total)
    line = str(model.loaded)
    assert line.startswith(
        f"w.pt: {f'all {total}' if has_head else f'{total - 2} of {total}'} tensors of {name} loaded"
    )
    assert ".".join((*nest, prefix)) in line
    reason = "the file has none" if headless else "7 classes in the file, 5 here"
    assert (f"the head is initialized anew ({reason})" in line) == (not has_head)
    assert ("converted from" in line) == (dtype != torch.float32)
    assert "left out" not in line


def test_the_line_is_short_for_a_plain_file(tmp_path):
    torch.save(STATES[NAMED], tmp_path / "w.pt")
    assert str(load(tmp_path / "w.pt").loaded) == f"w.pt: all {len(STATES[NAMED])} tensors of {NAMED} loaded"
    assert build_classifier(NAMED, image_size=32).loaded is None


def test_wrappers_may_be_inside(tmp_path):
    net = copy.deepcopy(NETS[NAMED])
    net.stage2 = nn.DataParallel(net.stage2)
    net.stage3[0] = torch.compile(net.stage3[0])
    assert any(key.startswith("stage3.0._orig_mod.") for key in net.state_dict())
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    assert_body(model, head=True)
    assert model.loaded.loaded == model.loaded.total


def test_averages_are_preferred_and_other_networks_left_alone(tmp_path):
    """torchvision's training script and timm save both; an `AveragedModel` also counts."""
    average = AveragedModel(nn.DataParallel(copy.deepcopy(NETS[NAMED])))
    raw = trained(NAMED).state_dict()
    torch.save({"model": raw, "model_ema": average.state_dict()}, tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    assert_body(model, head=True)
    assert str(model.loaded).endswith(
        "found under 'model_ema.module.module.'; left out of the file: model_ema.n_averaged"
    )
    for mine, other in (("teacher", "student"), ("state_dict_ema", "state_dict"), ("online", "target"), ("q", "k")):
        for first in (True, False):
            both = [(mine, STATES[NAMED]), (other, raw)]
            torch.save(dict(both if first else reversed(both)), tmp_path / "w.pt")
            assert_body(load(tmp_path / "w.pt"), head=True)


def test_the_query_encoder_of_momentum_contrast_is_taken(tmp_path):
    """Its head is another, and there are a second encoder and a queue."""
    body = {key: t for key, t in STATES[NAMED].items() if not key.startswith("fc.")}
    head = {"fc.0.weight": torch.ones(4, 4), "fc.2.weight": torch.ones(2, 4)}
    key_encoder = {key: torch.zeros_like(tensor) for key, tensor in body.items()}
    state = prefixed("module.encoder_k.", key_encoder | head) | prefixed("module.encoder_q.", body | head)
    torch.save({"arch": NAMED, "state_dict": state | {"module.queue": torch.ones(3)}}, tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    assert_body(model)
    line = str(model.loaded)
    assert "the head is initialized anew (the file has another one, with fc.0.weight, fc.2.weight)" in line
    assert "left out of the file: state_dict.module.encoder_k." in line
    assert line.endswith(f" and {len(key_encoder) + len(head) + 1 - 3} more")  # the queue, and without the three named


def test_modules_may_be_numbered_in_their_order(tmp_path):
    """As `nn.Sequential(*net.children())` does, which fastai and feature extractors use."""
    body = nn.Sequential(*list(copy.deepcopy(NETS[NAMED]).children())[:-1])
    for state in (body.state_dict(), nn.Sequential(body, nn.Linear(3, 2)).state_dict(), {"feature_extractor": body}):
        state = state if "feature_extractor" not in state else nn.ModuleDict(state).state_dict()
        torch.save({"model": state}, tmp_path / "w.pt")
        model = load(tmp_path / "w.pt")
        assert_body(model)
        assert "the head is initialized anew (the file has none)" in str(model.loaded)
        assert ("left out of the file: model.1.weight, model.1.bias" in str(model.loaded)) == ("1.weight" in state)


def test_tensors_around_the_network_are_left_out_and_named(tmp_path):
    state = prefixed("backbone.", STATES[NAMED])
    state |= {
        "head.fc.weight": torch.ones(1),
        "loss.weight": torch.ones(1),
        "neck.a": torch.ones(1),
        "z": torch.ones(1),
    }
    torch.save({"state_dict": state, **EXTRAS}, tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    assert_body(model, head=True)
    names = "state_dict.head.fc.weight, state_dict.loss.weight, state_dict.neck.a and 1 more"
    assert str(model.loaded).endswith(f"; left out of the file: {names}")
    assert len(model.loaded.left_out) == 4


def test_counters_may_be_missing_or_too_many(tmp_path):
    state = {key: t for key, t in STATES[NAMED].items() if not key.endswith("num_batches_tracked")}
    profiled = state | {"total_ops": torch.ones(1), "stage2.0.total_params": torch.ones(1)}
    torch.save(profiled, tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    own = model.net.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in state.items())
    assert "left out" not in str(model.loaded)


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model."])
@pytest.mark.parametrize("key", ["conv1.0.weight", "stage2.0.branch1.0.weight", "conv5.1.running_var"])
def test_a_file_is_never_loaded_in_part(tmp_path, key, prefix):
    state, path = STATES[NAMED], tmp_path / "w.pt"
    torch.save(prefixed(prefix, {name: t for name, t in state.items() if name != key}), path)
    assert f"does not fit {NAMED} (tensors: 1 missing ({key})): use another file" in error_of(path)
    torch.save(prefixed(prefix, state | {key: torch.ones(3, 2)}), path)
    assert f"1 tensors of another shape: {key} is (3, 2) in the file and {tuple(state[key].shape)} in" in error_of(path)
    torch.save(prefixed(prefix, state | {key: state[key].to(torch.int8)}), path)
    assert f"must have floating-point weights, but {key} is int8" in error_of(path)
    for number in (float("nan"), float("inf")):
        torch.save(prefixed(prefix, state | {key: torch.full_like(state[key], number)}), path)
        assert f"must have finite weights, but {key} has others" in error_of(path)
    torch.save(prefixed(prefix, state | {"stage2.9.weight": torch.ones(1)}), path)
    assert "1 unknown (stage2.9.weight)" in error_of(path)


def test_a_deeper_network_is_another(tmp_path):
    """All of resnet18 is in resnet34, with the same shapes."""
    torch.save(models.resnet34().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"does not fit resnet18 \(tensors: 80 unknown \(layer1.2.conv1.weight, "):
        build_classifier("resnet18", weights=str(tmp_path / "w.pt"))


def test_a_file_of_other_names_is_told(tmp_path):
    torch.save(prefixed("stem.", STATES[NUMBERED]), tmp_path / "w.pt")
    assert f"does not fit {NAMED} (its tensors have other names, such as stem.0.weight)" in error_of(tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "state_dict.classifier."])
def test_a_wrapped_model_of_ours_keeps_its_normalization(tmp_path, prefix):
    saved = build_classifier(NAMED, num_classes=7, image_size=32)
    saved.set_normalization([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    torch.save(prefixed(prefix, saved.state_dict()), tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    assert torch.equal(model.mean, saved.mean)
    assert torch.equal(model.std, saved.std)
    assert_body(model, state=saved.net.state_dict(), head=True)
    assert "left out" not in str(model.loaded)
