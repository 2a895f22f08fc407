"""Probabilities of grey levels: of single bins against quadrature, and of whole models."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import einet_of, explicit, mixture_of, quad_tree_of, refusal, seeded
from scipy import integrate

from vqdistill import settings
from vqdistill.baselines import continuous_mixture
from vqdistill.baselines.gmm import GaussianMixture
from vqdistill.circuits.grey_levels import Chunk, expected_moments, log_mass
from vqdistill.circuits.mixture import (
    DecodedComponents,
    Mixture,
    StreamedMixture,
    uniform_log_weights,
)
from vqdistill.data import prepare

SHAPE, D = (1, 3), 3
SMALL = settings.ContinuousMixture(latent_dimension=3, channels=(6, 4, 2), points=8, chunk=8)


def streamed(n, d):
    one = mixture_of(n, d)
    decoded = DecodedComponents(one.components.parameters, n, d, one.device)
    return StreamedMixture(one.log_weights, decoded)


def compiled():
    torch.manual_seed(0)
    return continuous_mixture.circuit(continuous_mixture.build((8, 8), SMALL), 8, seeded())


def plain():
    torch.manual_seed(0)
    model = GaussianMixture(5, D)
    model.log_stds.uniform_(-4, -1)
    return model


CIRCUITS = {
    "mixture": lambda: mixture_of(16, D),
    "narrow mixture": lambda: mixture_of(16, D, 1e-3),
    "streamed": lambda: streamed(1500, D),
    "gmm": plain,
    "einet": lambda: einet_of(SHAPE, 2),
    "narrow einet": lambda: einet_of(SHAPE, 2, smallest=1e-3),
    "quad_tree": lambda: quad_tree_of(SHAPE, 2),
    "narrow quad_tree": lambda: quad_tree_of((3, 1), 2, 2, 1, smallest=1e-3),
}


def of_bins(levels, n_levels, means, stds):
    """log P of bins by scipy's quadrature, from the density at the bin's densest point, which can
    be thousands of nats below 1; the tails end where nothing is left."""
    found = []
    for v, mean, std in itertools.product(levels, means, stds):
        low, high = v / n_levels, (v + 1) / n_levels
        low = min(high, mean) - 40 * std if v == 0 else low
        high = max(low, mean) + 40 * std if v == n_levels - 1 else high
        peak = min(max(mean, low), high)
        top = -0.5 * ((peak - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
        reach = min(high - low, 40 * std, 40 * std**2 / max(abs(peak - mean), 1e-300))
        ends = max(low, peak - reach), min(high, peak + reach)

        def relative(x, mean=mean, std=std, peak=peak):
            return math.exp(-0.5 * (x - peak) * (x + peak - 2 * mean) / std**2)

        points = [p for p in (peak,) if ends[0] < p < ends[1]] or None
        mass, _ = integrate.quad(relative, *ends, points=points, epsabs=0, epsrel=1e-12, limit=200)
        found.append(top + math.log(mass))
    return np.array(found)


@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_masses_of_bins_are_those_of_quadrature(n_levels):
    """From deviations of a thousandth, where a bin may lie a thousand of them away, to those that
    are hundreds of bins wide."""
    levels = sorted({0, 1, n_levels // 2, n_levels - 2, n_levels - 1})
    means, stds = [-0.3, 0.0, 0.0021, 0.31, 0.5, 0.998, 1.0], [1e-3, 4e-3, 0.03, 0.3, 1.0]
    v, mean, std = torch.tensor([*itertools.product(levels, means, stds)], dtype=torch.float64).T
    found = log_mass(v, n_levels, mean, std).numpy()
    expected = of_bins(levels, n_levels, means, stds)
    assert expected.min() < (-4e5 if n_levels == 256 else -1e5)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("std", [1e-3, 0.02, 0.5])
@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_levels_of_a_pixel_sum_to_one(n_levels, std):
    means = torch.linspace(-0.2, 1.2, 30, dtype=torch.float64)
    total = log_mass(torch.arange(n_levels)[:, None], n_levels, means, torch.tensor(std))
    assert total.logsumexp(0).abs().max() < 1e-12


def every_image(n_levels, d=D):
    return torch.cartesian_prod(*[torch.arange(n_levels)] * d).to(torch.uint8)


@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.parametrize("n_levels", [2, 3, 4, 17])
def test_grey_levels_against_the_flat_mixture(name, n_levels):
    """Of every image there is: as component by component and pixel by pixel, and they sum to 1."""
    model = CIRCUITS[name]()
    model.levels = n_levels
    images = every_image(n_levels)
    log_weights, means, stds = explicit(model)
    found = model.log_prob_discrete(images)
    masses = sum(log_mass(images[:, d, None], n_levels, means[:, d], stds[:, d]) for d in range(D))
    expected = (masses + log_weights).logsumexp(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)
    assert found.logsumexp(0).abs() < 1e-10
    assert found.dtype == torch.float64


def test_grey_levels_of_a_compiled_mixture():
    model = compiled()
    model.levels = 17
    images = torch.randint(17, (50, 64), dtype=torch.uint8, generator=seeded())
    log_weights, means, stds = explicit(model)
    masses = log_mass(images[:, None], 17, means, stds).sum(2)
    expected = (masses + log_weights).logsumexp(1)
    torch.testing.assert_close(model.log_prob_discrete(images), expected, rtol=1e-12, atol=1e-11)


def prefix_cases():
    model = mixture_of(1500, 9, 1e-3)
    model.levels = 256
    weights = torch.stack([uniform_log_weights(1500), model.log_weights])
    return model, weights, [1, 2, 700, 1500]


def test_prefixes_have_the_grey_levels_of_the_first_components():
    model, weights, sizes = prefix_cases()
    means = model.means[:60].repeat(5, 1)
    x = (means + 0.05 * torch.randn(means.shape, generator=seeded(1))).clamp(0, 0.999)
    images = (x * 256).to(torch.uint8)
    found = model.prefix_log_prob_discrete(images, sizes, weights)
    for n, of_size in zip(sizes, found.unbind(1), strict=True):
        for own, of_model in zip(weights, of_size, strict=True):
            first = Mixture(own[:n].log_softmax(0), model.means[:n], model.log_stds[:n])
            first.levels = 256
            expected = (
                log_mass(images[:, None], 256, first.means, first.log_stds.double().exp()).sum(2)
                + first.log_weights
            ).logsumexp(1)
            torch.testing.assert_close(of_model, expected, rtol=1e-12, atol=1e-10)
    assert "expected ascending" in refusal(model.prefix_log_prob_discrete, images, [2, 1], weights)


@pytest.mark.parametrize("n_levels", [2, 3, 17, 256])
def test_the_bound_is_above_every_probability(n_levels):
    """And near it where bins are narrow beside the deviations."""
    g = seeded(2)
    means = torch.rand(40, 30, generator=g) * 1.4 - 0.2
    log_stds = torch.empty(40, 30).uniform_(math.log(1e-3), 0, generator=g)
    means[:20, :15], log_stds[:20, :15] = 0.002, math.log(1e-3)  # a dark background
    images = torch.randint(n_levels, (200, 30), dtype=torch.uint8, generator=g)
    images[:100, :15] = 0
    exact = log_mass(images[:, None], n_levels, means, log_stds.double().exp()).sum(2)
    upper = Chunk(means, log_stds, n_levels).upper(images)
    assert (upper >= exact).all()
    broad = Chunk(means, torch.full_like(means, math.log(0.3)), n_levels)
    exact = log_mass(images[:, None], n_levels, means, broad.stds).sum(2)
    near = 0.1 if n_levels == 256 else 10
    assert (broad.upper(images) - exact).max() < near


@pytest.mark.parametrize("name", CIRCUITS)
def test_discrete_bits_are_fewer_than_those_of_the_density_on_average(name):
    """Jensen: log P(v) is the logarithm of the mean density over the noise, and what is in the
    tails beyond; never below the mean of the logarithm."""
    model = CIRCUITS[name]()
    model.levels = 17
    images = torch.randint(17, (20, D), dtype=torch.uint8, generator=seeded(3))
    x = prepare(images.repeat(400, 1), 17, seeded(4))
    mean = model.bpd(x).view(400, 20)
    error = 5 * mean.std(0) / 20  # five standard errors
    assert (model.bpd_discrete(images) <= mean.mean(0) + error).all()


def test_bits_are_those_of_the_probability():
    model = mixture_of(4, D)
    model.levels = 17
    images = every_image(17)[::50]
    expected = -model.log_prob_discrete(images) / (D * math.log(2))
    torch.testing.assert_close(model.bpd_discrete(images), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["mixture", "einet", "quad_tree"])
def test_images_of_every_kind(name):
    model = CIRCUITS[name]()
    model.levels, model.image_shape = 17, SHAPE
    images = every_image(17)[::77]
    expected = model.log_prob_discrete(images)
    for other in (
        images.numpy(),
        images.view(-1, *SHAPE),
        images.mT.contiguous().mT,
        images.numpy()[::-1].copy()[::-1],
    ):
        assert torch.equal(model.log_prob_discrete(other), expected)
    alone = [model.log_prob_discrete(image[None]) for image in images]
    torch.testing.assert_close(torch.cat(alone), expected, rtol=1e-12, atol=1e-12)
    nothing = model.log_prob_discrete(images[:0])
    assert nothing.shape == (0,)
    assert nothing.dtype == torch.float64


@pytest.mark.parametrize("query", ["log_prob_discrete", "bpd_discrete"])
def test_other_images_get_one_line(query):
    model = mixture_of(4, D)
    ask = getattr(model, query)
    images = every_image(17)[:5]
    assert "set its `levels`" in refusal(ask, images)
    model.levels = 17
    for other in (images.float(), images.int(), images.tolist(), images > 3, None):
        message = refusal(ask, other)
        assert "expected uint8" in message
        assert "vqdistill.data.to_images" in message
    assert "x[None] is a batch of one image" in refusal(ask, images[0])
    assert "this model expects" in refusal(ask, images[:, :2])
    assert "grey level 17, expected all below 17" in refusal(ask, images.clamp(max=0) + 17)
    model.levels = 256
    assert model.log_prob_discrete(torch.full((1, D), 255, dtype=torch.uint8)).isfinite().all()


def test_components_that_are_no_numbers_are_refused():
    model = mixture_of(4, D)
    model.levels = 17
    model.means[1, 1] = math.nan
    assert "no finite numbers" in refusal(model.log_prob_discrete, every_image(17)[:2])


@pytest.mark.parametrize("std", [1e-3, 0.02, 0.3])
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.37, 1.0])
def test_moments_within_a_bin_are_those_of_quadrature(mean, std):
    """In bins up to a thousand deviations away."""
    levels, parameters = torch.tensor([0, 1, 95, 254, 255]), (torch.tensor(mean), torch.tensor(std))
    second, first = expected_moments(levels, 256, *parameters)
    mean, std = (p.double().item() for p in parameters)
    for v, m2, m1 in zip(levels.tolist(), second.tolist(), first.tolist(), strict=True):
        low, high = v / 256, (v + 1) / 256
        low = min(high, mean) - 12 * std if v == 0 else low
        high = max(low, mean) + 12 * std if v == 255 else high
        densest = min(max(mean, low), high)
        nats = 0.5 * ((densest - mean) / std) ** 2

        def weighted(x, power, nats=nats):
            return x**power * math.exp(nats - 0.5 * ((x - mean) / std) ** 2)

        reach = min(9 * std, 40 * std**2 / max(abs(densest - mean), 1e-300))
        inner = (densest - reach, densest, densest + reach)
        ends = [low, *(end for end in inner if low < end < high), high]
        total = [
            sum(integrate.quad(weighted, *pair, (p,), epsrel=1e-11, limit=200)[0]
                for pair in itertools.pairwise(ends))
            for p in (0, 1, 2)
        ]  # fmt: skip
        assert m1 == pytest.approx(total[1] / total[0], rel=1e-6, abs=1e-8)
        assert m2 == pytest.approx(total[2] / total[0], rel=1e-6, abs=1e-8)
