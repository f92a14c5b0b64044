import pytest
import torch

from voctrain.models import build_classifier, build_segmenter
from voctrain.models.decoders import DECODERS, split_name

LITE = "tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (f"fpn/{LITE}", ("fpn", LITE)),
        (f"unet/timm/{LITE}.in1k", ("unet", f"{LITE}.in1k")),
        ("unet/resnet18", ("unet", "resnet18")),  # timm's
        ("unet", None),
        ("unet/", None),
        ("unet/simple", None),
        (f"resnet/{LITE}", None),
        (f"fpn_{LITE}", None),
    ],
)
def test_names(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize("decoder", sorted(set(DECODERS) - {"dpt"}))
def test_each_decoder_predicts_images_of_any_size(decoder):
    model = build_segmenter(f"{decoder}/test_resnet", num_classes=4, image_size=32).eval()
    with torch.no_grad():
        for height, width in ((64, 64), (33, 70)):
            assert model(torch.rand(2, 3, height, width)).shape == (2, 4, height, width)


@pytest.mark.parametrize(
    ("name", "side"),
    [("dpt/vit_tiny_patch16_224", 64), ("dpt/test_vit", 64), ("fpn/swin_tiny_patch4_window7_224", 64)],
)
def test_transformers_see_images_of_their_size(name, side):
    model = build_segmenter(name, num_classes=4, image_size=60).eval()
    assert model.input_size == side
    with torch.no_grad():
        assert model(torch.rand(1, 3, 60, 60)).shape == (1, 4, 60, 60)


def test_padding_does_not_reach_the_result():
    """An image whose sides fit is not padded: the result is the network's."""
    model = build_segmenter("fpn/test_resnet", num_classes=4).eval()
    model.set_normalization([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.net(model.normalized(images)))


@pytest.mark.parametrize("encoder", [LITE, "test_convnext"])
def test_an_encoder_has_the_weights_of_its_classifier(encoder, tmp_path):
    """Published ones, or those of a file; the maps are equal, though timm renames some tensors."""
    if encoder == LITE:
        weights = "imagenet"
        classifier = build_classifier(encoder, image_size=64, weights=weights)
    else:
        classifier = build_classifier(encoder, num_classes=3, image_size=64)
        classifier.set_normalization([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
        weights = str(tmp_path / "best.pt")
        saved = {"task": "classify", "config": {"architecture": encoder}, "classes": ["a", "b", "c"], "image_size": 64}
        torch.save(saved | {"model": classifier.state_dict()}, weights)
    model = build_segmenter(f"fpn/{encoder}", num_classes=4, image_size=64, weights=weights).eval()
    assert torch.equal(model.mean, classifier.mean)
    assert torch.equal(model.std, classifier.std)
    assert f"of the encoder {encoder} loaded" in str(model.loaded)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.eval().net.forward_intermediates(images, intermediates_only=True)
        torch.testing.assert_close(model.net.encoder(images)[-1], expected[-1])


def test_a_segmenter_continues_from_its_own_file(tmp_path):
    first = build_segmenter("fpn/test_resnet", num_classes=4)
    torch.save(first.net.state_dict(), tmp_path / "w.pt")
    model = build_segmenter("fpn/test_resnet", num_classes=4, weights=str(tmp_path / "w.pt"))
    assert all(torch.equal(value, model.net.state_dict()[key]) for key, value in first.net.state_dict().items())
    other = build_segmenter("fpn/test_resnet", num_classes=6, weights=str(tmp_path / "w.pt"))
    assert "the head is initialized anew (3 classes in the file, 5 here)" in str(other.loaded)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fpn/vit_tiny_patch16_224", "no fpn can be built on vit_tiny_patch16_224"),
        ("deeplabv3plus/swin_tiny_patch4_window7_224", "no deeplabv3plus can be built on swin_tiny"),
        ("fpm/resnet18", "unknown segmenter 'fpm/resnet18'"),
    ],
)
def test_impossible_pairs_are_one_line(name, message):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        build_segmenter(name, num_classes=4, image_size=64)
    assert message in str(error.value)
