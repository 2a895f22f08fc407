"""Quad-tree circuit: sums and products over an image cut into quarters, down to single pixels.

A region of more than one pixel is cut into up to four children. Each of its K units is a product
over them of sums of their units (the CP layers of Loconte et al. 2025),

    u_rk = Π_{c child of r} Σ_j W_ckj u_cj,

a pixel has K Gaussians for units, and the root a weighted sum of its units is p(x). With C classes
the regions of the upper `class_levels` levels have K units for each class, and p(x, c) is the sum
over those of the root that belong to c.

Likelihoods are scaled: the largest of the K units of a region is 1, and the logarithms of what they
were divided by add up to one number an image and class, since each region is used exactly once. So
a layer is one batched matrix product, and some multiplications. Images are the last dimension.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vqdistill.circuits.base import Stored
from vqdistill.circuits.deep import QUERY_ELEMENTS, Choice, DeepCircuit, normalised
from vqdistill.circuits.leaves import GaussianLeaves, LeafCounts


class Quarters(NamedTuple):
    """The children of the regions of a level, in four groups: the first children of all regions
    that have one, the second ones, and so on. Children are numbered in this order."""

    n_regions: int
    parents: list[list[int]]  # of each group

    @property
    def n_children(self) -> int:
        return sum(map(len, self.parents))


def quad_tree(height: int, width: int) -> tuple[list[int], list[Quarters]]:
    """The pixel [D] of each leaf, and the levels from the pixels' parents to the root.

    A region of a level above is two rows and two columns of those of the level below, or what is
    left of them at the lower and at the right edge.
    """
    shapes = [(height, width)]
    while shapes[-1] != (1, 1):
        shapes.append(tuple(-(-side // 2) for side in shapes[-1]))
    regions, levels = [(0, 0)], []
    for rows, columns in reversed(shapes[:-1]):
        children = [
            [*product(range(2 * R, min(2 * R + 2, rows)), range(2 * C, min(2 * C + 2, columns)))]
            for R, C in regions
        ]
        groups = [[p for p, own in enumerate(children) if len(own) > n] for n in range(4)]
        levels.append(Quarters(len(regions), [group for group in groups if group]))
        regions = [children[p][n] for n, group in enumerate(groups) for p in group]
    return [r * width + c for r, c in regions], levels[::-1]


@dataclass
class Level:
    """The regions of one level, evaluated for B images."""

    sums: Tensor  # [children, C, K, B], Σ_j W_ckj u_cj
    values: Tensor  # [regions, C, K, B], the units, of which the largest of K is 1


@dataclass
class Activations:
    """All units of the circuit, evaluated for B images by the upward pass."""

    leaves: Tensor  # [D, 1, K, B], the largest of K is 1
    levels: list[Level]
    totals: Tensor  # [C, B], the root's units, weighted and added
    scales: Tensor  # [C, B] float64, the logarithm of what they were divided by

    @property
    def joint(self) -> Tensor:
        """log p(x, c) [C, B] float64."""
        return self.scales + self.totals.double().log()

    @property
    def log_prob(self) -> Tensor:
        """log p(x) [B] float64."""
        return self.joint.logsumexp(0)


class Only(NamedTuple):
    """One unit for each region of a level, as if the others were not there."""

    level: int
    units: Tensor  # [regions, B]


@dataclass
class ExpectedCounts:
    """Expected sufficient statistics of EM, summed over images."""

    weights: list[Tensor]  # as QuadTree.sum_weights(): expected counts divided by the weights
    leaves: LeafCounts

    def clear(self) -> None:
        """Back to the statistics of no image, in place."""
        for tensor in (*self.weights, *self.leaves):
            tensor.zero_()


class SumProductLayer(nn.Module):
    """The units of the regions of one level, from those of their children.

    The children's units are of C' classes, those of the regions of C, where C' is C or 1. The
    buffer `weights` is [children, C, K, K], and sums to 1 over its last dimension.
    """

    def __init__(self, quarters: Quarters, n_classes: int, n_below: int, size: int) -> None:
        super().__init__()
        self.n_regions, self.n_below = quarters.n_regions, n_below
        ends = accumulate(map(len, quarters.parents), initial=0)
        self.groups = [slice(*pair) for pair in pairwise(ends)]  # of children
        parents = torch.tensor([p for group in quarters.parents for p in group])
        self.register_buffer("parents", parents, persistent=False)  # [children]
        shape = (quarters.n_children, n_classes, size, size)
        self.register_buffer("weights", torch.softmax(2 * torch.randn(shape), -1))

    def upward(self, below: Tensor, maximise: bool) -> tuple[Level, Tensor]:
        """The level above units [children, C', K, B]; also the scales of its classes [C, B]."""
        combine = _largest_term if maximise else torch.bmm
        sums = combine(self._matrices(below.dtype), below.flatten(0, 1))
        sums = sums.view(*self.weights.shape[:3], -1)
        values = sums[self.groups[0]]
        for group in self.groups[1:]:
            values = values * self._of_all_regions(sums[group], group)
        peaks = values.detach().amax(2).clamp_min(torch.finfo(values.dtype).tiny)
        return Level(sums, values / peaks[:, :, None]), peaks.double().log().sum(0)

    def downward(self, flow: Tensor, level: Level, below: Tensor, counts: Tensor | None) -> Tensor:
        """The responsibilities of the children's units [children, C', K, B], from those of the
        regions' [regions, C, K, B]. `counts` gets the expected counts over the weights."""
        gradient = torch.empty_like(level.sums)  # of log p for each sum
        sums = level.sums.clamp_min(torch.finfo(flow.dtype).tiny)
        for group in self.groups:
            whole = group.stop - group.start == self.n_regions
            own = flow if whole else flow[self.parents[group]]
            torch.div(own, sums[group], out=gradient[group])
        matrices, units = self._matrices(flow.dtype), below.flatten(0, 1)
        gradient = gradient.view(*matrices.shape[:2], -1)
        if counts is not None:
            counts.view_as(matrices).baddbmm_(gradient, units.mT)
        return torch.bmm(matrices.mT, gradient).mul_(units).view_as(below)

    def descend(self, classes: Tensor, units: Tensor, below: Tensor, choose: Choice) -> Tensor:
        """The children's units in use [children, n], from those of the regions [regions, n].

        classes: [n]; below: [children, C', K, n].
        """
        child = torch.arange(len(self.parents), device=units.device)[:, None]
        image = torch.arange(units.shape[1], device=units.device)
        own, theirs = (classes if n > 1 else 0 for n in (self.weights.shape[1], self.n_below))
        weights = self.weights[child, own, units[self.parents]].to(below.dtype)  # [children, n, K]
        scores = weights * below[child, theirs, :, image]
        return choose(scores.flatten(0, 1)).view(len(self.parents), -1)

    def _of_all_regions(self, sums: Tensor, group: slice) -> Tensor:
        """The sums of a group of children, by region; 1 where it has no such child."""
        if len(sums) == self.n_regions:
            return sums
        ones = sums.new_ones(self.n_regions, *sums.shape[1:])
        return ones.index_copy(0, self.parents[group], sums)

    def _matrices(self, dtype: torch.dtype) -> Tensor:
        """The weights, normalised to the precision of a type, as [children C', C / C' K, K]."""
        children, n_classes, size, _ = self.weights.shape
        shape = (children * self.n_below, n_classes // self.n_below * size, size)
        return normalised(self.weights, dtype, 3).view(shape)


class QuadTree(DeepCircuit):
    """A quad-tree circuit with `size` (K) units a region, over images (height, width).

    The parameters are buffers: `leaves.means`, `leaves.stds` [D, K, 1], `layers.N.weights`
    [children, C, K, K], and `root` [C, K], which sums to 1 over all of it. They are not trained by
    gradient of PyTorch's making, but from expected counts (vqdistill.baselines.quad_tree).
    """

    def __init__(
        self, image_shape: tuple[int, int], size: int, n_classes: int = 1, class_levels: int = 0
    ) -> None:
        super().__init__()
        order, levels = quad_tree(*image_shape)
        self.image_shape, self.n_variables = tuple(image_shape), len(order)
        self.size, self.n_classes, self.class_levels = size, n_classes, class_levels
        self.leaves = GaussianLeaves(torch.tensor(order)[:, None], size)
        shared = len(levels) - class_levels
        of_level = [1 if n < shared else n_classes for n in range(len(levels))]
        pairs = zip(levels, of_level, [1, *of_level], strict=False)
        self.layers = nn.ModuleList(SumProductLayer(*pair, size) for pair in pairs)
        self.register_buffer("root", torch.full((n_classes, size), 1 / (n_classes * size)))
        self.block = max(1, QUERY_ELEMENTS // (4 * self.n_variables * size))

    @property
    def n_parameters(self) -> int:
        sums = self.sum_weights()
        return self.leaves.n_parameters + sum(w.numel() - w[..., 0].numel() for w in sums)

    def sum_weights(self) -> list[Tensor]:
        """The weights of all sums, normalised over the last dimension: views of the buffers."""
        return [*(layer.weights for layer in self.layers), self.root.flatten()]

    def zero_counts(self) -> ExpectedCounts:
        """The expected statistics of no image at all."""
        weights = [torch.zeros_like(weights) for weights in self.sum_weights()]
        return ExpectedCounts(weights, self.leaves.zero_counts())

    def count_joint(
        self, x: Tensor, classes: Tensor, counts: ExpectedCounts, only: Only | None = None
    ) -> Tensor:
        """Adds the expected statistics of images x [B, D] of known classes [B] to `counts`.

        Gives log p(x, c) [B]. Computed in the parameters' type.
        """
        features = self.leaves.features(x)
        density, dtype = self.leaves.log_density(features), self.leaves.means.dtype
        activations = self._upward(density, dtype, only=only)
        known = one_hot(classes, self.n_classes).T
        flow = self.responsibilities(activations, known, counts)
        self.leaves.count(features, flow, counts.leaves)
        return activations.joint.gather(0, classes[None]).squeeze(0)

    def joint_log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """log p(x_o, c) [B, C] float64 of images x [B, D], in nats."""
        blocks = [self.upward(*block).joint.T for block in self._blocks(x, observed)]
        return torch.cat(blocks) if blocks else x.new_empty(0, self.n_classes, dtype=torch.float64)

    def _upward(
        self,
        density: Tensor,
        dtype: torch.dtype,
        maximise: bool = False,
        only: Only | None = None,
    ) -> Activations:
        peaks = density.detach().amax(1)
        scales = peaks.sum(0)[None]
        leaves = below = (density - peaks[:, None]).to(dtype).exp_()[:, None]
        levels = []
        for n, layer in enumerate(self.layers):
            level, own = layer.upward(below, maximise)
            if only is not None and n == only.level:
                level.values *= one_hot(only.units, self.size).mT[:, None]
            levels.append(level)
            below, scales = level.values, scales + own
        root = normalised(self.root.flatten(), dtype, 0).view_as(self.root)
        terms = root[..., None] * below[0]  # [C, K, B]
        totals = terms.amax(1) if maximise else terms.sum(1)
        return Activations(leaves, levels, totals, scales)

    def downward(self, activations: Activations, counts: ExpectedCounts | None = None) -> Tensor:
        joint = activations.joint
        return self.responsibilities(activations, torch.softmax(joint, 0), counts)

    def responsibilities(
        self, activations: Activations, classes: Tensor, counts: ExpectedCounts | None = None
    ) -> Tensor:
        """The leaves' responsibilities [D, K, B], given probabilities of classes [C, B]."""
        below = [activations.leaves, *(level.values for level in activations.levels)]
        top, totals = below.pop()[0], activations.totals
        flow = classes.to(totals) / totals.clamp_min(torch.finfo(totals.dtype).tiny)  # [C, B]
        flow = flow[:, None] * top  # [C, K, B]
        if counts is not None:
            counts.weights[-1].view_as(self.root).add_(flow.sum(2))
        root = normalised(self.root.flatten(), flow.dtype, 0).view_as(self.root)
        flow = (flow * root[..., None])[None]  # [1, C, K, B]
        if len(top) == 1:
            flow = flow.sum(1, keepdim=True)
        for n in reversed(range(len(self.layers))):
            own = None if counts is None else counts.weights[n]
            flow = self.layers[n].downward(flow, activations.levels[n], below[n], own)
        return flow[:, 0]

    def _descend(self, activations: Activations, columns: Tensor, choose: Choice) -> Tensor:
        root = normalised(self.root.double().flatten(), torch.float64, 0).view_as(self.root)
        gates = torch.softmax(activations.scales, 0)  # [C, B]
        values = [activations.leaves, *(level.values for level in activations.levels)]
        scores = root[..., None] * gates[:, None] * values[-1][0]  # [C, K, B]
        chosen = choose(scores.flatten(0, 1).T[columns])  # [n]
        classes, units = chosen // self.size, (chosen % self.size)[None]
        for layer, below in zip(reversed(self.layers), reversed(values[:-1]), strict=True):
            units = layer.descend(classes, units, below[..., columns], choose)
        return units

    def _class_log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        return self.joint_log_prob(x, observed).log_softmax(1)

    def _stored(self) -> Stored:
        return Stored("quad_tree", self.state_dict(), {})

    @classmethod
    def from_stored(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> "QuadTree":
        """The quad-tree of these parameters over images of facts['image_shape']."""
        n_classes, size = tensors["root"].shape
        layers = [tensor for name, tensor in tensors.items() if name.startswith("layers.")]
        class_levels = sum(weights.shape[1] > 1 for weights in layers)
        with torch.random.fork_rng(devices=[]):  # it draws weights that are then replaced
            model = cls(tuple(facts["image_shape"]), size, n_classes, class_levels)
        model.to(tensors["root"].dtype).load_state_dict(tensors)
        return model


def _largest_term(weights: Tensor, values: Tensor) -> Tensor:
    """max_j W_kj u_j: [R, K', K], [R, K, B] -> [R, K', B]."""
    return torch.stack([(unit[..., None] * values).amax(1) for unit in weights.unbind(1)], 1)
