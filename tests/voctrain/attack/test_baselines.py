import pytest
import torch
import torch.nn.functional as F

from voctrain.attack.baselines import fgsm, pgd, random_sign, seeded, uniform_noise, universal

EPS = 0.03


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(5, 3, 8, 8) * 0.8 + 0.1  # nothing is clipped at 0 and 1


@pytest.fixture
def weight():
    torch.manual_seed(1)
    return torch.randn(3, 8, 8)


def test_gradient_attacks_match_closed_form_on_linear_victim(images, weight):
    def losses(x):
        return (x * weight).sum((1, 2, 3))

    best = -EPS * weight.sign().expand_as(images)
    torch.testing.assert_close(fgsm(images, EPS, losses), best)
    torch.testing.assert_close(pgd(images, EPS, losses), best)
    torch.testing.assert_close(universal(images, EPS, lambda batch: losses), best[:1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_attacks_are_float32_within_autocast(images, dtype):
    """In float16, a victim's gradient at logits of -10 would be 0, and so would its sign."""
    torch.manual_seed(2)
    victim = torch.nn.Linear(3 * 8 * 8, 4)

    def losses(x):
        return F.softplus(victim(x.flatten(1)) - 10).mean(1)

    def attacks():
        yield fgsm(images, EPS, losses)
        yield seeded(lambda: pgd(images, EPS, losses, steps=5))
        yield seeded(lambda: universal(images, EPS, lambda batch: losses))

    exact = list(attacks())
    with torch.autocast("cpu", dtype):
        assert victim(images.flatten(1)).dtype == dtype
        for within, expected in zip(attacks(), exact, strict=True):
            assert torch.equal(within, expected)


def test_eps_may_differ_between_pixels(images, weight):
    def losses(x):
        return (x * weight).sum((1, 2, 3))

    radius = EPS * torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(pgd(images, radius, losses), -radius * weight.sign())
    for make in (uniform_noise, random_sign):
        change = make(images, radius)
        assert (change.abs() <= radius + 1e-6).all()
        assert (change.abs() > 0.4 * radius).float().mean() > 0.5


def test_perturbations_stay_within_eps_and_image_range(weight):
    dark = torch.zeros(2, 3, 8, 8)

    def losses(x):
        return (x * weight).sum((1, 2, 3)) ** 2

    makers = (uniform_noise, random_sign, lambda x, eps: fgsm(x, eps, losses), lambda x, eps: pgd(x, eps, losses))
    for make in makers:
        for images in (dark, 1 - dark, dark + 0.5):
            change = make(images, EPS)
            assert change.abs().max() <= EPS + 1e-6
            assert 0 <= (images + change).min() <= (images + change).max() <= 1


def test_each_image_keeps_its_best_restart(images):
    """The loss has two valleys: the start decides which one is reached."""
    torch.manual_seed(0)

    def losses(x):
        mean = (x - images).mean((1, 2, 3)) / EPS
        return torch.where(mean < 0, -mean.abs(), -2 * mean.abs())

    def reached(restarts):
        torch.manual_seed(2)
        return losses(images + pgd(images, EPS, losses, steps=10, restarts=restarts))

    assert (reached(6) <= reached(1) + 1e-6).all()
    assert reached(6).max().item() == pytest.approx(-2, abs=0.01)


def test_noise_has_the_requested_strength(images):
    assert random_sign(images, EPS).abs().flatten().tolist() == pytest.approx([EPS] * images.numel(), abs=1e-6)
    noise = uniform_noise(images, EPS)
    assert noise.abs().mean().item() == pytest.approx(EPS / 2, rel=0.1)
