"""What becomes of the last layers when the classes of a file are not those here."""

import pytest
import torch
from torch import nn
from torchvision import models

from voctrain.models import build_classifier, build_segmenter
from voctrain.models.heads import class_order

NAMES = ("cell", "nucleus", "debris")


def checkpoint(path, task, name, model, classes):
    saved = {"task": task, "config": {"architecture": name}, "classes": list(classes), "image_size": 32}
    torch.save(saved | {"model": model.state_dict()}, path)


@pytest.mark.parametrize(
    ("there", "here", "order"),
    [
        (NAMES, NAMES, None),
        (NAMES, ("Cell", " nucleus ", "DEBRIS"), None),
        (("potted plant", "b"), ("PottedPlant", "b"), None),
        (NAMES, ("debris", "cell", "nucleus"), (2, 0, 1)),
        (NAMES, ("cell", "nucleus", "dust"), ()),
        (NAMES, ("cell", "nucleus"), ()),
        (("a", "A"), ("a", "a"), None),
        (("a", "a", "b"), ("b", "a", "a"), ()),
        (None, NAMES, None),
        (NAMES, None, None),
    ],
)
def test_order_of_classes(there, here, order):
    assert class_order(there, here) == order


@pytest.mark.parametrize("name", ["resnet9", "shufflenet_v2_x0_5"])
def test_a_classifier_keeps_the_outputs_of_the_same_classes(tmp_path, name):
    torch.manual_seed(0)
    saved = build_classifier(name, num_classes=3, image_size=32).eval()
    checkpoint(tmp_path / "best.pt", "classify", name, saved, NAMES)

    def load(classes):
        path = str(tmp_path / "best.pt")
        return build_classifier(name, num_classes=len(classes), image_size=32, weights=path, classes=classes).eval()

    images = torch.rand(2, 3, 32, 32)
    logits = saved(images)
    assert torch.equal(load(("CELL", "nucleus", "Debris "))(images), logits)
    reordered = load(("debris", "cell", "nucleus"))
    torch.testing.assert_close(reordered(images), logits[:, [2, 0, 1]])
    assert "; the head's outputs are put into the order of the classes here" in str(reordered.loaded)
    other = load(("cell", "nucleus", "dust"))
    assert other(images).shape == logits.shape
    assert not torch.isclose(other(images), logits).any()
    assert other.loaded.loaded == other.loaded.total - 2
    assert "; the head is initialized anew (other classes in the file: cell, nucleus, debris)" in str(other.loaded)
    assert "(3 classes in the file, 2 here)" in str(load(("cell", "nucleus")).loaded)


@pytest.mark.parametrize(("name", "width"), [("unet", 4), ("fpn_resnet9", 8), ("lraspp_mobilenet_v3_large", None)])
def test_a_segmenter_keeps_the_outputs_of_the_same_classes(tmp_path, name, width):
    """Background stays first."""
    options = {"num_classes": 4, "width": width, "depth": 2 if name == "unet" else None}
    saved = build_segmenter(name, **options).eval()
    checkpoint(tmp_path / "best.pt", "segment", name, saved, NAMES)

    def load(classes):
        return build_segmenter(name, **options, weights=str(tmp_path / "best.pt"), classes=classes).eval()

    images = torch.rand(1, 3, 32, 32)
    logits = saved(images)
    assert torch.equal(load(NAMES)(images), logits)
    torch.testing.assert_close(load(("debris", "cell", "nucleus"))(images), logits[:, [0, 3, 1, 2]])
    other = load(("cell", "nucleus", "dust"))
    assert not torch.isclose(other(images), logits).all()
    assert "(other classes in the file: cell, nucleus, debris)" in str(other.loaded)


def test_only_the_last_layer_of_a_segmenter_depends_on_the_classes(tmp_path):
    """Not every layer that has as many channels."""
    saved = build_segmenter("unet", num_classes=4, width=4, depth=2)
    checkpoint(tmp_path / "best.pt", "segment", "unet", saved, NAMES)
    classes = ("cell", "nucleus", "dust")
    model = build_segmenter("unet", num_classes=4, width=4, depth=2, weights=str(tmp_path / "best.pt"), classes=classes)
    own = saved.net.state_dict()
    different = {key for key, tensor in model.net.state_dict().items() if not torch.equal(tensor, own[key])}
    assert different == {"head.weight", "head.bias"}


def changed_file(tmp_path, change):
    """A file of a network with 2 classes whose classifier was changed; returns its state dict and its path."""
    net = models.mobilenet_v3_small(num_classes=2)
    net.classifier = change(net.classifier)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    return net.state_dict(), str(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda old: nn.Sequential(), "the file has none"),
        (lambda old: old[:-1], "the file has none"),
        (lambda old: nn.Linear(9, 2), "the file has another one, with classifier.weight, classifier.bias"),
        (lambda old: nn.Sequential(nn.Linear(576, 9), nn.ReLU(), nn.Linear(9, 2)), "the file has another one, with cl"),
        (lambda old: old[:-1].append(nn.Linear(8, 2)), "classifier.3.weight is (2, 8) in the file and (3, 1024) here"),
    ],
    ids=["body", "last layer missing", "linear", "own", "other width"],
)
def test_other_heads_are_left_out(tmp_path, change, reason):
    state, path = changed_file(tmp_path, change)
    model = build_classifier("mobilenet_v3_small", num_classes=3, image_size=32, weights=path)
    own = model.net.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in state.items() if key.startswith("features."))
    assert f"; the head is initialized anew ({reason}" in str(model.loaded)
    assert "left out" not in str(model.loaded)
    if reason == "the file has none" and "classifier.0.weight" in state:
        assert torch.equal(own["classifier.0.weight"], state["classifier.0.weight"])


def test_a_damaged_head_is_refused(tmp_path):
    state, path = changed_file(tmp_path, lambda old: old)
    del state["classifier.0.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"1 missing \(classifier.0.weight\)"):
        build_classifier("mobilenet_v3_small", num_classes=2, image_size=32, weights=path)


def test_auxiliary_outputs_are_told_only_if_they_are_missing(tmp_path):
    net = models.googlenet(num_classes=2, aux_logits=False, init_weights=False)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model = build_classifier("googlenet", num_classes=2, image_size=32, weights=str(tmp_path / "w.pt"))
    assert torch.equal(model.net.fc.weight, net.fc.weight)
    assert str(model.loaded).endswith("; the auxiliary outputs are initialized anew (the file has none)")
