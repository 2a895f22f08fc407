import pytest
import torch
from scipy.stats import chisquare

from vqdistill.distillation import frequent, random
from vqdistill.distillation.enumeration import index_of
from vqdistill.errors import InputError


@pytest.mark.parametrize("limit", [0, 2**20])
def test_random_codes_are_uniform_and_distinct(tabular_prior, monkeypatch, limit):
    monkeypatch.setattr(random, "PERMUTABLE", limit)
    monkeypatch.setattr(random, "BATCH", 4)
    prior = tabular_prior(3, (1, 2), 2, 5.0)
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(9)
    for _ in range(600):
        index = index_of(random.select(prior, 3, generator).codes, 3, prior.grid)
        assert len(index.unique()) == 3
        counts[index] += 1
    # three of nine without replacement vary 6/8 as much as independent draws
    assert 1e-3 < chisquare(counts).pvalue < 1 - 1e-3


@pytest.mark.parametrize("limit", [0, 2**20])
def test_random_codes_nest_and_cost_nothing(tabular_prior, beginnings, monkeypatch, limit):
    monkeypatch.setattr(random, "PERMUTABLE", limit)
    prior = tabular_prior(3, (2, 2), 2)
    large = random.select(prior, 81, torch.Generator().manual_seed(0))
    small = random.select(prior, 10, torch.Generator().manual_seed(0))
    assert torch.equal(large.codes[:10], small.codes)
    assert len(large.codes.flatten(1).unique(dim=0)) == 81
    assert small.evaluations == 0
    assert small.weighting_evaluations == beginnings(small.codes) * 2 * 3
    assert (small.classes == -1).all()


def test_most_frequent_codes_first(tabular_prior, generator):
    prior = tabular_prior(3, (1, 2), 2)
    everything = prior.every_latent()
    times = torch.tensor([0, 4, 1, 2, 0, 2, 2, 0, 9])
    training_codes = everything.repeat_interleave(times, dim=0)
    training_codes = training_codes[torch.randperm(len(training_codes), generator=generator)]
    log_prob = prior.joint().sum(1).log()
    tied = sorted([3, 5, 6], key=lambda i: -log_prob[i])
    for n in range(1, 7):
        chosen = frequent.select(prior, n, generator, training_codes)
        assert index_of(chosen.codes, 3, prior.grid).tolist() == [8, 1, *tied, 2][:n]
        assert (chosen.classes == -1).all()


def test_last_ties_go_in_lexicographic_order(tabular_prior, generator):
    prior = tabular_prior(3, (1, 2), 2, scale=0.0)
    chosen = frequent.select(prior, 4, generator, prior.every_latent().flip(0))
    assert torch.equal(chosen.codes, prior.every_latent()[:4])


@pytest.mark.parametrize("limit", [0, 2**20])
def test_filled_up_from_the_prior(tabular_prior, monkeypatch, limit):
    monkeypatch.setattr("vqdistill.distillation.dmrs.ENUMERABLE", limit)
    prior = tabular_prior(3, (1, 2), 2, scale=2.0)
    training_codes = prior.every_latent()[[5, 5, 7]]
    p = prior.joint().sum(1)
    p[[5, 7]] = 0
    p /= p.sum()
    counts = torch.zeros(9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        chosen = frequent.select(prior, 3, generator, training_codes)
        index = index_of(chosen.codes, 3, prior.grid)
        assert index[:2].tolist() == [5, 7]
        counts[index[2]] += 1
    assert chosen.classes[2] >= 0
    assert counts[p == 0].sum() == 0
    assert chisquare(counts[p > 0], 500 * p[p > 0]).pvalue > 1e-3
    everything = frequent.select(prior, 9, generator, training_codes)
    assert len(everything.codes.flatten(1).unique(dim=0)) == 9


def test_frequent_needs_training_codes(tabular_prior, generator):
    with pytest.raises(InputError, match="training codes"):
        frequent.select(tabular_prior(), 2, generator, None)


@pytest.mark.parametrize("method", [random, frequent])
def test_impossible_sizes_are_refused(tabular_prior, generator, method):
    prior = tabular_prior(3, (1, 2))
    with pytest.raises(InputError, match="n_components"):
        method.select(prior, 10, generator, prior.every_latent())
