import pytest
import torch
from torch import nn

from voctrain.config import ClassifyConfig
from voctrain.optim import Schedule, build_optimizer


def rates(steps_per_epoch=4, scores=None, **values):
    """The learning rates of all batches of a training."""
    config = ClassifyConfig(**({"lr": 1.0, "epochs": 3} | values))
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    schedule = Schedule(optimizer, config, steps_per_epoch)
    seen = []
    for epoch in range(config.epochs):
        for _ in range(steps_per_epoch):
            optimizer.step()
            seen.append(schedule.lr)
            schedule.step()
        schedule.end_epoch(scores[epoch] if scores else 0.0)
    return seen


def test_one_cycle_steps_once_per_actual_batch():
    seen = rates(schedule="one_cycle", div_factor=10)
    assert seen[0] == pytest.approx(0.1)
    assert max(seen) > 0.9
    assert seen[-1] < 0.1
    assert len(set(seen)) == 12


def test_cosine_is_half_in_the_middle():
    seen = rates(schedule="cosine", epochs=2)
    assert seen[0] == 1.0
    assert seen[4] == pytest.approx(0.5)


def test_step_drops_at_epochs():
    seen = rates(schedule="step", step_epochs=1, gamma=0.5)
    assert seen == pytest.approx([1.0] * 4 + [0.5] * 4 + [0.25] * 4)


def test_linear_matches_the_notebooks_ramp():
    seen = rates(schedule="linear", lr=1.5e-4, end_factor=1.7 / 1.5)
    assert seen[0] == pytest.approx(1.5e-4)
    assert seen[6] == pytest.approx(1.6e-4)


def test_plateau_drops_after_patience():
    seen = rates(schedule="plateau", gamma=0.1, plateau_patience=1, epochs=4, scores=[0.5, 0.4, 0.4, 0.4])
    assert seen[::4] == pytest.approx([1.0, 1.0, 1.0, 0.1])


def test_constant_and_replay():
    assert rates(schedule="constant") == [1.0] * 12
    assert rates(schedule="replay", lr_by_epoch=(0.1, 0.3, 0.2))[::4] == pytest.approx([0.1, 0.3, 0.2])


@pytest.mark.parametrize("schedule", ["cosine", "step", "linear", "plateau", "constant"])
def test_warm_up_rises_to_the_schedule(schedule):
    seen = rates(schedule=schedule, warmup_epochs=1)
    assert seen[0] == pytest.approx(0.01)
    assert seen[:5] == sorted(seen[:5])
    assert seen[4:] == pytest.approx(rates(schedule=schedule)[4:])


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "adagrad"])
def test_weight_decay_applies_to_weights_but_not_biases(optimizer):
    model = nn.Linear(2, 2)
    built = build_optimizer(model, ClassifyConfig(optimizer=optimizer, weight_decay=0.3, lr=0.1))
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in built.param_groups] == [(0.3, [2]), (0.0, [1])]
    nn.init.ones_(model.weight)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    built.step()
    assert (model.weight < 1).all()


def test_momentum_has_an_effect():
    assert build_optimizer(nn.Linear(1, 1), ClassifyConfig(optimizer="sgd", momentum=0.5)).defaults["momentum"] == 0.5
