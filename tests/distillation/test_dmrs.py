"""The law of DMRS is tested against successive sampling without replacement, by chi-square."""

import itertools
import weakref

import pytest
import torch
from helpers import TabularPrior, chi_square, seeded, small_prior
from priors import beginnings, n_distinct, of_a_single_latent

from vqdistill.distillation import dmrs
from vqdistill.distillation.enumeration import index_of
from vqdistill.distillation.selection import new_rows

DRAWS = 1000


def nothing(prior):
    return torch.zeros(0, *prior.grid, dtype=torch.int64)


def enumerated(prior, n, generator):
    return dmrs.draw_enumerated(prior, n, generator, nothing(prior))


def ancestral(prior, n, generator):
    return dmrs.draw_ancestral(prior, n, generator, nothing(prior))


def beam_after_first(prior, n, generator):
    """One draw by ancestral sampling, the others by the beam, outside of that one."""
    codes, classes = ancestral(prior, 1, generator)
    seen: set[bytes] = set()
    new_rows(codes, seen, 1)
    more, of_more = dmrs.draw_beam(prior, n - 1, generator, seen)
    return torch.cat([codes, more]), torch.cat([classes, of_more])


PATHS = pytest.mark.parametrize("path", [enumerated, ancestral, beam_after_first])


def ordered_pairs(p):
    """Probabilities of all (first, second) of successive sampling from p [n], [n, n]."""
    return (p[:, None] * p / (1 - p[:, None])).fill_diagonal_(0)


@PATHS
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ordered_pairs_follow_successive_sampling(path, scale):
    prior, generator = TabularPrior(3, (1, 2), 2, scale, seed=1), seeded(2)
    counts = torch.zeros(9, 9, dtype=torch.float64)
    for _ in range(DRAWS):
        first, second = index_of(path(prior, 2, generator)[0], 3, prior.grid)
        counts[first, second] += 1
    assert counts.diagonal().sum() == 0
    assert chi_square(counts, DRAWS * ordered_pairs(prior.joint().sum(1))) < 1


@PATHS
def test_inclusion_of_triples(path):
    prior, generator = TabularPrior(2, (1, 2), 3, 2.0, seed=4), seeded(3)
    p = prior.joint().sum(1)
    expected = torch.zeros(4, dtype=torch.float64)  # which latent of four is left out
    for a, b, c in itertools.permutations(range(4), 3):
        expected[6 - a - b - c] += p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
    counts = torch.zeros(4, dtype=torch.float64)
    for _ in range(DRAWS):
        counts[6 - index_of(path(prior, 3, generator)[0], 2, prior.grid).sum()] += 1
    assert chi_square(counts, DRAWS * expected) < 1


@PATHS
def test_classes_are_those_drawn_under(path):
    prior, generator = TabularPrior(2, (1, 2), 3, 2.0, seed=5), seeded(6)
    joint = prior.joint()  # [4, 3]
    p = joint.sum(1)
    expected = torch.zeros(4, 3, dtype=torch.float64)  # latent and class of the second
    for a, b in itertools.permutations(range(4), 2):
        expected[b] += p[a] * joint[b] / (1 - p[a])
    counts = torch.zeros(4, 3, dtype=torch.float64)
    for _ in range(DRAWS):
        codes, classes = path(prior, 2, generator)
        counts[index_of(codes, 2, prior.grid)[1], classes[1]] += 1
    assert chi_square(counts, DRAWS * expected) < 1


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_beam_samples_pairs_without_replacement(scale, at_once):
    prior, generator = TabularPrior(2, (1, 2), 2, scale, seed=7), seeded(8)
    counts = torch.zeros(8, 8, dtype=torch.float64)
    for _ in range(DRAWS):
        codes, classes = dmrs.stochastic_beam(prior, 3, generator, at_once)
        first, second, _ = 2 * index_of(codes, 2, prior.grid) + classes
        counts[first, second] += 1
    assert chi_square(counts, DRAWS * ordered_pairs(prior.joint().flatten())) < 1


def test_wide_beam_gives_every_pair():
    prior = TabularPrior(3, (2, 2), 2, 3.0)
    codes, classes = dmrs.stochastic_beam(prior, 1000, seeded(), at_once=20)
    pairs = 2 * index_of(codes, 3, prior.grid) + classes
    assert torch.equal(pairs.sort().values, torch.arange(162))


def test_memory_of_the_beam_does_not_grow_with_its_width(monkeypatch):
    """16 prefixes at a time for each of the six positions, those to come, and the empty ones."""
    prior, made, most = small_prior((2, 3), 32, 3, head=8), [], 0
    extend = prior.extend

    def counted(prefixes, parents, codes):
        nonlocal most
        longer = extend(prefixes, parents, codes)
        made.append(weakref.ref(longer))
        alive = [one() for one in made if one() is not None]
        most = max(most, sum(len(one.codes) for one in alive))
        return longer

    monkeypatch.setattr(prior, "extend", counted)
    dmrs.stochastic_beam(prior, 2000, seeded(), at_once=16)
    assert 16 * 6 <= most <= 16 * 7 + prior.n_classes


def test_gumbels_conditioned_on_their_maximum():
    perturbed = 5 * torch.randn(50, 6, generator=seeded(), dtype=torch.float64)
    maximum = torch.randn(50, generator=seeded(1), dtype=torch.float64)
    found = dmrs.conditioned_on_max(perturbed, maximum)
    torch.testing.assert_close(found.amax(1), maximum)
    top = perturbed.amax(1, keepdim=True)
    expected = -torch.log((-maximum[:, None]).exp() - (-top).exp() + (-perturbed).exp())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("path", [enumerated, ancestral])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_selections_nest(path, scale):
    prior = TabularPrior(3, (2, 2), 2, scale)
    large = path(prior, 30, seeded(5))[0]
    for n in (1, 2, 17):
        assert torch.equal(path(prior, n, seeded(5))[0], large[:n])


@PATHS
def test_selection_of_all_latents(path):
    assert n_distinct(path(TabularPrior(3, (2, 2), 2, 3.0), 81, seeded())[0]) == 81


@pytest.mark.parametrize("path", [enumerated, ancestral])
def test_a_single_latent_with_all_the_mass(path):
    prior = of_a_single_latent()
    codes, _ = path(prior, 9, seeded())
    assert n_distinct(codes) == 9
    assert codes[0].sum() == 0
    # the eight other latents with one code that is not zero hold all but 1e-18 of the rest
    assert (codes[1:].flatten(1) > 0).sum(1).tolist() == [1] * 8
    assert prior.evaluations <= 40 * 9 * 4 * 3 + 127 * 4 * 3 + 10**6 * (path is enumerated)


def test_on_a_network_that_cannot_be_enumerated():
    chosen = dmrs.select(small_prior((4, 4), 16, 3, head=8), 100, seeded())
    assert n_distinct(chosen.codes) == 100
    assert chosen.evaluations == 127 * 16 * 16  # batches of 1, 2, ... 64 suffice
    assert chosen.weighting_evaluations == beginnings(chosen.codes) * 3 * 16
