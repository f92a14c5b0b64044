import re
import socket
import urllib.request

import pytest
import torch
from torch import nn
from torchvision import models

from voctrain.models import build_classifier, published, weights_file


def as_if_trained(net, size=64):
    """The net with batch statistics of some images, without which no signal reaches its end."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the average of all batches
    with torch.no_grad():
        net.train()(torch.randn(4, 3, size, size))
    return net.eval()


def old_densenet_names(state):
    """The names in torchvision's published files, which predate batch counters and versions."""
    pattern = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    kept = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    renamed = {pattern.sub(r"\1.\2", key): tensor for key, tensor in kept.items()}
    assert renamed.keys() != kept.keys()
    return renamed


def saved_classifier(path, name="mobilenet_v3_small", num_classes=4, image_size=32, **changes):
    """Save a checkpoint as training does; returns its model."""
    model = build_classifier(name, num_classes=num_classes, image_size=image_size)
    as_if_trained(model.net, image_size)
    model.set_normalization([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    saved = {
        "task": "classify",
        "config": {"architecture": name},
        "classes": [f"class {i}" for i in range(num_classes)],
        "image_size": image_size,
        "model": {key: tensor.clone() for key, tensor in model.state_dict().items()},
    }
    torch.save(saved | changes, path)
    return model.eval()


def error_of(function, *args, **kwargs):
    """The message, which must be one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        function(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet", "mnasnet0_5", "densenet121"])
def test_imagenet_weights_predict_like_torchvision(name, publish):
    """With all 1000 classes, on images in [0, 1], weights, normalization and head are torchvision's."""
    options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    state = as_if_trained(models.get_model(name, **options)).state_dict()
    publish(name, old_densenet_names(state) if name == "densenet121" else state)
    default = models.get_model_weights(name).DEFAULT
    reference = models.get_model(name, weights=default).eval()
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (default.transforms().mean, default.transforms().std))

    model = build_classifier(name, num_classes=1000, image_size=64, weights="imagenet").eval()
    expected = reference((images - mean) / std)
    assert torch.allclose(model(images), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert model.own_normalization is True


def test_imagenet_weights_keep_the_initial_head_for_other_classes(publish):
    state = as_if_trained(models.get_model("squeezenet1_1")).state_dict()
    publish("squeezenet1_1", state)
    torch.manual_seed(1)
    model = build_classifier("squeezenet1_1", num_classes=5, image_size=32, weights="imagenet")
    own = model.net.state_dict()
    assert {key for key in own if own[key].shape != state[key].shape} == {"classifier.1.weight", "classifier.1.bias"}
    assert all(torch.equal(own[key], state[key]) for key in own if not key.startswith("classifier"))
    assert torch.allclose(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert torch.allclose(model.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))

    torch.manual_seed(1)
    fresh = build_classifier("squeezenet1_1", num_classes=5, image_size=32)
    assert torch.equal(model.net.classifier[1].weight, fresh.net.classifier[1].weight)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("simple", {"7.weight", "7.bias"}),
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("googlenet", {f"{layer}.{kind}" for layer in ("fc", "aux1.fc2", "aux2.fc2") for kind in ("weight", "bias")}),
        ("vit_b_32", {"heads.head.weight", "heads.head.bias"}),
        ("regnet_y_128gf", {"fc.weight", "fc.bias"}),
    ],
)
def test_head_is_what_depends_on_the_classes(name, head):
    from voctrain.models.classifiers import _last_tensors

    assert _last_tensors(name) == head


def test_error_without_network_names_file_and_folder(hub):
    message = error_of(build_classifier, "resnet18", weights="imagenet")
    assert "resnet18" in message
    assert "Name or service not known" in message
    assert "resnet18-f37072fd.pth" in message
    assert str(hub) in message
    assert "--weights none" in message
    assert socket.getdefaulttimeout() is None


def test_download_has_a_timeout_and_prints_nothing_to_stdout(hub, monkeypatch, capsys):
    timeouts = []

    def hang(*args, **kwargs):
        timeouts.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(torch.hub, "urlopen", hang)
    assert "(timed out)" in error_of(build_classifier, "resnet18", weights="imagenet")
    assert timeouts == [published.TIMEOUT]
    assert capsys.readouterr().out == ""


def test_download_with_wrong_hash_raises(hub, monkeypatch, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"a captive portal")
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: urllib.request.urlopen(wrong.as_uri()))
    assert "invalid hash value" in error_of(build_classifier, "resnet18", weights="imagenet")
    assert not list(hub.iterdir())


def test_truncated_file_in_the_cache_raises(publish):
    path = publish("squeezenet1_1", models.get_model("squeezenet1_1").state_dict())
    path.write_bytes(path.read_bytes()[:1000])
    assert path.name in error_of(build_classifier, "squeezenet1_1", weights="imagenet")


def test_unpublished_weights_raise(hub):
    message = error_of(build_classifier, "tinyvgg", image_size=32, weights="imagenet")
    assert message.startswith("tinyvgg has no published weights")


@pytest.mark.parametrize("num_classes", [4, 7])
def test_checkpoint_includes_its_normalization(tmp_path, num_classes):
    saved = saved_classifier(tmp_path / "best.pt")
    model = build_classifier(
        "mobilenet_v3_small", num_classes=num_classes, image_size=48, weights=str(tmp_path / "best.pt")
    ).eval()
    assert model.own_normalization is True
    assert torch.equal(model.mean, saved.mean)
    assert torch.equal(model.std, saved.std)
    assert all(map(torch.equal, model.net.features.parameters(), saved.net.features.parameters()))
    same = model.net.classifier[-1].weight.shape == saved.net.classifier[-1].weight.shape
    assert same == (num_classes == 4)
    images = torch.rand(2, 3, 48, 48)
    saved.input_size = 48
    if same:  # the same outputs
        assert torch.equal(model(images), saved(images))


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "module.net."])
def test_plain_state_dict_loads_from_any_wrapper(tmp_path, prefix):
    net = as_if_trained(models.get_model("mnasnet0_5", num_classes=9))
    wrapped = net
    for name in reversed(prefix.split(".")[:-1]):
        wrapped = nn.ModuleDict({name: wrapped})
    torch.save(wrapped.state_dict(), tmp_path / "plain.pth")
    model = build_classifier("mnasnet0_5", num_classes=9, image_size=32, weights=str(tmp_path / "plain.pth")).eval()
    assert torch.allclose(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert model.own_normalization is True
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images), net((images - model.mean) / model.std))
    assert weights_file.file_origin(tmp_path / "plain.pth") == (None, None)


@pytest.mark.parametrize("name", ["mnasnet0_5", "resnet18"])
def test_plain_state_dict_needs_no_record_of_versions(tmp_path, name):
    net = models.get_model(name, num_classes=9)
    torch.save({f"module.{key}": tensor for key, tensor in net.state_dict().items()}, tmp_path / "plain.pth")
    model = build_classifier(name, num_classes=9, image_size=32, weights=str(tmp_path / "plain.pth"))
    assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in model.net.state_dict().items())


def test_plain_file_of_a_whole_classifier_includes_its_normalization(tmp_path):
    saved = saved_classifier(tmp_path / "best.pt", "simple")
    torch.save(saved.state_dict(), tmp_path / "plain.pth")
    model = build_classifier("simple", num_classes=4, image_size=32, weights=str(tmp_path / "plain.pth")).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images), saved(images))
    assert model.own_normalization is True


def test_plain_file_of_an_own_network_has_no_normalization(tmp_path):
    torch.save(build_classifier("simple", image_size=32).net.state_dict(), tmp_path / "plain.pth")
    model = build_classifier("simple", image_size=32, weights=str(tmp_path / "plain.pth"))
    assert model.own_normalization is False


def test_auxiliary_outputs_may_be_missing_from_a_file(tmp_path):
    net = models.get_model("googlenet", aux_logits=False, init_weights=False)
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    model = build_classifier("googlenet", num_classes=3, image_size=32, weights=str(tmp_path / "plain.pth"))
    assert torch.equal(model.net.conv1.conv.weight, net.conv1.conv.weight)
    assert model.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_error_names_the_other_architecture(tmp_path):
    path = str(tmp_path / "best.pt")
    saved_classifier(path, "simple")
    assert weights_file.file_origin(path)[1] == "simple"
    message = error_of(build_classifier, "complex", image_size=32, weights=path)
    assert message.endswith("contains a simple, but architecture is complex: use --set architecture=simple")


def test_wrong_channels_are_reported_before_wrong_size(tmp_path):
    path = str(tmp_path / "plain.pt")
    torch.save(build_classifier("mnist_model", image_size=28, in_channels=1).state_dict(), path)
    message = error_of(build_classifier, "mnist_model", image_size=32, weights=path)
    assert message == (
        f"weights must match the number of image channels, but {path} has 1 and the data have 3: use weights that"
        " were trained on such images"
    )


def test_error_explains_plain_file_of_another_model(tmp_path):
    path = str(tmp_path / "plain.pth")
    torch.save(models.get_model("squeezenet1_0").state_dict(), path)
    message = error_of(build_classifier, "squeezenet1_1", image_size=32, weights=path)
    assert "features.0.weight is (96, 3, 7, 7) in the file and (64, 3, 3, 3) in the model" in message
    assert message.endswith("use another file, or --set architecture=NAME")

    message = error_of(build_classifier, "alexnet", image_size=64, weights=path)
    assert "--set architecture=NAME" in message


def test_error_counts_missing_and_unknown_tensors(tmp_path):
    state = models.get_model("squeezenet1_1").state_dict()
    del state["features.0.weight"], state["features.0.bias"]
    state["features.99.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "plain.pth")
    message = error_of(build_classifier, "squeezenet1_1", image_size=32, weights=str(tmp_path / "plain.pth"))
    assert "tensors: 2 missing (features.0.weight, features.0.bias), 1 unknown (features.99.weight)" in message


@pytest.mark.parametrize("name", ["simple", "complex", "tinyvgg"])
@pytest.mark.parametrize("num_classes", [4, 5])
def test_error_names_the_image_size_of_the_file(tmp_path, name, num_classes):
    path = str(tmp_path / "best.pt")
    saved_classifier(path, name, image_size=32)
    message = error_of(build_classifier, name, num_classes=num_classes, image_size=48, weights=path)
    assert "was trained at image size 32" in message
    assert message.endswith("--image-size 32")


def test_errors_explain_unusable_files(tmp_path):
    path = tmp_path / "file.pt"
    assert "there is no file" in error_of(weights_file.load_file, path)
    assert "there is no file 'imagenot'" in error_of(build_classifier, "resnet18", weights="imagenot")
    assert "there is no file" in error_of(weights_file.load_file, tmp_path)
