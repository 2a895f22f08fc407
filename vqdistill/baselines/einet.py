"""EiNet (Peharz et al. 2020), the baseline that is trained as a circuit, by stochastic EM.

The E-step is one upward and one downward pass: the posterior probability that a sum unit uses its
input is the derivative of log p(x) for the weight's logarithm. The M-step moves the parameters a
step η towards the expected statistics, θ ← (1 − η) θ + η θ_new, for Gaussians in their moments
E[x] and E[x²] (Peharz et al. 2020, Sect. 3.5, after Sato 1999). With η = 1 on all images it is
exact EM, and the training likelihood never decreases.
"""

import torch
from torch import Tensor

from vqdistill import settings
from vqdistill.circuits.einet import EiNet, ExpectedCounts, GaussianLeaves
from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.data import Batches
from vqdistill.training.em import EMTrainer

Settings = settings.EiNet

MIN_WEIGHT = 1e-16  # keeps every sum unit positive, as in the EiNet authors' code


def build(image_shape: tuple[int, int], settings: Settings) -> EiNet:
    """An untrained EiNet over images (height, width), from torch's global random state."""
    return EiNet(poon_domingos(image_shape, settings.pixels_per_step), settings.size)


def trainer(
    model: EiNet,
    batches: Batches,
    validation_x: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> EMTrainer:
    """Stochastic EM on `batches`, validated on validation_x [n, D]."""

    def m_step(model: EiNet, counts: ExpectedCounts) -> None:
        update(model, counts, settings.em_step_size)

    counts, every = zero_counts(model), settings.em_every
    return EMTrainer(model, batches, validation_x, generator, counts, m_step, every)


def zero_counts(model: EiNet) -> ExpectedCounts:
    """The expected statistics of no image at all."""
    means = model.leaves.means
    return ExpectedCounts(
        weights=[torch.zeros_like(layer.weights.flatten(2)) for layer in model.layers],
        mixing=[torch.zeros_like(layer.mixing) for layer in model.layers],
        occupancy=torch.zeros_like(means[..., 0], dtype=torch.float64),
        moments=torch.zeros_like(torch.stack([means, means], 2), dtype=torch.float64),
    )


def update(model: EiNet, counts: ExpectedCounts, step_size: float) -> None:
    """The M-step: moves all parameters of `model` towards `counts`, and clears them.

    Units that no image uses stay as they are. Standard deviations are kept in
    [MIN_STD, MAX_STD], which for η = 1 still maximises the expected log-likelihood.
    """
    for layer, weights, mixing in zip(model.layers, counts.weights, counts.mixing, strict=True):
        _update_weights(layer.weights.flatten(2), weights.mul_(layer.weights.flatten(2)), step_size)
        _update_weights(layer.mixing.transpose(1, 2), mixing.transpose(1, 2), step_size)
    _update_gaussians(model.leaves, counts, step_size)
    counts.clear()


def _update_weights(weights: Tensor, counts: Tensor, step_size: float) -> None:
    """Moves weights [..., n], in place, towards the counts normalised over the last dimension."""
    total = counts.sum(-1, keepdim=True)
    target = torch.where(total > 0, counts / total, weights)
    weights.lerp_(target, step_size).clamp_(min=MIN_WEIGHT)
    weights.div_(weights.sum(-1, keepdim=True))


def _update_gaussians(leaves: GaussianLeaves, counts: ExpectedCounts, step_size: float) -> None:
    means, stds = leaves.means.double(), leaves.stds.double()
    moments = torch.stack([means.square() + stds.square(), means], 2)  # [leaves, K, 2, pixels]
    occupancy = counts.occupancy[..., None, None]
    moments = moments.lerp(
        torch.where(occupancy > 0, counts.moments / occupancy, moments), step_size
    )
    second, first = moments.unbind(2)
    variance = (second - first.square()).clamp(min=0.0)
    leaves.means.copy_(first)
    leaves.stds.copy_(variance.sqrt().clamp(MIN_STD, MAX_STD))
