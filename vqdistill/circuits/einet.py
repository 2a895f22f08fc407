"""EiNet: a deep circuit of einsum layers over a region graph (Peharz et al. 2020).

Each region holds K distributions over its pixels. In a leaf region they are products of Gaussians,
and each partition (L, R) of a larger region gives K sums

    S_k = log Σ_ij W_kij exp(L_i + R_j),

which a region with several partitions mixes element by element, log Σ_p m_pk exp(S_pk).

All of it is computed with scaled numbers: region r, unit k of image b has the log-likelihood
scales[r, b] + log values[r, k, b], where the largest of its K values is 1. So nothing underflows,
and one layer is one batched matrix product without a logarithm or an exponential per unit.
Images are the last dimension. Scales are always float64; the values have the type of x: that of
the parameters in training, float64 in every query.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqdistill.circuits.base import Circuit, Stored
from vqdistill.circuits.gaussian import log_mode, product_weights
from vqdistill.circuits.region_graph import Layer, RegionGraph, poon_domingos

CPU_PRODUCTS = 2**19  # elements of exp(L_i + R_j) at a time: what a core's cache holds
GPU_PRODUCTS = 2**26
QUERY_ELEMENTS = 2**24  # elements of one block of images in a query

Choice = Callable[[Tensor], Tensor]  # scores [A, n] -> the chosen index [A]


@dataclass
class Sums:
    """The sum units of one layer, for B images."""

    branches: Tensor  # [regions, d, K, B], m_pk exp(S_pk − offset): the terms of the mixing sums
    gates: Tensor  # [regions, d, B], exp(scales[L] + scales[R] − offset)
    totals: Tensor  # [regions, K, B], the units' likelihoods over exp(offset)
    offset: Tensor  # [regions, B] float64


@dataclass
class Activations:
    """All units of the circuit, evaluated for B images by the upward pass."""

    values: Tensor  # [regions without the root, K, B], largest over K is 1
    scales: Tensor  # [regions without the root, B] float64
    layers: list[Sums]
    log_prob: Tensor  # [B] float64


@dataclass
class ExpectedCounts:
    """Expected sufficient statistics of EM, summed over images."""

    weights: list[Tensor]  # a layer: [partitions, K, K²], the count of W_kij divided by W_kij
    mixing: list[Tensor]  # a layer: [regions, d, K]
    occupancy: Tensor  # [leaves, K] float64
    moments: Tensor  # [leaves, K, 2, pixels] float64, Σ_b responsibility · [x², x]

    def clear(self) -> None:
        """Back to the statistics of no image, in place."""
        for tensor in (*self.weights, *self.mixing, self.occupancy, self.moments):
            tensor.zero_()


class GaussianLeaves(nn.Module):
    """K products of Gaussians for every leaf region.

    Means start as N(0, 1) and standard deviations at 1, as in the EiNet authors' code: the means
    tell the K products apart, and none is so narrow that it loses all images at the start.
    """

    def __init__(self, pixels: Tensor, size: int) -> None:
        super().__init__()
        shape = (len(pixels), size, pixels.shape[1])
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("means", torch.randn(shape))
        self.register_buffer("stds", torch.ones(shape))

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

    def count(self, features: Tensor, flow: Tensor, counts: ExpectedCounts) -> None:
        """Adds the moments of images with these features, of no mask, under the responsibilities
        flow [leaves, K, B]."""
        flow = flow.double()
        counts.occupancy += flow.sum(2)
        counts.moments.flatten(2).baddbmm_(flow, features.flatten(1, 2).mT)

    def _by_leaf(self, images: Tensor) -> Tensor:
        """The pixels of images [B, D] by their leaves [leaves, pixels, B or 1]."""
        rows = images.T.contiguous().index_select(0, self.pixels.flatten())
        return rows.view(*self.pixels.shape, -1)

    def image(self, by_leaf: Tensor) -> Tensor:
        """Pixels [leaves, B, pixels] in their places [B, D]."""
        image = by_leaf.new_empty(by_leaf.shape[1], self.pixels.numel())
        image[:, self.pixels] = by_leaf.transpose(0, 1)
        return image


class EinsumLayer(nn.Module):
    """The sum units of all regions of one depth d, with d partitions each.

    Weights start as U(0.01, 0.99), normalised, as in the EiNet authors' code.
    """

    def __init__(self, layer: Layer, n_inputs: int, n_sums: int) -> None:
        super().__init__()
        n_regions, self.depth = layer.left.shape
        self.regions = slice(layer.start, layer.start + n_regions)
        self.n_inputs = n_inputs
        shape = (n_regions * self.depth, n_sums, n_inputs, n_inputs)
        weights = 0.01 + 0.98 * torch.rand(shape)
        mixing = 0.01 + 0.98 * torch.rand(n_regions, self.depth, n_sums)
        self.register_buffer("left", layer.left.flatten(), persistent=False)  # [partitions]
        self.register_buffer("right", layer.right.flatten(), persistent=False)
        self.register_buffer("weights", weights / weights.sum((2, 3), keepdim=True))
        self.register_buffer("mixing", mixing / mixing.sum(1, keepdim=True))

    def upward(self, values: Tensor, scales: Tensor, maximise: bool) -> Sums:
        """The sums from all regions below; with `maximise` their largest terms instead."""
        combine = _max_product if maximise else torch.bmm
        sums = torch.cat(
            [
                combine(self._weights(part, values.dtype), self._products(values, part))
                for part in self._parts(values)
            ]
        )
        offsets = (scales[self.left] + scales[self.right]).unflatten(0, (-1, self.depth))
        offset = offsets.amax(1)  # [regions, B]
        gates = (offsets - offset[:, None]).to(values.dtype).exp_()
        branches = sums.unflatten(0, (-1, self.depth)) * gates[:, :, None]
        branches *= self._mixing(values.dtype)[..., None]
        totals = branches.amax(1) if maximise else branches.sum(1)
        return Sums(branches, gates, totals, offset)

    def downward(
        self,
        flow: Tensor,
        values: Tensor,
        sums: Sums,
        flows: Tensor,
        counts: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Passes the responsibilities of this layer's units on to its inputs.

        flow: [regions, K, B], posterior probability that a unit is used; what its inputs get is
        added to `flows` [regions below, K, B]. `counts`, where given, are the layer's entries of
        ExpectedCounts, to which those of these images are added.
        """
        tiny = torch.finfo(values.dtype).tiny
        flow = (flow / sums.totals.clamp_min(tiny))[:, None]  # [regions, 1, K, B]
        gradient = flow * self._mixing(values.dtype)[..., None] * sums.gates[:, :, None]
        gradient = gradient.flatten(0, 1)  # [partitions, K, B], of log p for each exp(S)
        if counts is not None:
            counts[1].add_((flow * sums.branches).sum(3))
        for part in self._parts(values):
            products = self._products(values, part)
            if counts is not None:
                counts[0][part].baddbmm_(gradient[part], products.mT)
            weights = self._weights(part, values.dtype)
            joint = torch.bmm(weights.mT, gradient[part]).mul_(products)  # [P, K², B]
            joint = joint.unflatten(1, (self.n_inputs, self.n_inputs))
            flows.index_add_(0, self.left[part], joint.sum(2))
            flows.index_add_(0, self.right[part], joint.sum(1))

    def descend(
        self, states: Tensor, values: Tensor, sums: Sums, columns: Tensor, choose: Choice
    ) -> None:
        """Chooses a partition and its two input units, for every unit of this layer in use.

        states: [regions, n], the unit in use of each region, −1 where the region is not; written
        for the inputs. columns: [n], the image of `values` and `sums` that each state belongs to.
        """
        own = states[self.regions]
        region, image = (own >= 0).nonzero(as_tuple=True)  # [A]
        unit, column = own[region, image], columns[image]
        partition = region * self.depth + choose(sums.branches[region, :, unit, column])
        left, right = self.left[partition], self.right[partition]
        joint = self.weights[partition, unit].to(values.dtype)  # [A, K, K]
        joint = joint * values[left, :, column][:, :, None] * values[right, :, column][:, None]
        chosen = choose(joint.flatten(1))
        states[left, image] = chosen // self.n_inputs
        states[right, image] = chosen % self.n_inputs

    def _parts(self, values: Tensor) -> Iterator[slice]:
        """Consecutive partitions whose products of inputs fit the cache."""
        budget = CPU_PRODUCTS if values.device.type == "cpu" else GPU_PRODUCTS
        step = max(1, budget // (self.n_inputs**2 * values.shape[2]))
        for start in range(0, len(self.left), step):
            yield slice(start, min(start + step, len(self.left)))

    def _products(self, values: Tensor, part: slice) -> Tensor:
        """exp(L_i + R_j) [partitions, K², B], scaled."""
        left = values.index_select(0, self.left[part])
        right = values.index_select(0, self.right[part])
        return (left[:, :, None] * right[:, None]).flatten(1, 2)

    def _weights(self, part: slice, dtype: torch.dtype) -> Tensor:
        """W [partitions, K, K²], normalised to the precision of `dtype`."""
        return _normalised(self.weights[part].flatten(2), dtype, 2)

    def _mixing(self, dtype: torch.dtype) -> Tensor:
        return _normalised(self.mixing, dtype, 1)


class EiNet(nn.Module, Circuit):
    """An EiNet with `size` (K) sum units a region and as many input distributions a leaf region.

    The parameters are buffers: `leaves.means`, `leaves.stds` [leaves, K, pixels], and for every
    layer `weights` [partitions, K, K, K] and `mixing` [regions, d, K]. They are not trained by
    gradient, but by EM (vqdistill.baselines.einet). Queries go through images block by block.
    """

    def __init__(self, graph: RegionGraph, size: int) -> None:
        super().__init__()
        self.n_variables = graph.pixels.numel()
        self.image_shape, self.pixels_per_step = graph.image_shape, graph.pixels_per_step
        self.size = size
        self.n_regions = graph.n_regions
        self.leaves = GaussianLeaves(graph.pixels, size)
        n_sums = [size] * (len(graph.layers) - 1) + [1]
        self.layers = nn.ModuleList(
            EinsumLayer(layer, size, n) for layer, n in zip(graph.layers, n_sums, strict=True)
        )
        elements = (self.n_variables + graph.n_regions + graph.n_partitions) * size
        self.block = max(1, QUERY_ELEMENTS // elements)  # images

    @property
    def n_parameters(self) -> int:
        gaussians = self.leaves.means.numel() + self.leaves.stds.numel()
        einsums = sum(
            layer.weights.numel() - layer.weights.shape[:2].numel() for layer in self.layers
        )
        mixtures = sum(layer.mixing.numel() - layer.mixing[:, 0].numel() for layer in self.layers)
        return gaussians + einsums + mixtures

    @property
    def device(self) -> torch.device:
        return self.leaves.means.device

    def _stored(self) -> Stored:
        facts = {"size": self.size, "pixels_per_step": self.pixels_per_step}
        return Stored("einet", self.state_dict(), facts)

    @classmethod
    def from_stored(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> "EiNet":
        """The EiNet that `save` wrote."""
        graph = poon_domingos(facts["image_shape"], facts["pixels_per_step"])
        with torch.random.fork_rng(devices=[]):  # it draws weights that are then replaced
            model = cls(graph, facts["size"]).to(tensors["leaves.means"].dtype)
        model.load_state_dict(tensors)
        return model

    def _log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        blocks = [self.upward(*block).log_prob for block in self._blocks(x, observed)]
        result = torch.cat(blocks) if blocks else x.new_empty(0, dtype=torch.float64)
        return result if observed is None else torch.where(observed.any(-1), result, 0.0)

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

    def _conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        def mode(x: Tensor, observed: Tensor) -> Tensor:
            activations = self.upward(x, observed, maximise=True)
            columns = torch.arange(len(x), device=x.device)
            units = self._descend(activations, columns, lambda scores: scores.argmax(-1))
            return self.leaves.image(_of_units(self.leaves.means, units))

        return self._filled(x, observed, mode)

    def upward(
        self, x: Tensor, observed: Tensor | None = None, maximise: bool = False
    ) -> Activations:
        """All units for images x [B, D], computed in the type of x.

        With `maximise`, sums are replaced by their largest terms and hidden pixels by their most
        likely values: max-product.
        """
        return self._upward(self.leaves.features(x, observed), x.dtype, maximise)

    def _upward(self, features: Tensor, dtype: torch.dtype, maximise: bool = False) -> Activations:
        density = self.leaves.log_density(features, maximise)  # [leaves, K, B]
        n_leaves, shape = len(density), (self.n_regions - 1, self.size, density.shape[2])
        values = density.new_empty(shape, dtype=dtype)
        scales = density.new_empty(shape[0], shape[2])
        peak = density.amax(1)
        values[:n_leaves] = (density - peak[:, None]).exp_()
        scales[:n_leaves] = peak
        layers = []
        for layer in self.layers:
            sums = layer.upward(values, scales, maximise)
            layers.append(sums)
            if layer is not self.layers[-1]:
                peak = sums.totals.amax(1)  # [regions, B]
                values[layer.regions] = sums.totals / peak[:, None]
                scales[layer.regions] = sums.offset + peak.log()
        log_prob = sums.offset[0] + sums.totals[0, 0].double().log()
        return Activations(values, scales, layers, log_prob)

    def downward(self, activations: Activations, counts: ExpectedCounts | None = None) -> Tensor:
        """Posterior probability [leaves, K, B] that a leaf's product is used, given the images.

        `counts`, where given, gets the expected counts of all sum weights.
        """
        flows = torch.zeros_like(activations.values)
        flow = torch.ones_like(activations.layers[-1].totals)
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            own = flow if index == len(self.layers) - 1 else flows[layer.regions]
            pair = None if counts is None else (counts.weights[index], counts.mixing[index])
            layer.downward(own, activations.values, activations.layers[index], flows, pair)
        return flows[: len(self.leaves.pixels)]

    def count(self, x: Tensor, counts: ExpectedCounts) -> Tensor:
        """Adds the expected statistics of images x [B, D] to `counts`; returns log p(x) [B].

        Computed in the parameters' type.
        """
        features = self.leaves.features(x)
        activations = self._upward(features, self.leaves.means.dtype)
        self.leaves.count(features, self.downward(activations, counts), counts)
        return activations.log_prob

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

    def _descend(self, activations: Activations, columns: Tensor, choose: Choice) -> Tensor:
        """The products in use [leaves, n], chosen from the root downwards."""
        shape = (self.n_regions, len(columns))
        states = torch.full(shape, -1, dtype=torch.int64, device=columns.device)
        states[-1] = 0
        for layer, sums in zip(reversed(self.layers), reversed(activations.layers), strict=True):
            layer.descend(states, activations.values, sums, columns, choose)
        return states[: len(self.leaves.pixels)]

    def _draw(
        self,
        activations: Activations,
        columns: Tensor,
        generator: torch.Generator,
        leaf_means: bool,
    ) -> Tensor:
        """One image [n, D] for each of the activations' columns [n], by ancestral sampling."""
        units = self._descend(activations, columns, lambda scores: _draw_index(scores, generator))
        means = self.leaves.image(_of_units(self.leaves.means, units))
        if leaf_means:
            return means
        stds = self.leaves.image(_of_units(self.leaves.stds, units))
        noise = torch.randn(means.shape, generator=generator, device=generator.device)
        return means + stds * noise.to(means.device)


def _normalised(weights: Tensor, dtype: torch.dtype, dim: int) -> Tensor:
    """Weights whose sum over `dim` is 1 to the precision of `dtype`, not just to their own."""
    if weights.dtype == dtype:
        return weights
    weights = weights.to(dtype)
    return weights / weights.sum(dim, keepdim=True)


def _max_product(weights: Tensor, products: Tensor) -> Tensor:
    """max_ij W_kij exp(L_i + R_j): [P, K, K²], [P, K², B] -> [P, K, B]."""
    return torch.stack([(unit[..., None] * products).amax(1) for unit in weights.unbind(1)], 1)


def _of_units(parameters: Tensor, units: Tensor) -> Tensor:
    """The leaves' parameters [leaves, K, pixels] of the units in use [leaves, n]."""
    leaves = torch.arange(len(parameters), device=units.device)
    return parameters[leaves[:, None], units]  # [leaves, n, pixels]


def _draw_index(scores: Tensor, generator: torch.Generator) -> Tensor:
    """One index [A] a row with probability in proportion to scores [A, n]."""
    cumulative = scores.cumsum(1)
    shape, device = (len(scores), 1), generator.device
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
    uniform = uniform.to(cumulative) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, uniform, right=True).squeeze(1)
    return index.clamp(max=scores.shape[1] - 1)
