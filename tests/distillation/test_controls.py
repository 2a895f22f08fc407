import pytest
import torch
from helpers import TabularPrior, refusal, seeded
from priors import beginnings, n_distinct
from scipy.stats import chisquare

from vqdistill.distillation import frequent, random
from vqdistill.distillation.enumeration import index_of


def of_few(n, generator):
    """From 9 latents, which can be permuted."""
    return random.select(TabularPrior(3, (1, 2), scale=5.0), n, generator).codes


def of_many(n, generator):
    """The same, as where there are too many latents for that."""
    return random.draw_distinct(3, (1, 2), n, generator)


@pytest.mark.parametrize("draw", [of_few, of_many])
def test_random_codes_are_uniform_distinct_and_nest(draw):
    generator, counts = seeded(), torch.zeros(9)
    for _ in range(600):
        index = index_of(draw(3, generator), 3, (1, 2))
        assert len(index.unique()) == 3
        counts[index] += 1
    # three of nine without replacement vary 6/8 as much as independent draws
    assert 1e-3 < chisquare(counts).pvalue < 1 - 1e-3
    large, small = draw(9, seeded(1)), draw(4, seeded(1))
    assert torch.equal(large[:4], small)
    assert n_distinct(large) == 9


def test_random_codes_cost_nothing():
    prior = TabularPrior(3, (2, 2))
    chosen = random.select(prior, 10, seeded())
    assert chosen.evaluations == 0
    assert chosen.weighting_evaluations == beginnings(chosen.codes) * 2 * 3
    assert (chosen.classes == -1).all()


def test_most_frequent_codes_first():
    prior = TabularPrior(3, (1, 2))
    times = torch.tensor([0, 4, 1, 2, 0, 2, 2, 0, 9])
    training_codes = prior.every_latent().repeat_interleave(times, dim=0)
    training_codes = training_codes[torch.randperm(len(training_codes), generator=seeded())]
    log_prob = prior.joint().sum(1).log()
    tied = sorted([3, 5, 6], key=lambda i: -log_prob[i])
    for n in range(1, 7):
        chosen = frequent.select(prior, n, seeded(), training_codes)
        assert index_of(chosen.codes, 3, prior.grid).tolist() == [8, 1, *tied, 2][:n]
        assert (chosen.classes == -1).all()


def test_last_ties_go_in_lexicographic_order():
    prior = TabularPrior(3, (1, 2), scale=0.0)
    chosen = frequent.select(prior, 4, seeded(), prior.every_latent().flip(0))
    assert torch.equal(chosen.codes, prior.every_latent()[:4])


def test_filled_up_from_the_prior():
    prior = TabularPrior(3, (1, 2), scale=2.0)
    training_codes = prior.every_latent()[[5, 5, 7]]
    p = prior.joint().sum(1)
    p[[5, 7]] = 0
    p /= p.sum()
    generator, counts = seeded(), torch.zeros(9)
    for _ in range(500):
        chosen = frequent.select(prior, 3, generator, training_codes)
        index = index_of(chosen.codes, 3, prior.grid)
        assert index[:2].tolist() == [5, 7]
        counts[index[2]] += 1
    assert chosen.classes[2] >= 0
    assert counts[p == 0].sum() == 0
    assert chisquare(counts[p > 0], 500 * p[p > 0]).pvalue > 1e-3
    assert n_distinct(frequent.select(prior, 9, generator, training_codes).codes) == 9


def test_frequent_needs_training_codes():
    assert "training codes" in refusal(frequent.select, TabularPrior(), 2, seeded(), None)
