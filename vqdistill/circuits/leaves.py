"""Gaussian leaves of deep circuits: K products of Gaussians for every leaf region."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqdistill.circuits.gaussian import log_mode, product_weights
from vqdistill.circuits.grey_levels import log_mass

LEAVES = 16  # whose grey levels are computed at a time


class LeafCounts(NamedTuple):
    """Expected sufficient statistics of leaves, summed over images."""

    occupancy: Tensor  # [leaves, K] float64
    moments: Tensor  # [leaves, K, 2, pixels] float64, Σ_b responsibility · [x², x]


class GaussianLeaves(nn.Module):
    """K products of Gaussians for every leaf region.

    pixels: [leaves, pixels of a leaf], their numbers. Means start as N(0, 1) and standard
    deviations at 1, as in the EiNet authors' code: the means tell the K products apart, and none is
    so narrow that it loses all images at the start.
    """

    def __init__(self, pixels: Tensor, size: int) -> None:
        super().__init__()
        shape = (len(pixels), size, pixels.shape[1])
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("means", torch.randn(shape))
        self.register_buffer("stds", torch.ones(shape))

    @property
    def n_parameters(self) -> int:
        return self.means.numel() + self.stds.numel()

    def features(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """[x², x] of images x [B, D] by leaf, and with a mask also 1, zero where a pixel is
        hidden: [leaves, 2 or 3, pixels, B] float64."""
        pixels = self._by_leaf(x).double()
        if observed is None:
            return torch.stack([pixels.square(), pixels], 1)
        mask = self._by_leaf(torch.atleast_2d(observed)).expand_as(pixels)
        pixels = torch.where(mask, pixels, 0.0)
        return torch.stack([pixels.square(), pixels, mask.double()], 1)

    def log_density(self, features: Tensor, maximise: bool = False) -> Tensor:
        """[leaves, K, B] float64 nats of the images with these features; hidden pixels are
        integrated out, or at their mode.

        One product over the observed pixels. What cancels in it makes float64 round by some 10^-8
        nats where all deviations are 10^-3.
        """
        log_stds = self.stds.double().log()
        quadratic, linear, square = product_weights(self.means.double(), log_stds)
        modes = log_mode(log_stds)  # [leaves, K, pixels]
        weights, constants = [quadratic, -2 * linear], square + modes
        if features.shape[1] == 2:
            total = constants.sum(2, keepdim=True)
        else:
            hidden = modes if maximise else torch.zeros_like(modes)
            weights.append(constants - hidden)
            total = hidden.sum(2, keepdim=True)
        return torch.baddbmm(total, torch.cat(weights, 2), features.flatten(1, 2))

    def log_masses(self, n_levels: int) -> Tensor:
        """log of the probability of every grey level under every Gaussian, float64 nats
        [leaves, pixels, n_levels, K]."""
        levels = torch.arange(n_levels, device=self.means.device)[:, None]
        parts = zip(self.means.split(LEAVES), self.stds.split(LEAVES), strict=True)
        of_parts = [log_mass(levels, n_levels, *(p.mT[:, :, None] for p in part)) for part in parts]
        return torch.cat(of_parts)

    def log_mass(self, images: Tensor, table: Tensor) -> Tensor:
        """[leaves, K, B] float64 nats of images of grey levels [B, D], from the table of all
        (`log_masses`): the sum over each leaf's pixels."""
        levels = self._by_leaf(images).long()  # [leaves, pixels, B]
        leaf = torch.arange(len(levels), device=levels.device)[:, None]
        total = table[leaf, 0, levels[:, 0]]  # [leaves, B, K]
        for pixel in range(1, levels.shape[1]):
            total += table[leaf, pixel, levels[:, pixel]]
        return total.mT

    def zero_counts(self) -> LeafCounts:
        """Those of no image."""
        moments = torch.zeros_like(torch.stack([self.means, self.means], 2), dtype=torch.float64)
        return LeafCounts(moments[:, :, 0, 0].clone(), moments)

    def count(self, features: Tensor, flow: Tensor, counts: LeafCounts) -> None:
        """Adds the moments of images with these features, of no mask, under the responsibilities
        flow [leaves, K, B]."""
        flow = flow.double()
        counts.occupancy.add_(flow.sum(2))
        counts.moments.flatten(2).baddbmm_(flow, features.flatten(1, 2).mT)

    def chosen(self, parameters: Tensor, units: Tensor) -> Tensor:
        """Images [n, D] of the parameters, means or deviations, of units in use [leaves, n]."""
        leaves = torch.arange(len(parameters), device=units.device)
        return self.image(parameters[leaves[:, None], units])

    def image(self, by_leaf: Tensor) -> Tensor:
        """Pixels [leaves, B, pixels] in their places [B, D]."""
        image = by_leaf.new_empty(by_leaf.shape[1], self.pixels.numel())
        image[:, self.pixels] = by_leaf.transpose(0, 1)
        return image

    def _by_leaf(self, images: Tensor) -> Tensor:
        """The pixels of images [B, D] by their leaves [leaves, pixels, B or 1]."""
        rows = images.T.contiguous().index_select(0, self.pixels.flatten())
        return rows.view(*self.pixels.shape, -1)
