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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqdistill.circuits.base import Stored
from vqdistill.circuits.deep import QUERY_ELEMENTS, Choice, DeepCircuit, normalised
from vqdistill.circuits.leaves import GaussianLeaves, LeafCounts
from vqdistill.circuits.region_graph import Layer, RegionGraph, poon_domingos

CPU_PRODUCTS = 2**19  # elements of exp(L_i + R_j) at a time: what a core's cache holds
GPU_PRODUCTS = 2**26


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
    leaves: LeafCounts

    def clear(self) -> None:
        """Back to the statistics of no image, in place."""
        for tensor in (*self.weights, *self.mixing, *self.leaves):
            tensor.zero_()


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
        return normalised(self.weights[part].flatten(2), dtype, 2)

    def _mixing(self, dtype: torch.dtype) -> Tensor:
        return normalised(self.mixing, dtype, 1)


class EiNet(DeepCircuit):
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
        self.block = max(1, QUERY_ELEMENTS // elements)

    @property
    def n_parameters(self) -> int:
        einsums = sum(
            layer.weights.numel() - layer.weights.shape[:2].numel() for layer in self.layers
        )
        mixtures = sum(layer.mixing.numel() - layer.mixing[:, 0].numel() for layer in self.layers)
        return self.leaves.n_parameters + einsums + mixtures

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

    def _upward(self, density: Tensor, dtype: torch.dtype, maximise: bool = False) -> Activations:
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

    def _descend(self, activations: Activations, columns: Tensor, choose: Choice) -> Tensor:
        """The products in use [leaves, n], chosen from the root downwards."""
        shape = (self.n_regions, len(columns))
        states = torch.full(shape, -1, dtype=torch.int64, device=columns.device)
        states[-1] = 0
        for layer, sums in zip(reversed(self.layers), reversed(activations.layers), strict=True):
            layer.descend(states, activations.values, sums, columns, choose)
        return states[: len(self.leaves.pixels)]


def _max_product(weights: Tensor, products: Tensor) -> Tensor:
    """max_ij W_kij exp(L_i + R_j): [P, K, K²], [P, K², B] -> [P, K, B]."""
    return torch.stack([(unit[..., None] * products).amax(1) for unit in weights.unbind(1)], 1)
