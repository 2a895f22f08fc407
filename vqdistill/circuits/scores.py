"""Log-likelihoods of Gaussian components, and their weighted sums: fast, and exact to float64.

The log-likelihood of image b under component n,

    log p_n(x_b) = Σ_d −(x_bd − μ_nd)² / 2σ_nd² − log σ_nd − ½ log 2π,

expands into one matrix product of [x², −2x] with [−1/2σ², −μ/2σ²]. In float32 that loses nats where
σ is small, since terms of size 1/σ² cancel; in float64 it is exact but slow. So the float32
product only screens: with a bound on its rounding error, it tells which components can matter to
Σ_n w_n p_n(x) at all. Those few are evaluated again in float64, the others count as zero.

The product of a cell of pixels is computed once and added to the scores of all masks that it
belongs to. Under one mask, the first cells alone often show that most components are too far from
an image to matter, since no pixel adds more than its peak, −log σ − ½ log 2π: then the other pixels
are multiplied for the few that are left.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill.circuits.components import (
    HALF_LOG_TWO_PI,
    Chunk,
    Components,
    ReorderedComponents,
    chunks,
    peaks,
    quadratic_terms,
)
from vqdistill.circuits.evidence import NEGLIGIBLE, Block, Evidence, blocks
from vqdistill.circuits.screening import (
    Bounds,
    among_all,
    factor_rounding,
    near_the_largest,
    rounding_bound,
    segments,
    where,
)
from vqdistill.errors import InputError

GATHERED_PAIRS = 64  # at a time and thread, whose pixels fit in a core's cache
GATHERED_ON_GPU = 2**17
SPARSE_SHARE = 0.1  # below this share of pairs that can still matter, they are taken one by one
SAMPLED = 16  # images of which one tells how many pairs still matter
PAIRS_OF_COMPONENT, PAIRS_OF_IMAGE = 4, 2  # that pay for its part in a sparse product
DENSE_SHARE = 0.1  # above this share of components that matter, float64 throughout is faster
LOWEST = -1e300  # finite, so that a difference to it is a number where no term is
NARROWEST = 1e-16  # standard deviation, for products that float32 can hold
CANCELLING = 1e11  # nats of terms of opposite signs, above which float64 is off by 1e-4 nats or so

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")


class Pairs(NamedTuple):
    """Images and components that can matter to each other."""

    images: Tensor  # [P], within the block, ascending
    numbers: Tensor  # [P], within the chunk
    values: Tensor  # [P] float64, log p_n(x_o)

    def of(self, part: slice) -> "Pairs":
        """The pairs of some of the components."""
        inside = (self.numbers >= part.start) & (self.numbers < part.stop)
        return Pairs(*(values[inside] for values in self))


class Scorer:
    """Log-likelihoods of one chunk of components for blocks of images.

    What depends on the components alone is made once for all blocks.
    """

    def __init__(self, chunk: Chunk, known: Evidence) -> None:
        self.chunk, self.known = chunk, known
        self.means, self.log_stds = (
            part if part.dtype == torch.float64 else part.float()
            for part in (known.of_pixels(chunk.means), known.of_pixels(chunk.log_stds))
        )
        quadratic = quadratic_terms(self.log_stds)
        linear = quadratic * self.means
        square, peak = linear * self.means, peaks(self.log_stds)
        constant = square
        if known.own_masks is not None:
            constant = peaks(self.log_stds.double()) + square
        self.weights = [part.float() for part in known.weights(quadratic, linear, constant)]
        of_cells = self._peaks_of_cells()
        sums = [of_cells, known.sums(peak.clamp_(min=0)), of_cells + known.sums(square)]
        extremes = torch.stack([*chunk.means.aminmax(), *chunk.log_stds.aminmax()])  # hidden, too
        if not (extremes.isfinite().all() and extremes[2] > math.log(NARROWEST)):
            raise InputError(
                "a component's means or standard deviations are no finite numbers, or a standard"
                f" deviation is below {NARROWEST:g}"
            )
        n_terms = sum(w.shape[1] for w in self.weights) + len(self.weights)
        factors = factor_rounding(chunk.means.device)
        self.peaks, positive, constants = (known.by_mask(part) for part in sums)
        self.rounding, self.margins = rounding_bound(
            self.peaks, positive, constants, n_terms, factors
        )
        # where each image has its own mask, constants are part of the product
        self.offsets = constants if known.own_masks is None else torch.zeros_like(constants)
        earlier = [part.cumsum(0) - part for part in sums]  # of the cells before each [cells, n]
        _, margins = rounding_bound(*earlier, n_terms, factors)
        to_come = self.peaks[:1] - earlier[0]
        self.still_possible = (1 - self.rounding) * earlier[2] + margins + to_come

    def _peaks_of_cells(self) -> Tensor:
        """Σ −log σ − ½ log 2π over each cell's pixels [cells, n], to float64's precision."""
        sizes = [cell.stop - cell.start for cell in self.known.cells]
        sums = self.known.sums(self.log_stds)
        return -sums - HALF_LOG_TWO_PI * sums.new_tensor(sizes)[:, None]

    @cached_property
    def exact_means(self) -> Tensor:
        """μ [n, P], float64."""
        return self.means.double()

    @cached_property
    def quadratic(self) -> Tensor:
        """−1 / 2σ² [n, P], float64."""
        return quadratic_terms(self.log_stds, torch.float64)

    @cached_property
    def exact_terms(self) -> tuple[list[Tensor], Tensor]:
        """Weights of all cells and offsets [M, n], float64."""
        linear = self.quadratic * self.exact_means
        square = linear * self.exact_means
        weights = self.known.weights(self.quadratic, linear, square + peaks(self.log_stds.double()))
        if self.known.own_masks is not None:
            return weights, torch.zeros_like(self.peaks)
        return weights, self.known.by_mask(self._peaks_of_cells() + self.known.sums(square))

    def exact(self, block: Block, mask: int = 0) -> Tensor:
        """log p_n(x_o) [B, n] of every component, in float64."""
        if self._cancels(mask):
            shape = (len(block.x), len(self.chunk.means))
            everything = torch.ones(shape, dtype=torch.bool, device=block.x.device)
            return self.one_by_one(block, mask, *everything.nonzero(as_tuple=True)).view(shape)
        weights, offsets = self.exact_terms
        total = offsets[mask].expand(len(block.x), -1)
        for cell in self._cells_of(mask):
            total = torch.addmm(total, block.exact_features[cell], weights[cell].T)
        return total

    def _cancels(self, mask: int) -> bool:
        """Whether products lose too much, even in float64."""
        return bool((3 * self.margins[mask] > CANCELLING * self.rounding).any())

    def _cells_of(self, mask: int) -> list[int]:
        """The numbers of the cells that are observed under a mask."""
        return self.known.members[mask].nonzero().flatten().tolist()

    def relevant(
        self, block: Block, log_weights: Tensor, floor: Tensor, ends: Sequence[int] = ()
    ) -> Iterator[tuple[int, Pairs]]:
        """For each mask, the pairs of an image and a component that can matter.

        A component can matter when, for one of the weight vectors log_weights [S, n], its term
        comes within `NEGLIGIBLE` nats of the largest one or of `floor` [M, S, B], the logarithm of
        the sum so far. Where sums are also taken up to some `ends` within the chunk, ascending, it
        is compared with the largest one up to the next end.
        """
        done, scores = 0, None
        possible = (self.still_possible + log_weights.amax(0)).float()  # [cells, n]
        needed = floor[0].amin(0).float() - NEGLIGIBLE  # [B]
        whole = all(end == len(self.chunk.means) for end in ends)
        for stop in self.known.checks if whole and needed.isfinite().any() else ():
            scores = self.scores(block, slice(done, stop), scores)
            done = stop
            some = self.alive(scores[0, ::SAMPLED], possible[stop], needed[::SAMPLED])
            if some.double().mean() < SPARSE_SHARE:
                alive = self.alive(scores[0], possible[stop], needed)
                few = self.finished(block, scores[0], alive, stop, possible[stop + 1 :], needed)
                bounds = self.bounds(0, log_weights, floor[0])
                images, numbers, _ = near_the_largest(*few, bounds)
                yield 0, self.evaluated(block, 0, images, numbers)
                return
        scores = self.scores(block, slice(done, None), scores)
        for mask, of_mask in enumerate(scores):
            bounds = self.bounds(mask, log_weights, floor[mask])
            yield mask, self.evaluated(block, mask, *among_all(of_mask, bounds, ends))

    def alive(self, scores: Tensor, possible: Tensor, needed: Tensor) -> Tensor:
        """Which pairs [B, n] can still matter: scores [B, n] so far, possible [n], needed [B]."""
        return torch.add(possible, scores, alpha=1 - self.rounding) > needed[:, None]

    def scores(self, block: Block, cells: slice, earlier: Tensor | None = None) -> Tensor:
        """What some cells contribute to log p_n(x_o) under each mask [M, B, n], in float32.

        It is added to what `earlier` cells did, where that is given, and which is overwritten.
        """
        parts = list(zip(block.features[cells], self.weights[cells], strict=True))
        shape = (len(block.x), len(self.chunk.means))
        if len(self.known.members) == 1 and parts:
            total = torch.mm(parts[0][0], parts[0][1].T) if earlier is None else earlier[0]
            for features, weights in parts[earlier is None :]:
                total.addmm_(features, weights.T)
            return total[None]
        products = block.x.new_empty((len(parts), *shape), dtype=torch.float32)
        for (features, weights), product in zip(parts, products, strict=True):
            torch.mm(features, weights.T, out=product)
        members = self.known.members[:, cells].to(products)
        total = (members @ products.flatten(1)).unflatten(1, shape)
        return total if earlier is None else earlier.add_(total)

    def finished(
        self,
        block: Block,
        scores: Tensor,
        alive: Tensor,
        done: int,
        possible: Tensor,
        needed: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images, components and scores [P] of the pairs that are `alive` before the last cell.

        scores, alive: [B, n], after the `done` first cells; possible: [cells to come but one, n],
        what a score after each can still be at most, but for itself; needed: [B], what it must be.
        """
        images, numbers = where(alive)
        values, cells = scores[images, numbers], slice(done, None)
        parts = zip(block.features[cells], self.weights[cells], [*possible, None], strict=True)
        for features, weights, high in parts:
            ends = ends_of_images(images, len(scores))
            values = add_products(values, ends, numbers, features, weights)
            if high is not None:
                most = high.index_select(0, numbers).add_(values, alpha=1 - self.rounding)
                left = (most > needed.index_select(0, images)).nonzero().squeeze(1)
                images, numbers, values = (
                    part.index_select(0, left) for part in (images, numbers, values)
                )
        return images, numbers, values

    def bounds(self, mask: int, log_weights: Tensor, floor: Tensor) -> Bounds:
        """What the terms of each component are at least and at most; floor: [S, B]."""
        wide, narrow = 1 + self.rounding, 1 - self.rounding
        lowest = wide * self.offsets[mask] + log_weights - self.margins[mask]
        highest = narrow * self.offsets[mask] + log_weights + self.margins[mask]
        return Bounds(lowest.float(), highest.float(), wide, narrow, floor.float())

    def evaluated(self, block: Block, mask: int, images: Tensor, numbers: Tensor) -> Pairs:
        """Pairs with their log p_n(x_o) in float64."""
        if len(images) > DENSE_SHARE * len(block.x) * len(self.chunk.means):
            return Pairs(images, numbers, self.exact(block, mask)[images, numbers])
        n_images, n_masks = len(self.known), len(self.known.members)
        of_chunk = len(images) * n_masks * n_images  # times B, if other blocks are like this one
        needed = PAIRS_OF_COMPONENT * len(self.chunk.means) + PAIRS_OF_IMAGE * n_images
        if of_chunk <= needed * len(block.x) or images.is_cuda or self._cancels(mask):
            return Pairs(images, numbers, self.one_by_one(block, mask, images, numbers))
        return Pairs(images, numbers, self.by_image(block, mask, images, numbers))

    def by_image(self, block: Block, mask: int, images: Tensor, numbers: Tensor) -> Tensor:
        """log p_n(x_o) [P] of pairs, whose images ascend, as a sparse product in float64."""
        weights, offsets = self.exact_terms
        values, ends = offsets[mask, numbers], ends_of_images(images, len(block.x))
        for cell in self._cells_of(mask):
            of_cell = block.exact_features[cell], weights[cell]
            values = add_products(values, ends, numbers, *of_cell)
        return values

    def one_by_one(self, block: Block, mask: int, images: Tensor, numbers: Tensor) -> Tensor:
        """log p_n(x_o) [P] of pairs, as many at a time as the cache holds."""
        values = images.new_empty(len(images), dtype=torch.float64)
        on_cpu = images.device.type == "cpu"
        at_once = GATHERED_PAIRS * torch.get_num_threads() if on_cpu else GATHERED_ON_GPU
        for pairs in blocks(len(images), at_once):
            values[pairs] = self.of_pairs(block, mask, images[pairs], numbers[pairs])
        return values

    def of_pairs(self, block: Block, mask: int, images: Tensor, numbers: Tensor) -> Tensor:
        """log p_n(x_o) [P] of pairs, in float64 and from differences x − μ, so that nothing large
        cancels."""
        values = block.x.index_select(0, images).double()
        values.sub_(self.exact_means.index_select(0, numbers)).square_()
        values.mul_(self.quadratic.index_select(0, numbers))
        if block.own_masks is not None:
            values += peaks(self.log_stds.index_select(0, numbers).double())
            return (values * block.own_masks.index_select(0, images)).sum(1)
        return values @ self.known.observed[mask] + self.peaks[mask, numbers]


def ends_of_images(images: Tensor, n_images: int) -> Tensor:
    """Where the pairs of each image start and end [n_images + 1]; images [P] ascend."""
    counts = images.bincount(minlength=n_images).cumsum(0)
    return torch.cat([counts.new_zeros(1), counts])


def add_products(
    values: Tensor, ends: Tensor, numbers: Tensor, features: Tensor, weights: Tensor
) -> Tensor:
    """values [P] + the products of pairs of rows of features [B, F] and of weights [n, F].

    ends: [B + 1], where the pairs of each row of features end; numbers: [P], rows of weights.
    """
    shape = (len(features), len(weights))
    pairs = torch.sparse_csr_tensor(ends, numbers, values, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(pairs, features, weights.T).values()


def ends_within(chunk: Chunk, sizes: Sequence[int]) -> list[int]:
    """Where in the chunk the first `size` components end, for those sizes where they do."""
    return [size - chunk.start for size in sizes if 0 < size - chunk.start <= len(chunk.means)]


def relevant_pairs(
    known: Evidence,
    components: Components,
    log_weights: Tensor,
    floor: Tensor,
    sizes: Sequence[int] = (),
) -> Iterator[tuple[Chunk, Block, int, Pairs]]:
    """All pairs that can matter to Σ_n w_n p_n(x_o), by chunk of components, block and mask.

    log_weights: [S, N]; floor: [M, S, B], the logarithm of the sums over the pairs given so far,
    which the caller keeps; sizes: the n below N for which sums over the first n are taken too.
    """
    parts = known.blocks()
    for chunk in chunks(components, log_weights.shape[1]):
        scorer, weights = Scorer(chunk, known), log_weights[:, chunk.slice]
        ends = ends_within(chunk, sizes)
        for block in parts:
            so_far = floor[:, :, block.rows]
            for mask, pairs in scorer.relevant(block, weights, so_far, ends):
                yield chunk, block, mask, pairs


def log_sum(
    known: Evidence, components: Components, log_weights: Tensor, sizes: list[int]
) -> Tensor:
    """log Σ_{n < size} w_n p_n(x_o) for several masks, weights and sizes, from one pass.

    log_weights: [S, N] float64, not necessarily normalised; sizes: ascending, at most N. Returns
    [M, S, len(sizes), B] float64, in nats.
    """
    shape = (len(known.members), len(log_weights), len(sizes), len(known))
    result = torch.full(shape, -torch.inf, dtype=torch.float64, device=known.x.device)
    running = result[:, :, 0].clone()  # [M, S, B]
    log_weights = log_weights[:, : sizes[-1]]
    if len(sizes) == 1:
        components, log_weights = heaviest_first(components, log_weights)
    for chunk, block, mask, pairs in relevant_pairs(known, components, log_weights, running, sizes):
        places = {size - chunk.start: i for i, size in enumerate(sizes)}
        so_far = running[mask, :, block.rows]
        parts = list(segments(ends_within(chunk, sizes), len(chunk.means)))
        for part in parts:
            images, numbers, values = pairs if len(parts) == 1 else pairs.of(part)
            terms = values + log_weights[:, chunk.start + numbers]  # [S, pairs]
            so_far = torch.logaddexp(so_far, log_sum_by_image(terms, images, len(block.x)))
            if part.stop in places:
                result[mask, :, places[part.stop], block.rows] = so_far
        running[mask, :, block.rows] = so_far
    return result


def heaviest_first(components: Components, log_weights: Tensor) -> tuple[Components, Tensor]:
    """The same components and weights [S, N], by descending weight.

    The sum over the first of them is then near that over all, and leaves out more of the others.
    """
    heaviest = log_weights.amax(0)
    if (heaviest.diff() <= 0).all():
        return components, log_weights
    order = heaviest.argsort(descending=True, stable=True)
    return ReorderedComponents(components, order), log_weights[:, order]


def log_sum_by_image(terms: Tensor, images: Tensor, n_images: int) -> Tensor:
    """log Σ exp [S, B] of the terms [S, pairs] of each of the `images` [pairs]; −inf for none."""
    index = images.expand_as(terms)
    largest = terms.new_full((len(terms), n_images), -torch.inf)
    largest = largest.scatter_reduce(1, index, terms, "amax").clamp(min=LOWEST)
    sums = torch.zeros_like(largest)
    sums.scatter_add_(1, index, torch.exp(terms - largest.gather(1, index)))
    return largest + sums.log()
