import pytest
import torch
from helpers import TabularPrior, small_prior

from vqdistill.distillation.enumeration import codes_of, enumerate_latents, index_of


@pytest.mark.parametrize("at_once", [1, 7, 24, 10**6])
def test_enumeration_equals_brute_force(at_once):
    prior = TabularPrior(3, (2, 2))
    parts = list(enumerate_latents(prior, at_once))
    codes, by_class = (torch.cat(part) for part in zip(*parts, strict=True))
    assert torch.equal(codes, prior.every_latent())
    torch.testing.assert_close(by_class.exp() / 2, prior.joint(), rtol=1e-12, atol=0)
    assert max(len(part) for part, _ in parts) <= 3 * max(1, at_once // 2)
    assert prior.evaluations == 2 * (1 + 3 + 9 + 27) * 3  # of each prefix and class once


def test_enumeration_of_a_network():
    parts = list(enumerate_latents(prior := small_prior((2, 2), 4, 3, head=8), at_once=6))
    codes, by_class = (torch.cat(part) for part in zip(*parts, strict=True))
    for c in range(3):
        expected = prior.log_prob(codes, torch.full((256,), c))
        torch.testing.assert_close(by_class[:, c], expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(by_class.exp().sum(0), torch.ones(3).double())


def test_places_in_the_order():
    codes = TabularPrior(3, (2, 2)).every_latent()
    assert torch.equal(index_of(codes, 3, (2, 2)), torch.arange(81))
    assert torch.equal(codes_of(torch.arange(81), 3, (2, 2)), codes)
