import math

import pytest
import torch

from vqdistill.distillation import dmbs
from vqdistill.distillation.enumeration import index_of
from vqdistill.errors import InputError
from vqdistill.models.pixelcnn import PixelCNN, PixelCNNSettings


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_wide_beam_returns_every_latent_ranked(tabular_prior, generator, scale):
    prior = tabular_prior(3, (2, 2), 2, scale)
    for c in range(2):
        codes, scores = dmbs.search(prior, c, 81, generator)
        expected, order = (prior.joint()[:, c] * 2).log().sort(descending=True)
        torch.testing.assert_close(scores, expected)
        assert torch.equal(index_of(codes, 3, prior.grid), order)


def test_scores_are_log_p_of_the_class(tabular_prior, generator):
    prior = tabular_prior(4, (2, 2), 3)
    codes, scores = dmbs.search(prior, 1, 11, generator)
    torch.testing.assert_close(scores, prior.log_prob(codes, torch.full((11,), 1)))
    assert (scores.diff() <= 0).all()


def test_beam_samples_its_children(tabular_prior):
    """A beam of one samples two distinct codes of each position, and keeps the likelier one."""
    prior = tabular_prior(4, (1, 1), 1, 1.0)
    p = prior.tables[0][0, 0].exp()
    expected = torch.zeros(4, dtype=torch.float64)
    for a in range(4):
        for b in set(range(4)) - {a}:
            expected[a if p[a] > p[b] else b] += p[a] * p[b] / (1 - p[a])
    generator = torch.Generator().manual_seed(0)
    found = [dmbs.search(prior, 0, 1, generator)[0].item() for _ in range(2000)]
    frequency = torch.bincount(torch.tensor(found), minlength=4) / 2000
    torch.testing.assert_close(frequency.double(), expected, rtol=0, atol=0.04)
    assert frequency[p.argmax()] < 1


def test_number_of_children(tabular_prior, generator, monkeypatch):
    """M = min(K, max(2, ceil(2B / n))) of beams of n = 1, 4, 5, 5 hypotheses; B = 5, K = 4."""
    asked = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda x, k: asked.append((x.ndim, len(x), k)) or topk(x, k)
    )
    dmbs.search(tabular_prior(4, (2, 2), 1), 0, 5, generator)
    assert [(n, k) for ndim, n, k in asked if ndim == 2] == [(1, 4), (4, 3), (5, 2), (5, 2)]


def test_merge_is_round_robin_by_rank_without_duplicates():
    def codes(*values):
        return torch.tensor(values)[:, None, None]

    found = [codes(1, 2, 3), codes(1, 2, 4), codes(9, 1, 5)]
    merged, classes = dmbs.merge(found, [7, 5, 6], 10)
    assert merged.flatten().tolist() == [1, 2, 9, 3, 4, 5]
    assert classes.tolist() == [7, 5, 6, 7, 5, 6]
    merged, classes = dmbs.merge(found, [7, 5, 6], 4)
    assert merged.flatten().tolist() == [1, 2, 9, 3]


def test_selection_is_balanced_over_classes(generator):
    torch.manual_seed(0)
    prior = PixelCNN(16, (2, 2), 4, PixelCNNSettings(8, 3, 8))
    chosen = dmbs.select(prior, 30, generator)
    assert len(chosen.codes.flatten(1).unique(dim=0)) == 30
    assert sorted(chosen.classes.bincount(minlength=4).tolist()) == [7, 7, 8, 8]
    assert chosen.classes[:4].sort().values.tolist() == [0, 1, 2, 3]
    assert torch.equal(chosen.classes[4:8], chosen.classes[:4])
    chosen_class = chosen.log_prob_by_class.gather(1, chosen.classes[:, None])[:, 0]
    torch.testing.assert_close(chosen_class, prior.log_prob(chosen.codes, chosen.classes))
    by_class = [prior.log_prob(chosen.codes, torch.full((30,), c)) for c in range(4)]
    expected = torch.stack(by_class, 1).exp().mean(1).log()
    torch.testing.assert_close(chosen.log_prob, expected)


def test_first_classes_are_permuted(tabular_prior):
    prior = tabular_prior(3, (2, 2), 5)
    first = {
        dmbs.select(prior, 1, torch.Generator().manual_seed(seed)).classes.item()
        for seed in range(40)
    }
    assert first == set(range(5))


@pytest.mark.parametrize("n", [1, 3, 10, 64, 200])
def test_evaluations_are_linear_in_n(generator, beginnings, n):
    """One search, since classes hardly meet among 16^16 latents: at most (N + C) H W K."""
    torch.manual_seed(0)
    prior = PixelCNN(16, (4, 4), 3, PixelCNNSettings(8, 3, 8))
    rows = []
    prior.head.register_forward_hook(lambda _, inputs, out: rows.append(len(out)))
    chosen = dmbs.select(prior, n, generator)
    assert len(chosen.codes.flatten(1).unique(dim=0)) == n
    assert chosen.evaluations <= (n + 3) * 16 * 16
    searched = 3 * 16  # calls: classes, positions
    assert sum(rows[:searched]) * 16 == chosen.evaluations
    assert chosen.weighting_evaluations == beginnings(chosen.codes) * 3 * 16


@pytest.mark.parametrize("n", [9, 27, 60, 81])
def test_beam_is_widened_until_n_are_distinct(tabular_prior, generator, n):
    """Classes that agree give the same latents: beams of ceil(N / C) hold too few distinct."""
    prior = tabular_prior(3, (2, 2), 3, 4.0)
    prior.tables = [table[:1].expand_as(table) for table in prior.tables]
    chosen = dmbs.select(prior, n, generator)
    assert len(chosen.codes.flatten(1).unique(dim=0)) == n
    assert 3 * math.ceil(n / 3) * 4 * 3 < chosen.evaluations <= 4 * n * 3 * 4 * 3


def test_peaked_prior(single_latent_prior, generator):
    chosen = dmbs.select(single_latent_prior, 9, generator)
    assert len(chosen.codes.flatten(1).unique(dim=0)) == 9
    assert chosen.codes[0].sum() == 0


def test_equal_seeds_give_equal_selections(tabular_prior):
    prior = tabular_prior(4, (2, 2), 3)
    one, two = (dmbs.select(prior, 20, torch.Generator().manual_seed(9)) for _ in range(2))
    other = dmbs.select(prior, 20, torch.Generator().manual_seed(10))
    assert torch.equal(one.codes, two.codes)
    assert torch.equal(one.classes, two.classes)
    assert not torch.equal(one.codes, other.codes)


@pytest.mark.parametrize("n", [0, 82])
def test_impossible_sizes_are_refused(tabular_prior, generator, n):
    with pytest.raises(InputError, match="n_components"):
        dmbs.select(tabular_prior(3, (2, 2)), n, generator)
