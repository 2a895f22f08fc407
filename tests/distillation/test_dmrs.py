"""The law of DMRS is tested against successive sampling without replacement, by chi-square."""

import itertools
import weakref

import pytest
import torch
from scipy.stats import chisquare

from vqdistill.distillation import dmrs
from vqdistill.distillation.enumeration import index_of
from vqdistill.errors import InputError
from vqdistill.models.pixelcnn import PixelCNN, PixelCNNSettings

SMALLEST_P_VALUE = 1e-3
DRAWS = 1000


def ancestral(monkeypatch):
    monkeypatch.setattr(dmrs, "ENUMERABLE", 0)
    monkeypatch.setattr(dmrs, "LEAST_ACCEPTANCE", 0.0)


def beam_after_first(monkeypatch):
    """One draw by ancestral sampling, the others by the beam, outside of that one."""
    monkeypatch.setattr(dmrs, "ENUMERABLE", 0)
    monkeypatch.setattr(dmrs, "JUDGED_BATCH", 1)
    monkeypatch.setattr(dmrs, "LEAST_ACCEPTANCE", 2.0)


def enumerated(monkeypatch):
    pass


PATHS = pytest.mark.parametrize("path", [enumerated, ancestral, beam_after_first])


def check_counts(counts, expected):
    """Chi-square with the cells of few expected counts pooled."""
    few = expected < 8
    if few.any():
        counts = torch.cat([counts[~few], counts[few].sum()[None]])
        expected = torch.cat([expected[~few], expected[few].sum()[None]])
    assert chisquare(counts, expected).pvalue > SMALLEST_P_VALUE


def draw(prior, n, generator):
    nothing = torch.zeros(0, *prior.grid, dtype=torch.int64)
    codes, classes = dmrs.draw(prior, n, generator, nothing)
    return index_of(codes, prior.codebook_size, prior.grid), classes


def ordered_pairs(p):
    """Probabilities of all (first, second) of successive sampling from p [n], [n, n]."""
    return (p[:, None] * p / (1 - p[:, None])).fill_diagonal_(0)


@PATHS
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ordered_pairs_follow_successive_sampling(tabular_prior, monkeypatch, path, scale):
    path(monkeypatch)
    prior = tabular_prior(3, (1, 2), 2, scale, seed=1)
    generator = torch.Generator().manual_seed(2)
    counts = torch.zeros(9, 9, dtype=torch.float64)
    for _ in range(DRAWS):
        first, second = draw(prior, 2, generator)[0]
        counts[first, second] += 1
    assert counts.diagonal().sum() == 0
    check_counts(counts.flatten(), DRAWS * ordered_pairs(prior.joint().sum(1)).flatten())


@PATHS
def test_inclusion_of_triples(tabular_prior, monkeypatch, path):
    path(monkeypatch)
    prior = tabular_prior(2, (1, 2), 3, 2.0, seed=4)
    p = prior.joint().sum(1)
    expected = torch.zeros(4, dtype=torch.float64)  # which latent of four is left out
    for a, b, c in itertools.permutations(range(4), 3):
        left_out = 6 - a - b - c
        expected[left_out] += p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
    generator = torch.Generator().manual_seed(3)
    counts = torch.zeros(4, dtype=torch.float64)
    for _ in range(DRAWS):
        counts[6 - draw(prior, 3, generator)[0].sum()] += 1
    check_counts(counts, DRAWS * expected)


@PATHS
def test_classes_are_those_drawn_under(tabular_prior, monkeypatch, path):
    path(monkeypatch)
    prior = tabular_prior(2, (1, 2), 3, 2.0, seed=5)
    joint = prior.joint()  # [4, 3]
    p = joint.sum(1)
    expected = torch.zeros(4, 3, dtype=torch.float64)  # latent and class of the second
    for a, b in itertools.permutations(range(4), 2):
        expected[b] += p[a] * joint[b] / (1 - p[a])
    generator = torch.Generator().manual_seed(6)
    counts = torch.zeros(4, 3, dtype=torch.float64)
    for _ in range(DRAWS):
        index, classes = draw(prior, 2, generator)
        counts[index[1], classes[1]] += 1
    check_counts(counts.flatten(), DRAWS * expected.flatten())


@pytest.mark.parametrize("group", [1, 3, 1000])  # prefixes followed at once
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_beam_samples_pairs_without_replacement(tabular_prior, monkeypatch, scale, group):
    monkeypatch.setattr(dmrs, "GROUP", group)
    prior = tabular_prior(2, (1, 2), 2, scale, seed=7)
    generator = torch.Generator().manual_seed(8)
    counts = torch.zeros(8, 8, dtype=torch.float64)
    for _ in range(DRAWS):
        codes, classes = dmrs.stochastic_beam(prior, 3, generator)
        first, second, _ = 2 * index_of(codes, 2, prior.grid) + classes
        counts[first, second] += 1
    check_counts(counts.flatten(), DRAWS * ordered_pairs(prior.joint().flatten()).flatten())


def test_wide_beam_gives_every_pair(tabular_prior, generator, monkeypatch):
    monkeypatch.setattr(dmrs, "GROUP", 20)
    prior = tabular_prior(3, (2, 2), 2, 3.0)
    codes, classes = dmrs.stochastic_beam(prior, 1000, generator)
    pairs = 2 * index_of(codes, 3, prior.grid) + classes
    assert torch.equal(pairs.sort().values, torch.arange(162))


def held_by(prior, width):
    """The largest number of prefixes whose memory a beam holds at a time."""
    made, most = [], 0
    extend = prior.extend

    def counted(prefixes, parents, codes):
        nonlocal most
        longer = extend(prefixes, parents, codes)
        made.append(weakref.ref(longer))
        alive = [one() for one in made if one() is not None]
        most = max(most, sum(len(one.codes) for one in alive))
        return longer

    prior.extend = counted
    dmrs.stochastic_beam(prior, width, torch.Generator().manual_seed(0))
    return most


def test_memory_of_the_beam_does_not_grow_with_its_width(monkeypatch):
    monkeypatch.setattr(dmrs, "GROUP", 16)
    torch.manual_seed(0)
    prior = PixelCNN(32, (2, 3), 3, PixelCNNSettings(8, 2, 16)).eval()
    positions_and_next = 7
    assert held_by(prior, 2000) <= 16 * positions_and_next + prior.n_classes


def test_gumbels_conditioned_on_their_maximum(generator):
    perturbed = 5 * torch.randn(50, 6, generator=generator, dtype=torch.float64)
    maximum = torch.randn(50, generator=generator, dtype=torch.float64)
    found = dmrs.conditioned_on_max(perturbed, maximum)
    torch.testing.assert_close(found.amax(1), maximum)
    top = perturbed.amax(1, keepdim=True)
    expected = -torch.log((-maximum[:, None]).exp() - (-top).exp() + (-perturbed).exp())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("path", [enumerated, ancestral])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_selections_nest(tabular_prior, monkeypatch, path, scale):
    path(monkeypatch)
    prior = tabular_prior(3, (2, 2), 2, scale)
    large = dmrs.select(prior, 30, torch.Generator().manual_seed(5))
    for n in (1, 2, 17):
        small = dmrs.select(prior, n, torch.Generator().manual_seed(5))
        assert torch.equal(small.codes, large.codes[:n])


@PATHS
def test_selection_of_all_latents(tabular_prior, monkeypatch, path):
    if path is ancestral:
        monkeypatch.setattr(dmrs, "ENUMERABLE", 0)
    else:
        path(monkeypatch)
    prior = tabular_prior(3, (2, 2), 2, 3.0)
    chosen = dmrs.select(prior, 81, torch.Generator().manual_seed(0))
    assert len(chosen.codes.flatten(1).unique(dim=0)) == 81
    torch.testing.assert_close(chosen.log_prob.exp().sum().item(), 1.0)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_a_single_latent_with_all_the_mass(single_latent_prior, monkeypatch, limit):
    monkeypatch.setattr(dmrs, "ENUMERABLE", limit)
    prior = single_latent_prior
    chosen = dmrs.select(prior, 9, torch.Generator().manual_seed(0))
    assert len(chosen.codes.flatten(1).unique(dim=0)) == 9
    assert chosen.codes[0].sum() == 0
    # the eight other latents with one code that is not zero hold all but 1e-18 of the rest
    assert (chosen.codes[1:].flatten(1) > 0).sum(1).tolist() == [1] * 8
    assert chosen.evaluations <= 40 * 9 * 4 * 3 + 127 * 4 * 3 + 10**6 * (limit > 0)


@PATHS
def test_equal_seeds_give_equal_selections(tabular_prior, monkeypatch, path):
    path(monkeypatch)
    prior = tabular_prior(3, (2, 2), 2)
    one, two = (dmrs.select(prior, 20, torch.Generator().manual_seed(9)) for _ in range(2))
    other = dmrs.select(prior, 20, torch.Generator().manual_seed(10))
    assert torch.equal(one.codes, two.codes)
    assert torch.equal(one.classes, two.classes)
    assert one.evaluations == two.evaluations
    assert not torch.equal(one.codes, other.codes)


def test_on_a_network_that_cannot_be_enumerated(generator, beginnings):
    torch.manual_seed(0)
    prior = PixelCNN(16, (4, 4), 3, PixelCNNSettings(8, 3, 8))
    chosen = dmrs.select(prior, 100, generator)
    assert len(chosen.codes.flatten(1).unique(dim=0)) == 100
    # batches of 1, 2, ... 64 suffice
    assert chosen.evaluations == 127 * 16 * 16
    assert chosen.weighting_evaluations == beginnings(chosen.codes) * 3 * 16


@pytest.mark.parametrize("n", [0, 10])
def test_impossible_sizes_are_refused(tabular_prior, generator, n):
    with pytest.raises(InputError, match="n_components"):
        dmrs.select(tabular_prior(3, (1, 2)), n, generator)
