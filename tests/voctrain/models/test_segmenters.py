import pytest
import torch
from torchvision import models

from voctrain.models import build_classifier, build_segmenter
from voctrain.models.segmenters import TORCHVISION


def count(model):
    return sum(p.numel() for p in model.parameters())


def error_of(function, *args, **kwargs):
    """The message, which must be one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        function(*args, **kwargs)
    return str(error.value)


def classifier_file(path, name):
    """Save a checkpoint of a classifier with its own normalization; returns the classifier."""
    model = build_classifier(name, num_classes=20, image_size=64)
    model.set_normalization([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    saved = {"task": "classify", "config": {"architecture": name}, "classes": ["cat"] * 20, "image_size": 64}
    torch.save(saved | {"model": model.state_dict()}, path)
    return model


def test_unet_has_the_parameter_count_of_the_notebook():
    assert count(build_segmenter("unet")) == 31_038_933


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (47, 17)])
def test_unet_accepts_any_size(size):
    model = build_segmenter("unet", num_classes=5, width=4, depth=3).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("name", ["fpn_resnet9", "fpn_resnet18", "fpn_mobilenet_v3_small", "fpn_complex"])
def test_pyramids_accept_any_size(name):
    model = build_segmenter(name, num_classes=5, width=8).eval()
    for size in ((33, 50), (64, 64)):
        assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_pyramid_has_one_map_per_stride_and_no_classifier_head():
    model = build_segmenter("fpn_resnet18", width=8)
    assert not [name for name, _ in model.named_parameters() if ".fc." in name]
    maps = model.net.encoder(torch.rand(1, 3, 64, 64))
    assert [maps[name].shape[1:] for name in model.net.names] == [
        *[(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    ]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_segmenters_predict_at_full_size(name):
    model = build_segmenter(name, num_classes=4)
    images = torch.rand(2, 3, 65, 65)
    outputs = model.train()(images)
    has_auxiliary = not name.startswith("lraspp")
    assert isinstance(outputs, tuple) == has_auxiliary
    for output in outputs if has_auxiliary else (outputs,):
        assert output.shape == (2, 4, 65, 65)
    assert model.eval()(images).shape == (2, 4, 65, 65)


def test_names_are_checked():
    assert "did you mean" in error_of(build_segmenter, "unett")
    assert "fewer than two maps" in error_of(build_segmenter, "fpn_alexnet")
    assert "no feature pyramid" in error_of(build_segmenter, "fpn_vit_b_16")


@pytest.mark.parametrize(
    ("name", "classifier"), [("fpn_resnet9", "resnet9"), ("lraspp_mobilenet_v3_large", "mobilenet_v3_large")]
)
def test_checkpoint_of_a_classifier_becomes_the_encoder(tmp_path, name, classifier):
    path = str(tmp_path / "best.pt")
    saved = classifier_file(path, classifier)
    model = build_segmenter(name, num_classes=5, weights=path)
    encoder = model.net.encoder if name.startswith("fpn") else model.net.backbone
    of_classifier = {key.removeprefix("features."): value for key, value in saved.net.state_dict().items()}
    assert encoder.state_dict()
    assert all(torch.equal(value, of_classifier[key]) for key, value in encoder.state_dict().items())
    assert torch.equal(model.mean, saved.mean)
    assert model.own_normalization


def test_plain_classifier_becomes_the_encoder_with_published_normalization(tmp_path):
    net = models.get_model("resnet18")
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    model = build_segmenter("fpn_resnet18", weights=str(tmp_path / "plain.pth"))
    assert torch.equal(model.state_dict()["net.encoder.layer4.1.conv2.weight"], net.layer4[1].conv2.weight)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_segmenter_with_other_classes_keeps_all_but_its_head(tmp_path):
    old = build_segmenter("unet", num_classes=21, width=4, depth=2)
    config = {"architecture": "unet"}
    saved = {"task": "segment", "config": config, "classes": ["cat"] * 20, "image_size": 64}
    torch.save(saved | {"model": old.state_dict()}, tmp_path / "best.pt")
    same = build_segmenter("unet", num_classes=21, width=4, depth=2, weights=str(tmp_path / "best.pt"))
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in old.state_dict().items())
    new = build_segmenter("unet", num_classes=5, width=4, depth=2, weights=str(tmp_path / "best.pt"))
    assert torch.equal(new.net.down[1][0].weight, old.net.down[1][0].weight)
    assert new.net.head.weight.shape == (5, 4, 1, 1)
    assert "of another shape" in error_of(build_segmenter, "unet", width=8, depth=2, weights=str(tmp_path / "best.pt"))


def test_errors_explain_files_of_other_networks(tmp_path):
    path = str(tmp_path / "best.pt")
    classifier_file(path, "resnet9")
    assert "contains a resnet9, but architecture is resnet18" in error_of(build_segmenter, "fpn_resnet18", weights=path)
    assert "unet has no pretrained encoder" in error_of(build_segmenter, "unet", weights=path)
    assert "unet has no pretrained encoder" in error_of(build_segmenter, "unet", weights="imagenet")
    torch.save(models.get_model("resnet34").state_dict(), tmp_path / "plain.pth")
    assert "--set architecture" in error_of(build_segmenter, "fpn_resnet50", weights=str(tmp_path / "plain.pth"))


def test_published_is_the_whole_segmenter_and_imagenet_the_encoder(publish):
    name = "lraspp_mobilenet_v3_large"
    whole, encoder = models.get_model(name, weights_backbone=None), models.get_model("mobilenet_v3_large")
    publish(name, whole.state_dict())
    publish("mobilenet_v3_large", encoder.state_dict())
    model = build_segmenter(name, weights="published")
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in model.net.state_dict().items())
    torch.testing.assert_close(model.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    model = build_segmenter(name, weights="published", classes=[f"class {i}" for i in range(20)])
    assert "(other classes in the file: aeroplane, bicycle, bird and 17 more)" in str(model.loaded)
    model = build_segmenter(name, num_classes=5, weights="imagenet")
    assert torch.equal(model.net.backbone["0"][0].weight, encoder.features[0][0].weight)
    assert model.net.classifier.low_classifier.weight.shape[0] == 5
    assert "unet has no published weights" in error_of(build_segmenter, "unet", weights="published")


def foreign(prefix, net, *others):
    """The file of another tool, with the tensors of `net` under a prefix, and others."""
    state = {f"{prefix}{key}": tensor for key, tensor in net.state_dict().items()}
    return {"state_dict": state | {name: torch.ones(2) for name in others}, "epoch": 3}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "module.encoder_q.", "model._orig_mod."])
@pytest.mark.parametrize(
    ("name", "classifier"), [("fpn_resnet9", "resnet9"), ("lraspp_mobilenet_v3_large", "mobilenet_v3_large")]
)
def test_a_classifier_of_another_tool_becomes_the_encoder(tmp_path, name, classifier, prefix):
    net = build_classifier(classifier, num_classes=3, image_size=64).net.half()
    torch.save(foreign(prefix, net), tmp_path / "w.pt")
    model = build_segmenter(
        name, num_classes=5, width=8 if name == "fpn_resnet9" else None, weights=str(tmp_path / "w.pt")
    )
    encoder = (model.net.encoder if name == "fpn_resnet9" else model.net.backbone).state_dict()
    theirs = {key.removeprefix("features."): tensor for key, tensor in net.state_dict().items()}
    assert all(torch.equal(tensor, theirs[key].to(tensor.dtype)) for key, tensor in encoder.items())
    assert str(model.loaded).startswith(f"w.pt: all {len(encoder)} tensors of the encoder {classifier} loaded")
    assert "converted from float16; all but the encoder is initialized anew" in str(model.loaded)


def test_the_encoder_of_another_segmenter_is_taken(tmp_path):
    net = models.resnet18(num_classes=3)
    net.fc = torch.nn.Identity()
    others = ("decoder.blocks.0.weight", "segmentation_head.0.weight")
    torch.save(foreign("encoder.", net, *others), tmp_path / "w.pt")
    model = build_segmenter("fpn_resnet18", num_classes=5, width=8, weights=str(tmp_path / "w.pt"))
    assert torch.equal(model.net.get_submodule("encoder.layer4.1.conv2").weight, net.layer4[1].conv2.weight)
    left = "left out of the file: state_dict.decoder.blocks.0.weight, state_dict.segmentation_head.0.weight"
    assert str(model.loaded).endswith(left)


@pytest.mark.parametrize("change", ["missing", "shape", "deeper"])
def test_an_encoder_is_never_loaded_in_part(tmp_path, change):
    state = models.resnet18().state_dict()
    if change == "missing":
        del state["layer2.0.bn1.running_mean"]
    elif change == "shape":
        state["layer2.0.bn1.running_mean"] = torch.ones(3)
    else:
        state = models.resnet34().state_dict()
    torch.save(state, tmp_path / "w.pt")
    message = error_of(build_segmenter, "fpn_resnet18", width=8, weights=str(tmp_path / "w.pt"))
    assert "does not fit the encoder resnet18" in message
    assert ("layer1.2.conv1.weight" if change == "deeper" else "layer2.0.bn1.running_mean") in message


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 4, "depth": 2}),
        ("fpn_resnet9", {"width": 8}),
        ("lraspp_mobilenet_v3_large", {}),
        ("deeplabv3_mobilenet_v3_large", {}),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
def test_a_segmenter_of_another_tool_is_taken_as_a_whole(tmp_path, name, options, prefix):
    net = build_segmenter(name, num_classes=5, **options).net
    torch.save(foreign(prefix, net), tmp_path / "w.pt")
    for num_classes in (5, 3):
        model = build_segmenter(name, num_classes=num_classes, **options, weights=str(tmp_path / "w.pt"))
        theirs, own = net.state_dict(), model.net.state_dict()
        different = [key for key in own if own[key].shape != theirs[key].shape]
        assert bool(different) == (num_classes == 3)
        assert all(torch.equal(own[key], theirs[key]) for key in own.keys() - set(different))
        assert model.loaded.loaded == model.loaded.total - len(different)
        assert ("; the head is initialized anew (4 classes in the file, 2 here)" in str(model.loaded)) == bool(
            different
        )


def test_a_segmenter_without_auxiliary_output_or_with_another_head_is_taken(tmp_path):
    name, path = "deeplabv3_mobilenet_v3_large", str(tmp_path / "w.pt")
    net = models.get_model(name, weights_backbone=None, num_classes=5, aux_loss=False)
    torch.save(net.state_dict(), path)
    model = build_segmenter(name, num_classes=5, weights=path)
    assert torch.equal(model.net.classifier[4].weight, net.classifier[4].weight)
    assert str(model.loaded).endswith("; the auxiliary outputs are initialized anew (the file has none)")
    other = {key: t for key, t in net.state_dict().items() if key != "classifier.0.project.0.weight"}
    torch.save(other, path)
    assert "1 missing (classifier.0.project.0.weight)" in error_of(build_segmenter, name, num_classes=5, weights=path)
    del other["backbone.0.0.weight"]
    torch.save(other, path)
    assert "missing (backbone.0.0.weight" in error_of(build_segmenter, name, num_classes=5, weights=path)
