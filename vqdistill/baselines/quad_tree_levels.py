"""Quad-tree circuit, learned from grey levels themselves: it maximises log P(v), not log p(x).

The E-step takes the mass that each Gaussian has on the bin of a pixel's grey level. The M-step
takes E[x | bin] and E[x² | bin] in place of x and x², which integrates the noise in the bin out.
Everything else is as in `quad_tree`.
"""

from functools import partial

import torch
from torch import Tensor

from vqdistill import settings
from vqdistill.baselines import quad_tree
from vqdistill.baselines.quad_tree import build
from vqdistill.circuits.grey_levels import expected_moments, log_mass
from vqdistill.circuits.leaves import GaussianLeaves
from vqdistill.training.em import EMTrainer

Settings = settings.QuadTree
__all__ = ["Settings", "build", "trainer"]


class GreyLevelTrainer(EMTrainer):
    """EM of log P(v) of the grey levels in which images lie; losses are nats per image of that."""

    def _count(self, x: Tensor) -> Tensor:
        model, n_levels = self.model, self.batches.levels
        levels, parameters = _by_leaf(model.leaves, x, n_levels)
        mass = log_mass(levels, n_levels, *parameters)
        activations = model._upward(mass, model.leaves.means.dtype)
        flow = model.downward(activations, self.counts).double()  # [leaves, K, B]
        moments = expected_moments(levels, n_levels, *parameters)
        self.counts.leaves.occupancy.add_(flow.sum(2))
        self.counts.leaves.moments.add_(
            torch.stack([(flow * m).sum(2) for m in moments], 2)[..., None]
        )
        return activations.log_prob

    def _log_prob(self, x: Tensor) -> Tensor:
        found = []
        for part in x.split(self.model.block):
            levels, parameters = _by_leaf(self.model.leaves, part, self.batches.levels)
            density = log_mass(levels, self.batches.levels, *parameters)
            found.append(self.model._upward(density, torch.float64).log_prob)
        return torch.cat(found)


trainer = partial(quad_tree.trainer, kind=GreyLevelTrainer)


def _by_leaf(
    leaves: GaussianLeaves, x: Tensor, n_levels: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The grey levels [D, 1, B] of images x [B, D], and the Gaussians' parameters [D, K, 1]."""
    levels = (x.T[leaves.pixels[:, 0]] * n_levels).floor().clamp(0, n_levels - 1)
    return levels[:, None], (leaves.means, leaves.stds)
