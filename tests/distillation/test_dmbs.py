import math

import pytest
import torch
from helpers import TabularPrior, seeded, small_prior
from priors import beginnings, n_distinct, of_a_single_latent

from vqdistill.distillation import dmbs
from vqdistill.distillation.enumeration import index_of


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_wide_beam_returns_every_latent_ranked(scale):
    prior = TabularPrior(3, (2, 2), scale=scale)
    for c in range(2):
        codes, scores = dmbs.search(prior, c, 81, seeded())
        expected, order = (prior.joint()[:, c] * 2).log().sort(descending=True)
        torch.testing.assert_close(scores, expected)
        assert torch.equal(index_of(codes, 3, prior.grid), order)


def test_scores_are_log_p_of_the_class():
    prior = TabularPrior(4, (2, 2), 3)
    codes, scores = dmbs.search(prior, 1, 11, seeded())
    torch.testing.assert_close(scores, prior.log_prob(codes, torch.full((11,), 1)))
    assert (scores.diff() <= 0).all()


def test_beam_samples_its_children():
    """A beam of one samples two distinct codes of each position, and keeps the likelier one."""
    prior = TabularPrior(4, (1, 1), 1)
    p = prior.tables[0][0, 0].exp()
    expected = torch.zeros(4, dtype=torch.float64)
    for a in range(4):
        for b in set(range(4)) - {a}:
            expected[a if p[a] > p[b] else b] += p[a] * p[b] / (1 - p[a])
    generator = seeded()
    found = [dmbs.search(prior, 0, 1, generator)[0].item() for _ in range(2000)]
    frequency = torch.bincount(torch.tensor(found), minlength=4) / 2000
    torch.testing.assert_close(frequency.double(), expected, rtol=0, atol=0.04)
    assert frequency[p.argmax()] < 1


def test_merge_is_round_robin_by_rank_without_duplicates():
    found = [torch.tensor(z)[:, None, None] for z in ([1, 2, 3], [1, 2, 4], [9, 1, 5])]
    merged, classes = dmbs.merge(found, [7, 5, 6], 10)
    assert merged.flatten().tolist() == [1, 2, 9, 3, 4, 5]
    assert classes.tolist() == [7, 5, 6, 7, 5, 6]
    merged, classes = dmbs.merge(found, [7, 5, 6], 4)
    assert merged.flatten().tolist() == [1, 2, 9, 3]


def test_selection_is_balanced_over_classes():
    prior = small_prior((2, 2), 16, 4, head=8)
    chosen = dmbs.select(prior, 30, seeded())
    assert n_distinct(chosen.codes) == 30
    assert sorted(chosen.classes.bincount(minlength=4).tolist()) == [7, 7, 8, 8]
    assert chosen.classes[:4].sort().values.tolist() == [0, 1, 2, 3]
    assert torch.equal(chosen.classes[4:8], chosen.classes[:4])
    by_class = [prior.log_prob(chosen.codes, torch.full((30,), c)) for c in range(4)]
    expected = torch.stack(by_class, 1).exp().mean(1).log()
    torch.testing.assert_close(chosen.log_prob, expected)


def test_first_classes_are_permuted():
    prior = TabularPrior(3, (2, 2), 5)
    first = {dmbs.select(prior, 1, seeded(seed)).classes.item() for seed in range(40)}
    assert first == set(range(5))


@pytest.mark.parametrize("n", [1, 3, 10, 64, 200])
def test_evaluations_are_linear_in_n(n):
    """One search, since classes hardly meet among 16^16 latents: at most (N + C) H W K."""
    prior = small_prior((4, 4), 16, 3, head=8)
    chosen = dmbs.select(prior, n, seeded())
    assert n_distinct(chosen.codes) == n
    assert 0 < chosen.evaluations <= (n + 3) * 16 * 16
    assert chosen.weighting_evaluations == beginnings(chosen.codes) * 3 * 16


@pytest.mark.parametrize("n", [9, 27, 60, 81])
def test_beam_is_widened_until_n_are_distinct(n):
    """Classes that agree give the same latents: beams of ceil(N / C) hold too few distinct."""
    prior = TabularPrior(3, (2, 2), 3, 4.0)
    prior.tables = [table[:1].expand_as(table) for table in prior.tables]
    chosen = dmbs.select(prior, n, seeded())
    assert n_distinct(chosen.codes) == n
    assert 3 * math.ceil(n / 3) * 4 * 3 < chosen.evaluations <= 4 * n * 3 * 4 * 3


def test_peaked_prior():
    chosen = dmbs.select(of_a_single_latent(), 9, seeded())
    assert n_distinct(chosen.codes) == 9
    assert chosen.codes[0].sum() == 0
