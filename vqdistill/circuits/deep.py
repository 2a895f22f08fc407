"""Deep circuits: the queries that EiNets and quad-trees answer in the same way.

A deep circuit is evaluated in two passes. The upward pass gives the likelihood of every unit. The
downward pass gives the responsibilities of the leaves' units; or one unit a leaf is chosen on the
way, at random or the likeliest one, which draws an image or finds the max-product state.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.gaussian import mixed_std
from vqdistill.circuits.leaves import GaussianLeaves

QUERY_ELEMENTS = 2**24  # units of one block of images in a query

Choice = Callable[[Tensor], Tensor]  # scores [A, n] -> the chosen index [A]


class Activations(Protocol):
    """All units of a circuit, evaluated by the upward pass."""

    @property
    def log_prob(self) -> Tensor:
        """[B] float64"""
        ...


class DeepCircuit(nn.Module, Circuit):
    """A circuit of layers of sums and products above Gaussian leaves, its parameters buffers.

    Queries are computed in float64, block by block of images.
    """

    leaves: GaussianLeaves
    block: int  # images at a time, so that their units are at most QUERY_ELEMENTS

    @abstractmethod
    def _upward(self, density: Tensor, dtype: torch.dtype, maximise: bool = False) -> Activations:
        """`upward` in a type, from the log-densities of the leaves' products [leaves, K, B]."""

    @abstractmethod
    def downward(self, activations: Activations, counts: Any = None) -> Tensor:
        """Posterior probability [leaves, K, B] that a leaf's product is used, given the images.

        `counts`, where given, gets the expected counts of all sum weights.
        """

    @abstractmethod
    def _descend(self, activations: Activations, columns: Tensor, choose: Choice) -> Tensor:
        """The leaves' products in use [leaves, n], chosen from the root downwards, for n of the
        activations' images, columns [n]."""

    @property
    def device(self) -> torch.device:
        return self.leaves.means.device

    def upward(
        self, x: Tensor, observed: Tensor | None = None, maximise: bool = False
    ) -> Activations:
        """All units for images x [B, D], computed in the type of x.

        With `maximise`, sums are replaced by their largest terms and hidden pixels by their most
        likely values: max-product.
        """
        density = self.leaves.log_density(self.leaves.features(x, observed), maximise)
        return self._upward(density, x.dtype, maximise)

    def count(self, x: Tensor, counts: Any) -> Tensor:
        """Adds the expected statistics of images x [B, D] to `counts`; returns log p(x) [B].

        Computed in the parameters' type.
        """
        features = self.leaves.features(x)
        activations = self._upward(self.leaves.log_density(features), self.leaves.means.dtype)
        self.leaves.count(features, self.downward(activations, counts), counts.leaves)
        return activations.log_prob

    def _log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        blocks = [self.upward(*block).log_prob for block in self._blocks(x, observed)]
        result = torch.cat(blocks) if blocks else x.new_empty(0, dtype=torch.float64)
        return result if observed is None else torch.where(observed.any(-1), result, 0.0)

    def _log_prob_discrete(self, images: Tensor) -> Tensor:
        table = self.leaves.log_masses(self.levels)
        blocks = [
            self._upward(self.leaves.log_mass(block, table), torch.float64).log_prob
            for block in images.split(self.block)
            if len(block)
        ]
        return torch.cat(blocks) if blocks else images.new_empty(0, dtype=torch.float64)

    def _sample(self, n: int, generator: torch.Generator, leaf_means: bool) -> Tensor:
        nothing = self.leaves.means.new_zeros(1, self.n_variables, dtype=torch.float64)
        activations = self.upward(nothing, nothing[0] > 0)
        columns = torch.zeros(n, dtype=torch.int64, device=nothing.device)
        blocks = [
            self._draw(activations, part, generator, leaf_means)
            for part in columns.split(self.block)
        ]
        return torch.cat(blocks)

    def _conditional_sample(
        self, x: Tensor, observed: Tensor, generator: torch.Generator, leaf_means: bool
    ) -> Tensor:
        def draw(x: Tensor, observed: Tensor) -> Tensor:
            columns = torch.arange(len(x), device=x.device)
            return self._draw(self.upward(x, observed), columns, generator, leaf_means)

        return self._filled(x, observed, draw)

    def _conditional_mean(self, x: Tensor, observed: Tensor) -> Tensor:
        def mean(x: Tensor, observed: Tensor) -> Tensor:
            responsibilities = self.downward(self.upward(x, observed))  # [leaves, K, B]
            return self.leaves.image(responsibilities.mT @ self.leaves.means.double())

        return self._filled(x, observed, mean)

    def _conditional_std(self, x: Tensor, observed: Tensor) -> Tensor:
        def std(x: Tensor, observed: Tensor) -> Tensor:
            responsibilities = self.downward(self.upward(x, observed))
            means, stds = self.leaves.means.double(), self.leaves.stds.double()
            moments = (means, means.square(), stds.square())
            return self.leaves.image(mixed_std(*(responsibilities.mT @ m for m in moments)))

        return self._filled(x, observed, std)

    def _conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        def mode(x: Tensor, observed: Tensor) -> Tensor:
            activations = self.upward(x, observed, maximise=True)
            columns = torch.arange(len(x), device=x.device)
            units = self._descend(activations, columns, lambda scores: scores.argmax(-1))
            return self.leaves.chosen(self.leaves.means, units)

        return self._filled(x, observed, mode)

    def _blocks(self, x: Tensor, observed: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Float64 images and masks, block by block; hidden pixels are set to zero."""
        for start in range(0, len(x), self.block):
            rows = slice(start, start + self.block)
            mask = observed if observed is None or observed.ndim == 1 else observed[rows]
            block = x[rows].double()
            yield block if mask is None else torch.where(mask, block, 0.0), mask

    def _filled(
        self, x: Tensor, observed: Tensor, fill: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """fill(x, observed) [B, D], block by block."""
        blocks = [fill(block, mask) for block, mask in self._blocks(x, observed)]
        return torch.cat(blocks) if blocks else x

    def _draw(
        self,
        activations: Activations,
        columns: Tensor,
        generator: torch.Generator,
        leaf_means: bool,
    ) -> Tensor:
        """One image [n, D] for each of the activations' columns [n], by ancestral sampling."""
        units = self._descend(activations, columns, lambda scores: _draw_index(scores, generator))
        means = self.leaves.chosen(self.leaves.means, units)
        if leaf_means:
            return means
        stds = self.leaves.chosen(self.leaves.stds, units)
        noise = torch.randn(means.shape, generator=generator, device=generator.device)
        return means + stds * noise.to(means.device)


def normalised(weights: Tensor, dtype: torch.dtype, dim: int) -> Tensor:
    """Weights whose sum over `dim` is 1 to the precision of `dtype`, not just to their own."""
    if weights.dtype == dtype:
        return weights
    weights = weights.to(dtype)
    return weights / weights.sum(dim, keepdim=True)


def _draw_index(scores: Tensor, generator: torch.Generator) -> Tensor:
    """One index [A] a row with probability in proportion to scores [A, n]."""
    cumulative = scores.cumsum(1)
    shape, device = (len(scores), 1), generator.device
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
    uniform = uniform.to(cumulative) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, uniform, right=True).squeeze(1)
    return index.clamp(max=scores.shape[1] - 1)
