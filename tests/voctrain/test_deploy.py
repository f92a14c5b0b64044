import numpy as np
import pytest
import torch

from voctrain import attack, classify, segment
from voctrain.config import AttackConfig, ClassifyConfig, SegmentConfig
from voctrain.data.resizing import RESIZE
from voctrain.deploy import describe, load, read_safetensors, write_safetensors
from voctrain.images import to_unit
from voctrain.models.ensemble import pack_ensemble

SMALL = {"image_size": 32, "epochs": 2, "precision": "float32", "batch_size": 4}


@pytest.fixture
def checkpoint(draw_data, tmp_path):
    """A checkpoint of a task, after two epochs."""

    def train(task, **more):
        data = draw_data()
        if task == "attack":
            saved = train("classify", architecture=more.pop("victim", "simple")) | {"thresholds": [0.5] * 3}
            torch.save(saved, tmp_path / "victim.pt")
            config = AttackConfig(victim=str(tmp_path / "victim.pt"), lr=0.05, **SMALL, **more)
        elif task == "segment":
            config = SegmentConfig(architecture="unet", width=4, depth=1, **SMALL, **more)
        else:
            config = ClassifyConfig(**{"architecture": "simple", **SMALL, **more})
        module = {"classify": classify, "segment": segment, "attack": attack}[task]
        *_, last = module.train(config, data)
        return module.checkpoint(config, data, last.weights, last.metrics)

    return train


@pytest.fixture
def deployed(tmp_path):
    def through_a_file(saved):
        torch.save(saved, tmp_path / "best.pt")
        return load(tmp_path / "best.pt")

    return through_a_file


def images_of(draw_data, count=5):
    return draw_data().images[:count]


def unit(images):
    return to_unit(torch.from_numpy(images))


@pytest.mark.parametrize("architecture", ["simple", "alexnet"])  # the latter needs 63 pixels, and resizes again
def test_a_classifier_answers_as_in_training(architecture, checkpoint, deployed, draw_data):
    saved, images = checkpoint("classify", architecture=architecture), images_of(draw_data)
    model, config = classify.restore(saved)
    with torch.no_grad():
        answer = deployed(saved)(unit(images)).numpy()
    assert answer == pytest.approx(classify.predict(model, images, config), abs=1e-6)


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("shape", [(32, 32), (45, 70), (90, 20)])
def test_masks_are_those_of_training_at_the_original_size(shape, resize, checkpoint, deployed, draw_data):
    saved, images = checkpoint("segment") | {"resize": resize}, images_of(draw_data)
    model, config = segment.restore(saved)
    maps = segment.predict(model, images, config, sizes=np.array([shape] * 5), resize=resize)
    network = deployed(saved)
    network.squares = lambda _: unit(images)  # as the data were resized
    with torch.no_grad():
        probabilities = network(torch.rand(5, 3, *shape))
    assert probabilities.shape == (5, 4, *shape)
    assert probabilities.sum(1) == pytest.approx(np.ones((5, *shape)), abs=1e-5)
    assert (probabilities.argmax(1).numpy() == np.stack(list(maps))).mean() > 0.999


def test_what_a_crop_leaves_out_is_background(checkpoint, deployed):
    saved = checkpoint("segment") | {"resize": "crop"}
    with torch.no_grad():
        probabilities = deployed(saved)(torch.rand(2, 3, 20, 50))
    outside = torch.cat([probabilities[..., :15], probabilities[..., 35:]], -1)
    assert torch.equal(outside, torch.eye(4)[0][:, None, None].expand_as(outside))
    assert probabilities[..., 15:35].amax() < 1


@pytest.mark.parametrize("architecture", ["residual", "universal", "guided"])
def test_attacks_are_those_of_training(architecture, checkpoint, deployed, draw_data):
    saved, images = checkpoint("attack", architecture=architecture), images_of(draw_data)
    saved["metrics"]["val_factor"] = 1.7
    generator, config = attack.restore(saved)
    expected = attack.predict(generator, images, config, factor=1.7)
    assert (expected != images).any()
    with torch.no_grad():
        attacked = deployed(saved)(unit(images))
    assert (attacked - unit(expected)).abs().max() < 0.51 / 255  # that is rounded
    assert (attacked >= 0).all()
    assert (attacked <= 1).all()


def test_an_attack_keeps_what_a_crop_leaves_out(checkpoint, deployed):
    model = deployed(checkpoint("attack", architecture="universal") | {"resize": "crop"})
    images = torch.rand(1, 3, 60, 40)
    with torch.no_grad():
        change = model(images) - images
    assert not change[:, :, :10].any()
    assert not change[:, :, 50:].any()
    assert change[:, :, 10:50].any()


def test_weights_and_metadata_return(checkpoint, tmp_path):
    saved = checkpoint("classify") | {"thresholds": [0.25, 0.5, 0.75]}
    torch.save(saved, tmp_path / "best.pt")
    model = load(tmp_path / "best.pt")
    write_safetensors(tmp_path / "model.safetensors", saved, describe(saved, model))
    again = read_safetensors(tmp_path / "model.safetensors")
    assert {name: again[name] for name in saved if name != "model"} == {n: v for n, v in saved.items() if n != "model"}
    assert torch.equal(load(tmp_path / "model.safetensors")(torch.ones(1, 3, 9, 9)), model(torch.ones(1, 3, 9, 9)))


@pytest.mark.parametrize("name", ["model.safetensors", "best.pt"])
def test_other_files_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"something else")
    for file in (tmp_path / name, tmp_path / f"missing-{name}"):
        with pytest.raises(ValueError, match=str(file)) as error:
            load(file)
        assert "\n" not in str(error.value)


def test_a_plain_state_dict_is_refused(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="not a voc-search checkpoint"):
        load(tmp_path / "best.pt")


@pytest.mark.parametrize(("victim", "goal"), [("simple", "fake"), ("resnet9", "hide:dog"), ("resnet18", "invert")])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*is deprecated:FutureWarning")
def test_a_guided_attack_is_exported_with_its_victim(victim, goal, checkpoint, deployed, tmp_path):
    """As a graph without gradients, which does not need the victim's file."""
    saved = checkpoint("attack", victim=victim, architecture="guided", width=4, goal=goal, scale=0.2)
    model, images = deployed(saved), torch.rand(3, 3, 40, 30)
    assert model.needed == str(tmp_path / "victim.pt")
    with torch.no_grad():
        attacked = model(images)
    graph = model.exportable()
    (tmp_path / "victim.pt").unlink()
    with torch.no_grad():
        assert torch.allclose(graph(images), attacked, atol=1e-4)
        assert torch.allclose(torch.jit.trace(graph, (images[:2],), check_trace=False)(images), attacked, atol=1e-4)
    assert (attacked - images).abs().max() > 0.01


WEIGHTS = ((0.5, 0.0), (0.125, 0.375))  # of two members, for images as they are and mirrored


def ensemble_of(saved):
    rows = enumerate(zip(saved, WEIGHTS, strict=True))
    return pack_ensemble([(f"m{number}", each, *weights) for number, (each, weights) in rows])


def test_an_ensemble_of_classifiers_says_the_weighted_mean(checkpoint, deployed, draw_data):
    saved, images = [checkpoint("classify", architecture=name) for name in ("simple", "complex")], images_of(draw_data)
    (first, config), (second, _) = (classify.restore(each) for each in saved)
    a, b, c = (
        classify.predict(first, images, config),
        classify.predict(second, images, config),
        classify.predict(second, images[:, :, ::-1].copy(), config),
    )
    expected = 0.5 * a + 0.125 * b + 0.375 * c
    together = ensemble_of(saved)
    assert classify.predict(classify.restore(together)[0], images, config) == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        assert deployed(together)(unit(images)).numpy() == pytest.approx(expected, abs=1e-6)
    told = describe(together, deployed(together))["members"]
    assert told == '[{"name": "m0", "plain": 0.5, "mirrored": 0.0}, {"name": "m1", "plain": 0.125, "mirrored": 0.375}]'


def test_an_ensemble_of_segmenters_says_the_weighted_mean(checkpoint, deployed, draw_data):
    saved, images = [checkpoint("segment", seed=seed) for seed in (0, 1)], images_of(draw_data)
    (first, config), (second, _) = (segment.restore(each) for each in saved)

    def said(model, images):
        return torch.stack([*segment.predict_logits(model, images, config)]).softmax(1)

    mirrored = said(second, images[:, :, ::-1].copy()).flip(-1)
    expected = 0.5 * said(first, images) + 0.125 * said(second, images) + 0.375 * mirrored
    together = ensemble_of(saved)
    torch.testing.assert_close(said(segment.restore(together)[0], images), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(deployed(together)(unit(images)), expected, atol=1e-5, rtol=0)
