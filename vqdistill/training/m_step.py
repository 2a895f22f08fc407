"""The M-step of stochastic EM: parameters move a step η towards their expected statistics.

θ ← (1 − η) θ + η θ_new, for Gaussians in their moments E[x] and E[x²] (Peharz et al. 2020,
Sect. 3.5, after Sato 1999). What no image uses stays as it is.
"""

import torch
from torch import Tensor

from vqdistill.circuits.gaussian import MAX_STD, MIN_STD
from vqdistill.circuits.leaves import GaussianLeaves, LeafCounts


def move_weights(weights: Tensor, counts: Tensor, step_size: float, least: float) -> None:
    """Moves weights [..., n], in place, towards the counts normalised over the last dimension.

    No weight gets below `least`.
    """
    total = counts.sum(-1, keepdim=True)
    target = torch.where(total > 0, counts / total, weights)
    weights.lerp_(target, step_size).clamp_(min=least)
    weights.div_(weights.sum(-1, keepdim=True))


def move_gaussians(leaves: GaussianLeaves, counts: LeafCounts, step_size: float) -> None:
    """Moves means and deviations, in place, towards the counted moments.

    Deviations are kept in [MIN_STD, MAX_STD], which for η = 1 still maximises the expected
    log-likelihood.
    """
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
