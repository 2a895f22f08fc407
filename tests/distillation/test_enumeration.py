import pytest
import torch

from vqdistill.distillation.enumeration import codes_of, enumerate_latents, index_of
from vqdistill.models.pixelcnn import PixelCNN, PixelCNNSettings


@pytest.mark.parametrize("chunk", [1, 7, 24, 10**6])
def test_enumeration_equals_brute_force(tabular_prior, chunk):
    prior = tabular_prior(3, (2, 2), 2)
    parts = list(enumerate_latents(prior, chunk))
    codes, by_class = (torch.cat(part) for part in zip(*parts, strict=True))
    assert torch.equal(codes, prior.every_latent())
    torch.testing.assert_close(by_class.exp() / 2, prior.joint(), rtol=1e-12, atol=0)
    assert max(len(part) for part, _ in parts) <= max(chunk, prior.codebook_size)


def test_each_prefix_is_evaluated_once(tabular_prior):
    prior = tabular_prior(3, (2, 2), 2)
    list(enumerate_latents(prior, chunk=10))
    assert prior.evaluations == 2 * (1 + 3 + 9 + 27) * 3


def test_enumeration_of_a_network(monkeypatch):
    monkeypatch.setattr("vqdistill.distillation.enumeration.PREFIXES", 6)
    torch.manual_seed(0)
    prior = PixelCNN(4, (2, 2), 3, PixelCNNSettings(8, 3, 8))
    parts = list(enumerate_latents(prior, chunk=40))
    codes, by_class = (torch.cat(part) for part in zip(*parts, strict=True))
    assert max(len(part) for part, _ in parts) == 8
    for c in range(3):
        expected = prior.log_prob(codes, torch.full((256,), c))
        torch.testing.assert_close(by_class[:, c], expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(by_class.exp().sum(0), torch.ones(3).double())


def test_places_in_the_order(tabular_prior):
    codes = tabular_prior(3, (2, 2), 2).every_latent()
    assert torch.equal(index_of(codes, 3, (2, 2)), torch.arange(81))
    assert torch.equal(codes_of(torch.arange(81), 3, (2, 2)), codes)
