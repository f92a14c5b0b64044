import numpy as np
import pytest
import torch

from voctrain import attack
from voctrain.attack import objective


@pytest.mark.parametrize("goal", ["fake", "invert", "hide:dog", "privacy"])
def test_gradients_are_float32_within_autocast(draw_data, config, goal):
    evaluator = attack.AttackEvaluator(config(goal=goal), draw_data())
    noise = 0.1 * torch.rand_like(evaluator.images)  # at the unperturbed images, privacy has no gradient

    def gradients():
        yield objective.gradient(evaluator.images + noise, evaluator.losses(evaluator.images))
        yield evaluator.descent(evaluator.images)

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert evaluator.victim(evaluator.images).dtype == torch.bfloat16
        in_autocast = list(gradients())
        assert evaluator.victim(evaluator.images).dtype == torch.bfloat16
    for within, exact in zip(in_autocast, gradients(), strict=True):
        assert within.dtype == torch.float32
        assert torch.equal(within, exact)


@pytest.mark.parametrize("goal", ["hide:dog", "add:dog", "privacy"])
def test_there_is_no_descent_from_an_image_that_has_reached_the_goal(draw_data, config, goal):
    evaluator = attack.AttackEvaluator(config(goal=goal), draw_data())
    is_dog = torch.tensor([name == "dog" for name in evaluator.victim.classes])
    certain = -30.0 if goal.startswith("hide") else 30.0
    evaluator.victim.register_forward_hook(lambda module, images, logits: torch.where(is_dog, logits + certain, logits))
    assert not evaluator.descent(evaluator.images).any()


def test_rescored_checks_the_constraint_once(draw_data, config):
    options = config(goal="privacy", max_ssim=0.5)
    evaluator = attack.AttackEvaluator(options, draw_data())
    _, predictions = evaluator(torch.zeros_like(evaluator.images))
    for ssim_, score in ((0.75, -0.5), (0.45, 1.0)):  # visible; hidden, with unchanged answers
        known = predictions | {"ssim": np.linspace(ssim_ - 0.2, ssim_ + 0.2, len(evaluator.images))}
        assert evaluator.measure(known)["score"] == pytest.approx(score)
        assert [evaluator.rescored(known)([i]) for i in range(len(evaluator.images))] == pytest.approx([score] * 8)
