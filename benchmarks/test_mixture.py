"""The log-likelihood of a Gaussian mixture for 2,000 images, joint, marginal and conditional."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from benchmarks.problems import D, bits_per_dimension, half_masks, images, mixture

N_IMAGES = 2000
SIZES = [256, 1024, 4096, 16384]
SLICE = 64  # images that slow implementations are timed on


def broadcast(x, circuit, observed, n_images, n_components, dtype=torch.float32):
    """log p(x) [1, n], or with log p(x_o) [2, n], from (x − μ)²/σ² in chunks of both."""
    means, stds = circuit.means.to(dtype), circuit.log_stds.to(dtype).exp()
    seen = None if observed is None else observed.to(dtype)
    result = []
    for images_ in x.to(dtype).split(n_images):
        joint, marginal = [], []
        for mean, std in zip(means.split(n_components), stds.split(n_components), strict=True):
            terms = ((images_[:, None] - mean) / std).square().mul(-0.5) - std.log()
            terms = terms - 0.5 * math.log(2 * math.pi)
            joint.append(terms.sum(-1))
            if seen is not None:
                marginal.append(terms @ seen)
        both = [torch.cat(part, 1) for part in (joint, marginal) if part]
        result.append(torch.stack([(p + circuit.log_weights).logsumexp(1) for p in both]))
    return torch.cat(result, 1)


def torch_distributions(x, circuit, n_images):
    components = Independent(Normal(circuit.means, circuit.log_stds.exp()), 1)
    reference = MixtureSameFamily(Categorical(logits=circuit.log_weights.float()), components)
    return torch.cat([reference.log_prob(part) for part in x.split(n_images)])


def scikit_learn(circuit):
    reference = GaussianMixture(circuit.n_components, covariance_type="diag")
    reference.weights_ = circuit.log_weights.exp().numpy()
    reference.means_ = circuit.means.double().numpy()
    reference.covariances_ = (2 * circuit.log_stds.double()).exp().numpy()
    reference.precisions_cholesky_ = (-circuit.log_stds.double()).exp().numpy()
    return reference


def direct(x, circuit, observed=None):
    """In float64, on a slice."""
    return broadcast(x[:SLICE], circuit, observed, 1, 1024, torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_vqdistill(timed, size):
    circuit, x = mixture(size), images(N_IMAGES)
    found = timed(lambda: circuit.log_prob(x), "mixture", "vqdistill", size)
    difference = bits_per_dimension(found[:SLICE] - direct(x, circuit)[0])
    assert difference.abs().max() < 1e-6


CHUNKS = [(1, 64), (1, 256), (8, 64), (8, 1024), (64, 256)]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("size", SIZES[:3])
def test_broadcast(timed, size, chunk):
    circuit, x = mixture(size), images(N_IMAGES)[:SLICE]
    found = timed(
        lambda: broadcast(x, circuit, None, *chunk), "mixture", "broadcast", size,
        f"{chunk[0]} images, {chunk[1]} components", SLICE / N_IMAGES,
    )  # fmt: skip
    torch.testing.assert_close(found[0].double(), direct(x, circuit)[0], rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("n_images", [1, 4, 16])
@pytest.mark.parametrize("size", SIZES[:3])
def test_torch_distributions(timed, size, n_images):
    circuit, x = mixture(size), images(N_IMAGES)[:SLICE]
    found = timed(
        lambda: torch_distributions(x, circuit, n_images), "mixture", "torch.distributions", size,
        f"{n_images} images", SLICE / N_IMAGES,
    )  # fmt: skip
    torch.testing.assert_close(found.double(), direct(x, circuit)[0], rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("size", SIZES)
def test_scikit_learn(timed, size):
    circuit, x = mixture(size), images(N_IMAGES)
    reference, x64 = scikit_learn(circuit), x.double().numpy()
    found = timed(lambda: reference.score_samples(x64), "mixture", "scikit-learn", size)
    found = torch.from_numpy(found)[:SLICE]
    torch.testing.assert_close(found, direct(x, circuit)[0], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_matrix_product(timed, size):
    """What a float32 product of the same size takes: the machine's peak."""
    features, weights = torch.rand(N_IMAGES, 2 * D), torch.rand(2 * D, size)
    timed(lambda: features @ weights, "mixture", "matrix product", size)


@pytest.mark.parametrize("size", SIZES[:3])
def test_conditionals_of_vqdistill(timed, size):
    circuit, x, observed = mixture(size), images(N_IMAGES), half_masks()
    found = timed(
        lambda: circuit.conditional_log_prob(x, observed), "conditional", "vqdistill", size
    )
    joint, marginal = direct(x, circuit, observed)
    assert bits_per_dimension(found[:SLICE] - (joint - marginal)).abs().max() < 1e-6


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("size", SIZES[:3])
def test_conditionals_by_broadcast(timed, size, chunk):
    circuit, x, observed = mixture(size), images(N_IMAGES)[:SLICE], half_masks()
    found = timed(
        lambda: broadcast(x, circuit, observed, *chunk), "conditional", "broadcast", size,
        f"{chunk[0]} images, {chunk[1]} components", SLICE / N_IMAGES,
    )  # fmt: skip
    torch.testing.assert_close(found.double(), direct(x, circuit, observed), rtol=1e-4, atol=0.1)
