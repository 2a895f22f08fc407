"""The same numbers from scikit-learn and torch.distributions; SPFlow's are in test_spflow.py.

At least 16 components and 16 pixels, a random mask for each image. An EiNet is compared as the
flat mixture of its induced trees.
"""

import pytest
import torch
from exact_answers import largest
from helpers import einet_of, explicit, mixture_of, seeded
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

CIRCUITS = {
    "mixture": lambda: mixture_of(40, 24, 1e-3),
    "einet": lambda: einet_of((4, 4), 2, 2),  # 128 trees
}
B, NATS = 30, 1e-9


def scikit_learn(log_weights, means, stds, x):
    """log p(x) [B] by GaussianMixture.score_samples."""
    mixture = GaussianMixture(len(means), covariance_type="diag")
    mixture.weights_ = log_weights.exp().numpy()
    mixture.means_ = means.numpy()
    mixture.covariances_ = stds.square().numpy()
    mixture.precisions_cholesky_ = stds.reciprocal().numpy()
    return torch.from_numpy(mixture.score_samples(x.numpy()))


def torch_distributions(log_weights, means, stds, x):
    """log p(x) [B] by MixtureSameFamily."""
    normals = Independent(Normal(means, stds), 1)
    return MixtureSameFamily(Categorical(logits=log_weights), normals).log_prob(x)


@pytest.mark.parametrize("library", [scikit_learn, torch_distributions])
@pytest.mark.parametrize("name", CIRCUITS)
def test_density_marginals_and_conditionals(name, library):
    circuit = CIRCUITS[name]()
    log_weights, means, stds = explicit(circuit)
    assert means.shape[0] >= 16
    assert means.shape[1] >= 16
    x = torch.rand(B, means.shape[1], generator=seeded(1), dtype=torch.float64)
    observed = torch.rand(x.shape, generator=seeded(2)) < 0.5
    joint = library(log_weights, means, stds, x)
    rows = zip(x, observed, strict=True)
    parts = [library(log_weights, means[:, o], stds[:, o], image[None, o]) for image, o in rows]
    marginal = torch.cat(parts)
    tolerance = NATS + 1e-12 * joint.abs().max().item()  # log-likelihoods are near −10⁶
    assert largest(circuit.log_prob(x), joint) < tolerance
    assert largest(circuit.log_prob(x, observed), marginal) < tolerance
    assert largest(circuit.conditional_log_prob(x, observed), joint - marginal) < tolerance
    several = circuit.marginals(x, observed[:5])
    expected = [library(log_weights, means[:, o], stds[:, o], x[:, o]) for o in observed[:5]]
    assert largest(several, torch.stack(expected)) < tolerance
