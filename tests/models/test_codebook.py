import math

import numpy as np
import pytest
import torch
from helpers import seeded
from sklearn.cluster import KMeans

from vqdistill import settings
from vqdistill.errors import InputError
from vqdistill.models import codebook
from vqdistill.models.codebook import Codebook, codebook_usage, kmeans, nearest, perplexity


def small_codebook(**changes):
    """Six vectors of width 5 that stand near the encodings below."""
    torch.manual_seed(0)
    small = Codebook(settings.VQVAE(codebook_size=6, channels=(4, 5), **changes))
    small.move(slice(None), torch.randn(6, 5, generator=seeded(8)))
    return small


def encodings(seed=0, n=20):
    return torch.randn(n, 5, generator=seeded(seed))


def test_it_starts_uniform():
    vectors = Codebook(settings.VQVAE(codebook_size=50, channels=(64,))).vectors
    assert vectors.abs().max() <= 1 / 50
    assert vectors.std().item() == pytest.approx(1 / 50 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("at_once", [1, 37, 10**6])
def test_nearest_neighbours(monkeypatch, at_once):
    monkeypatch.setattr(codebook, "DISTANCES_AT_ONCE", at_once)
    vectors, codes = torch.randn(40, 3, generator=seeded(1)), torch.randn(9, 3, generator=seeded(2))
    distances = ((vectors[:, None] - codes[None]).double() ** 2).sum(2)
    assert torch.equal(nearest(vectors, codes), distances.argmin(1))


@pytest.mark.parametrize("size", [3, 300])
def test_of_equally_near_codes_the_first_is_taken(size):
    vectors = torch.ones(size, 4)
    vectors[0] = 5.0
    assert (nearest(torch.zeros(50, 4), vectors) == 1).all()


def test_moving_averages():
    small = small_codebook(ema_decay=0.75)
    assert not list(small.parameters())
    counts, sums = np.ones(6), small.vectors.numpy().copy()
    for seed in range(2):
        vectors = encodings(seed)
        codes = small.nearest(vectors)
        added = np.zeros_like(sums)
        np.add.at(added, codes.numpy(), vectors.numpy())
        counts = 0.75 * counts + 0.25 * np.bincount(codes.numpy(), minlength=6)
        sums = 0.75 * sums + 0.25 * added
        small.track(vectors, codes)
        np.testing.assert_allclose(small.vectors.numpy(), sums / counts[:, None], rtol=1e-4)


def test_unused_codes_outlive_their_moving_average():
    small = small_codebook(ema_decay=0.5)
    small.move(torch.arange(2, 6), torch.full((4, 5), 100.0))
    for _ in range(50):
        small.track(encodings(), small.nearest(encodings()))
    assert small.vectors.isfinite().all()
    assert (small.vectors[2:] > 90).all()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_dead_codes_are_revived(ema_decay):
    """Each on another of the newest encodings, and the used ones stay."""
    small = small_codebook(revive_dead_codes=True, ema_decay=ema_decay)
    small.move(torch.tensor([4, 5]), torch.full((2, 5), 100.0))
    used = set()
    for seed in range(3):
        codes = small.nearest(encodings(seed))
        used |= set(codes.tolist())
        small.track(encodings(seed), codes)
    dead = sorted(set(range(6)) - used)
    assert used
    assert {4, 5} <= set(dead)
    before = small.vectors.detach().clone()
    small.revive(seeded())
    for code in range(6):
        if code in used:
            assert torch.equal(small.vectors[code], before[code])
        else:
            assert (encodings(2) - small.vectors[code]).abs().sum(1).min() < 1e-5
    assert len(small.vectors[dead].unique(dim=0)) == len(dead)
    assert small.usage.sum() == 0


def test_kmeans_finds_clusters():
    centres = 10 * torch.randn(5, 3, generator=seeded(3))
    vectors = centres[torch.arange(400) % 5] + torch.randn(400, 3, generator=seeded(4))
    inertia = [
        (vectors - found[nearest(vectors, found)]).square().sum().item()
        for found in (kmeans(vectors, 5, seeded(seed)) for seed in range(8))
    ]
    best = KMeans(5, n_init=10, random_state=0).fit(vectors.numpy()).inertia_
    assert min(inertia) == pytest.approx(best, rel=1e-3)
    assert torch.equal(kmeans(vectors, 5, seeded(1)), kmeans(vectors, 5, seeded(1)))
    with pytest.raises(InputError, match="codebook_size"):
        kmeans(vectors[:4], 5, seeded())


def test_usage_and_perplexity():
    codes = torch.tensor([2, 2, 0, 2, 1, 0, 2, 2]).view(2, 2, 2)
    entropy = -sum(share * math.log(share) for share in (5 / 8, 2 / 8, 1 / 8))
    found = codebook_usage(codes, 5)
    assert found == {"codebook_usage": 3 / 5, "perplexity": pytest.approx(math.exp(entropy))}
    assert perplexity(torch.zeros(7, dtype=torch.int64), 3, torch.float64).item() == 1
