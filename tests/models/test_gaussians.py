import math

import pytest
import torch
from torch.distributions import Normal

from vqdistill.circuits.base import MAX_STD, MIN_STD
from vqdistill.models.gaussians import (
    HIGHEST,
    LOWEST,
    NegativeLogLikelihood,
    gaussian_log_prob,
    gaussians,
)


@pytest.fixture
def x():
    return torch.rand(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    """Means of all sizes, and log-variances on both sides of both bounds."""
    numbers = torch.Generator().manual_seed(1)
    maps = 2 * torch.randn(5, 2, 12, dtype=torch.float64, generator=numbers)
    maps[:, 1] = torch.linspace(2 * LOWEST - 1, 2 * HIGHEST + 1, 60).view(5, 12)
    assert all(((maps[:, 1] / 2 < LOWEST).any(), (maps[:, 1] / 2 > HIGHEST).any()))
    return maps.requires_grad_()


def test_gaussians_stay_between_the_bounds(maps):
    means, log_stds = gaussians(maps)
    torch.testing.assert_close(means, 1 / (1 + torch.exp(-maps[:, 0])))
    assert log_stds.exp().min().item() == pytest.approx(MIN_STD)
    assert log_stds.exp().max().item() == pytest.approx(MAX_STD)
    inside = (log_stds > LOWEST) & (log_stds < HIGHEST)
    assert inside.any()
    torch.testing.assert_close(log_stds[inside].exp().square(), maps[:, 1][inside].exp())


def test_the_likelihood_is_that_of_torch_distributions(x, maps):
    means, log_stds = gaussians(maps)
    expected = Normal(means, log_stds.exp()).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, means, log_stds), expected)
    torch.testing.assert_close(NegativeLogLikelihood.apply(x, maps), -expected.sum(1))


def test_the_gradient_is_that_of_the_likelihood_step_by_step(x, maps):
    """With bounds by `clamp`, whose gradient is zero outside."""
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    means, log_stds = gaussians(maps)
    step_by_step = -(weights * gaussian_log_prob(x, means, log_stds).sum(1)).sum()
    (expected,) = torch.autograd.grad(step_by_step, maps)
    (found,) = torch.autograd.grad((weights * NegativeLogLikelihood.apply(x, maps)).sum(), maps)
    torch.testing.assert_close(found, expected)
    outside = (maps[:, 1] < 2 * LOWEST) | (maps[:, 1] > 2 * HIGHEST)
    assert (found[:, 1][outside] == 0).all()
    assert (found[:, 1][~outside] != 0).all()


def test_the_gradient_is_that_of_finite_differences(x, maps):
    assert torch.autograd.gradcheck(lambda m: NegativeLogLikelihood.apply(x, m), (maps,))


def test_float32_is_as_exact_as_step_by_step(x, maps):
    """Standard deviations of 10^-3 square to terms of 10^6."""
    found = NegativeLogLikelihood.apply(x.float(), maps.detach().float()).double()
    expected = -Normal(*(p.exp() if i else p for i, p in enumerate(gaussians(maps)))).log_prob(x)
    torch.testing.assert_close(found, expected.sum(1), rtol=1e-5, atol=1e-4)
    assert math.isfinite(found.max())
