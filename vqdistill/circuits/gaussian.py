"""Gaussian leaves: the one place where the densities of pixels are computed.

The log-likelihood of image b under component n,

    log p_n(x_b) = Σ_d −(x_bd − μ_nd)² / 2σ_nd² − log σ_nd − ½ log 2π,

expands into one matrix product of [x², −2x] with [−1/2σ², −μ/2σ²]. In float64 that is exact; in
float32 it loses nats where σ is small, since terms of size 1/σ² cancel.

A sum Σ_n w_n p_n(x) needs only the terms near the largest one, which `relevant_terms` gives. On
GPUs, and for few components, it takes them from the product in float64. Elsewhere the product in
float32, with a bound on its rounding error, tells which can matter; those few are then evaluated in
float64, from the differences x − μ.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vqdistill.errors import InputError

MIN_STD = 1e-3  # uniform noise of one of 256 grey levels has a standard deviation of 1.13e-3
MAX_STD = 1.0
NARROWEST = 1e-16  # standard deviation, for products that float32 can hold
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)

NEGLIGIBLE = 30.0  # nats below the largest term; 10^8 such terms change a sum by less than 1e-5
LOWEST = -1e300  # log of no term at all; finite, so that differences and gradients are numbers
CANCELLING = 0.02  # nats of the error bound above which a product in float64 is not trusted
FEW = 64  # components whose product in float64 takes no longer than looking for those that matter
DENSE = 1 / 16  # share of pairs that matter above which it is faster, too
IMAGES, COMPONENTS = 1024, 1024  # at a time; on GPUs:
GPU_IMAGES, GPU_COMPONENTS = 8192, 4096
PAIRS = 128  # at a time, so that their pixels fit a core's cache


def log_mode(log_stds: Tensor) -> Tensor:
    """−log σ − ½ log 2π, the log-density of a Gaussian at its mode."""
    return -HALF_LOG_TWO_PI - log_stds


def log_density(x: Tensor, means: Tensor, log_stds: Tensor) -> Tensor:
    """log N(x; μ, σ) of every entry, in nats; the shapes broadcast."""
    return -0.5 * ((x - means) * torch.exp(-log_stds)).square() + log_mode(log_stds)


def mixed_std(means: Tensor, squares: Tensor, variances: Tensor) -> Tensor:
    """The standard deviation of a mixture of Gaussians, from E[μ], E[μ²] and E[σ²].

    That is √(E[σ²] + Var[μ]), of which rounding leaves Var[μ] exact to some 10⁻¹⁵.
    """
    return (variances + (squares - means.square()).clamp(min=0)).sqrt()


def product_weights(means: Tensor, log_stds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """−1/2σ², −μ/2σ² and −μ²/2σ²: what x², −2x and 1 are multiplied with."""
    quadratic = -0.5 * torch.exp(-2 * log_stds)
    linear = quadratic * means
    return quadratic, linear, linear * means


def log_likelihoods(x: Tensor, means: Tensor, log_stds: Tensor) -> Tensor:
    """log p_n(x_b) [B, N] of images [B, D] under components [N, D], in nats.

    One product in the type of the inputs, differentiable in all of them.
    """
    quadratic, linear, square = product_weights(means, log_stds)
    constants = (square + log_mode(log_stds)).sum(1)
    features, weights = torch.cat([x.square(), -2 * x], 1), torch.cat([quadratic, linear], 1)
    return torch.addmm(constants, features, weights.T)


class Components(Protocol):
    """A sequence of Gaussian components, stored or made when they are asked for."""

    def __len__(self) -> int: ...

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations, each [n, D], of the components `index`."""
        ...


class Evidence:
    """Observed pixels x_o of images x [B, D].

    masks: bool [M, D], M of them that all images share; or with `own` bool [B, D], one for each
    image, and M is 1. Pixels lie in cells, each observed under the same of the M masks: the product
    of a cell is computed once, and added under all masks that it belongs to.
    """

    def __init__(self, x: Tensor, masks: Tensor, own: bool = False) -> None:
        self.x = x if x.dtype == torch.float64 else x.float()
        self.masks, self.own = masks, own
        if own:
            self.x = torch.where(masks, self.x, 0.0)
            self.cells = [torch.arange(x.shape[1], device=x.device)]
            self.members = masks.new_ones(1, 1)
        else:
            patterns, cell_of = masks.int().unique(dim=1, return_inverse=True)  # [M, cells], [D]
            seen = patterns.any(0)
            of_pixels = [(cell_of == cell) & seen[cell] for cell in range(len(seen))]
            self.cells = [pixels.nonzero().flatten() for pixels in of_pixels]
            self.members = patterns.bool()  # [M, cells]
        self.pixels = [self.x.index_select(1, cell) for cell in self.cells]

    def features(self, rows: slice, dtype: torch.dtype) -> list[Tensor]:
        """[x², −2x] of each cell's pixels, and the masks where images have their own: [b, F]."""
        masks = [self.masks[rows].to(dtype)] if self.own else []
        pixels = [of_cell[rows].to(dtype) for of_cell in self.pixels]
        return [torch.cat([x.square(), -2 * x, *masks], 1) for x in pixels]

    def observed(self, mask: int, rows: slice, images: Tensor) -> Tensor:
        """What images [P] of the rows have observed: [P, D], or [D] for all alike."""
        return self.masks[rows][images] if self.own else self.masks[mask]


class Product(NamedTuple):
    """What features are multiplied with, to give the log-likelihoods of n components.

    The result s̃ differs from the log-likelihood s that it stands for by at most m_n − r s̃.
    """

    weights: list[Tensor]  # of each cell [n, F]
    offsets: Tensor  # [M, n] float64, what is added under each mask
    rounding: float  # r
    margins: Tensor  # m [n] float64, nats


class Chunk:
    """Some consecutive components, and their log-likelihoods given some evidence.

    With `at_mode` a hidden pixel has the density of its mode; else it is integrated out. Raises
    InputError where parameters are no finite numbers.
    """

    def __init__(
        self, start: int, means: Tensor, log_stds: Tensor, evidence: Evidence, at_mode: bool
    ) -> None:
        check_finite(means, log_stds)
        self.start, self.means, self.log_stds = start, means, log_stds
        self.evidence, self.at_mode = evidence, at_mode
        self.product = cache(self._product)

    def _product(self, dtype: torch.dtype) -> Product:
        """The product in one type, float32 or float64."""
        evidence, modes = self.evidence, log_mode(self.log_stds.double())
        *parts, square = product_weights(self.means.to(dtype), self.log_stds.to(dtype))
        square = square.double()
        constants = square if self.at_mode else square + modes  # of observed pixels
        if evidence.own:
            parts.append(constants.to(dtype))
            offsets = modes.new_zeros(1, len(modes))
        else:
            of_cells = torch.stack([constants[:, cell].sum(1) for cell in evidence.cells])
            offsets = evidence.members.double() @ of_cells
        if self.at_mode:
            offsets = offsets + modes.sum(1)
        weights = [
            torch.cat([part.index_select(1, cell) for part in parts], 1) for cell in evidence.cells
        ]
        unit = rounding_unit(sum(w.shape[1] for w in weights) + len(weights), dtype, modes.device)
        return Product(weights, offsets, 3 * unit, unit * (4 * modes.abs() - 6 * square).sum(1))

    def of_all(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """log p_n(x_o) [M, b, n] of every pair, by the product in one type."""
        product, features = self.product(dtype), self.evidence.features(rows, dtype)
        cells = torch.stack([f @ w.T for f, w in zip(features, product.weights, strict=True)])
        of_masks = self.evidence.members.to(dtype) @ cells.flatten(1)
        return of_masks.unflatten(1, cells.shape[1:]) + product.offsets[:, None].to(dtype)

    def of_pairs(self, rows: slice, mask: int, images: Tensor, numbers: Tensor) -> Tensor:
        """log p_n(x_o) [P] of pairs in float64, from differences x − μ: nothing large cancels."""
        x, values = self.evidence.x[rows], [images.new_zeros(0, dtype=torch.float64)]
        for i, n in zip(images.split(PAIRS), numbers.split(PAIRS), strict=True):
            means, log_stds = (
                part.index_select(0, n).double() for part in (self.means, self.log_stds)
            )
            pixels = log_density(x.index_select(0, i).double(), means, log_stds)
            hidden = log_mode(log_stds) if self.at_mode else torch.zeros_like(log_stds)
            observed = self.evidence.observed(mask, rows, i)
            values.append(torch.where(observed, pixels, hidden).sum(1))
        return torch.cat(values)


def check_finite(means: Tensor, log_stds: Tensor) -> None:
    """InputError where parameters are no finite numbers, or too small to compute with."""
    extremes = torch.stack([*means.aminmax(), *log_stds.aminmax()])
    if not (extremes.isfinite().all() and extremes[2] > math.log(NARROWEST)):
        raise InputError(
            "a component's means or standard deviations are no finite numbers, or a standard"
            f" deviation is below {NARROWEST:g}"
        )


def rounding_unit(n_terms: int, dtype: torch.dtype, device: torch.device) -> float:
    """u' such that a product s̃ of n terms differs from s by at most u' (Σ_d 4|l| + 3q² − 3s̃).

    A sum in which no term passes through more than F additions and products is off by at most
    F u Σ|terms|, with the unit roundoff u. With l = −log σ − ½ log 2π, z = (x − μ)/σ and q = μ/σ
    the terms of a pixel are −½(z + q)², (z + q) q and l − ½q². Their sizes add up to at most
    3/2 z² + 3q² + |l|, and Σ z² = 2(Σ l − s).
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    shorter = {"tf32": 2.0**-11, "bf16": 2.0**-8}.get(backend.matmul.fp32_precision, 0.0)
    factors = shorter if dtype == torch.float32 else 0.0  # where PyTorch is told to round them
    # 8 for the factors, of which an exponential is off by 2 u, and for the sum
    unit = (n_terms + 8) * torch.finfo(dtype).eps / 2 + (1 + factors) ** 3 - 1
    return unit / (1 - 3 * unit)  # for s̃ in place of s


class Terms(NamedTuple):
    """Terms w_n p_n(x_o) of a chunk of components, for some images under one mask.

    Terms that are left out are negligible. Sums are over S weight vectors.
    """

    chunk: Chunk
    rows: slice  # of the images
    mask: int
    images: Tensor  # [P], within the rows
    numbers: Tensor  # [P], within the chunk
    values: Tensor  # [S, P] float64, log w_n p_n(x_o)
    before: Tensor  # [S, b], the logarithm of the sum over earlier chunks
    sums: Tensor  # [S, b], over this chunk
    after: Tensor  # [S, b], over both


def relevant_terms(
    evidence: Evidence,
    components: Components,
    log_weights: Tensor,
    sizes: Sequence[int] = (),
    at_mode: bool = False,
    before: Tensor | None = None,
) -> Iterator[Terms]:
    """The terms that matter to Σ_n w_n p_n(x_o), by chunk of components, block of images and mask.

    log_weights: [S, N] float64, not necessarily normalised. A chunk ends at each of `sizes`, and
    what matters to the sum up to there is given. With `at_mode` p_n(x_o) stands for
    max p_n(x_o, x_u) over x_u. before: the logarithms [M, S, B] of sums that these go on from.
    Differentiable in x.
    """
    x, n = evidence.x, log_weights.shape[1]
    blocks = slices(len(x), GPU_IMAGES if x.is_cuda else IMAGES)
    chunks = slices(n, GPU_COMPONENTS if x.is_cuda else COMPONENTS, sizes)
    if before is None:
        shape = (len(evidence.members), len(log_weights), len(x))
        before = log_weights.new_full(shape, LOWEST)
    totals = [before[:, :, rows] for rows in blocks]  # log Σ so far, [M, S, b] of each block
    for part in chunks:
        chunk = Chunk(part.start, *components.parameters(part), evidence, at_mode)
        weights = log_weights[:, part]
        for i, rows in enumerate(blocks):
            after = []
            for mask, pairs in enumerate(relevant_pairs(chunk, rows, weights, totals[i])):
                images, numbers, log_likelihoods = pairs
                values, before = log_likelihoods + weights[:, numbers], totals[i][mask]
                sums = log_sum_by_image(values, images, before.shape[1])
                after.append(torch.logaddexp(before, sums))
                yield Terms(chunk, rows, mask, images, numbers, values, before, sums, after[-1])
            totals[i] = torch.stack(after)


def slices(n: int, size: int, ends: Sequence[int] = ()) -> list[slice]:
    """0 … n cut into slices of at most `size`, one at least, and also at all of `ends`."""
    cuts = sorted({*range(0, n, size), *ends, 0, n})
    return [slice(start, stop) for start, stop in pairwise(cuts)] or [slice(0, 0)]


def relevant_pairs(
    chunk: Chunk, rows: slice, log_weights: Tensor, totals: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each mask, images and components [P] that can matter to each other, and log p_n(x_o).

    log_weights: [S, n]; totals: [M, S, b], the logarithms of the sums so far.
    """
    few = len(chunk.means) <= FEW or chunk.means.is_cuda
    dtype = torch.float64 if few else torch.float32
    values, product = chunk.of_all(rows, dtype), chunk.product(dtype)
    with torch.no_grad():
        relevant = [
            can_matter(of_mask, product, log_weights, total)
            for of_mask, total in zip(values, totals, strict=True)
        ]
    pairs = [keep.nonzero(as_tuple=True) for keep in relevant]
    if not few and sum(len(images) for images, _ in pairs) > DENSE * values.numel():
        values = chunk.of_all(rows, torch.float64)
    trusted = chunk.product(values.dtype).margins.max() < CANCELLING
    for mask, (images, numbers) in enumerate(pairs):
        if trusted and values.dtype == torch.float64:
            yield images, numbers, values[mask, images, numbers]
        else:
            yield images, numbers, chunk.of_pairs(rows, mask, images, numbers)


def can_matter(values: Tensor, product: Product, log_weights: Tensor, totals: Tensor) -> Tensor:
    """Which pairs [b, n] come within `NEGLIGIBLE` nats of an image's largest term, or sum so far.

    values: log-likelihoods [b, n] by the product, as exact as it is; log_weights: [S, n]; totals:
    [S, b]. What matters under one of the S weight vectors matters.
    """
    keep = torch.zeros_like(values, dtype=torch.bool)
    for weights, total in zip(log_weights, totals, strict=True):
        low, high = (weights + sign * product.margins for sign in (-1, 1))
        least = torch.add(low.to(values), values, alpha=1 + product.rounding).amax(1)
        needed = torch.maximum(least, total.to(values)) - NEGLIGIBLE
        keep |= torch.add(high.to(values), values, alpha=1 - product.rounding) > needed[:, None]
    return keep


def log_sum_by_image(terms: Tensor, images: Tensor, n_images: int) -> Tensor:
    """log Σ exp [S, b] of the terms [S, P] of each of the `images` [P]; −inf for none."""
    index = images.expand_as(terms)
    largest = terms.new_full((len(terms), n_images), LOWEST)
    largest = largest.scatter_reduce(1, index, terms.detach(), "amax")
    shares = torch.exp(terms - largest.gather(1, index))
    sums = torch.zeros_like(largest).scatter_add(1, index, shares)
    return largest + sums.log()
