import pytest
import torch

from voctrain import attack
from voctrain.attack import objective
from voctrain.attack.victim import digits_victim, load_victim
from voctrain.config import AttackConfig
from voctrain.data import load
from voctrain.images import to_unit


@pytest.mark.parametrize("architecture", ["residual", "guided"])
def test_victim_stays_frozen_and_out_of_the_generator_state(
    trained, architecture, draw_data, config, victims, monkeypatch
):
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


@pytest.mark.slow
def test_digits_victim_has_exclusive_classes(trained, cache):
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
