"""The Gaussian components of a mixture, and their log-likelihoods: fast, and exact to float64.

The log-likelihood of image b under component n,

    log p_n(x_b) = Σ_d −(x_bd − μ_nd)² / 2σ_nd² − log σ_nd − ½ log 2π,

expands into one matrix product of [x², x] with [−1/2σ², μ/σ²]. In float32 that loses nats where
σ is small, since terms of size 1/σ² cancel; in float64 it is exact but slow. So the float32
product only screens: with a bound on its rounding error, it tells which components can matter to
Σ_n w_n p_n(x) at all. Those few are evaluated again in float64, the others count as zero.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
IMAGE_BLOCK = 512  # blocks and chunks whose matrices stay below 32 MB, above which glibc asks the
COMPONENT_CHUNK = 1024  # system for fresh pages at every allocation
GATHERED_PAIRS = 1024
NEGLIGIBLE = 30.0  # nats below the largest term; 10^8 such terms change a sum by less than 1e-5
DENSE_SHARE = 0.1  # above this share of components that matter, float64 throughout is faster
LOWEST = -1e300  # finite, so that a difference to it is a number where no term is
FLOAT32_ROUNDING = 0.5 * torch.finfo(torch.float32).eps


class Components(Protocol):
    """A sequence of Gaussian components, stored or made when they are asked for."""

    n_variables: int
    device: torch.device

    def __len__(self) -> int: ...

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Means [n, D] and log standard deviations [n, D], float32, of the components `index`."""
        ...


class StoredComponents:
    """Components whose parameters are held in memory."""

    def __init__(self, means: Tensor, log_stds: Tensor) -> None:
        self.means, self.log_stds = means, log_stds
        self.n_variables = means.shape[1]
        self.device = means.device

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        return self.means[index], self.log_stds[index]


class DecodedComponents:
    """Components that a decoder makes from component numbers, chunk by chunk: p(x|z)."""

    def __init__(
        self,
        decode: Callable[[Tensor], tuple[Tensor, Tensor]],
        n_components: int,
        n_variables: int,
        device: torch.device,
    ) -> None:
        self.decode, self.n_components = decode, n_components
        self.n_variables, self.device = n_variables, device

    def __len__(self) -> int:
        return self.n_components

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=self.device)
        return self.decode(index)


class Chunk(NamedTuple):
    """Some consecutive components, laid out for matrix products over chosen pixels."""

    start: int
    means: Tensor  # [n, D]
    log_stds: Tensor  # [n, D]
    quadratic: Tensor  # [n, D] float64, −1 / 2σ²
    linear: Tensor  # [n, D] float64, μ / σ²
    constant: Tensor  # [n, D] float64, −μ² / 2σ² − log σ − ½ log 2π


def chunks(components: Components, n_components: int) -> Iterator[Chunk]:
    """The first `n_components`, in chunks."""
    for start in range(0, n_components, COMPONENT_CHUNK):
        stop = min(n_components, start + COMPONENT_CHUNK)
        yield _chunk(start, *components.parameters(slice(start, stop)))


def _chunk(start: int, means: Tensor, log_stds: Tensor) -> Chunk:
    log_std, mean = log_stds.double(), means.double()
    precision = torch.exp(-2 * log_std)
    constant = -0.5 * mean.square() * precision - log_std - HALF_LOG_TWO_PI
    return Chunk(start, means, log_stds, -0.5 * precision, mean * precision, constant)


class Evidence(NamedTuple):
    """A block of images, laid out as what a chunk's parameters are multiplied with."""

    x: Tensor  # [B, D], observed pixels alone, or 0 where a mask of its own hides one
    masks: Tensor | None  # [B, D], where each image has its own mask
    pixels: Tensor | None  # the observed pixels, where one mask serves all images
    features: Tensor  # [B, F] float32

    def exact(self) -> Tensor:
        """The features in float64."""
        return _features(self.x.double(), self.masks)


def evidence(x: Tensor, observed: Tensor | None) -> list[Evidence]:
    """Images [B, D] in blocks, under no mask, one mask [D], or a mask each [B, D]."""
    masks, pixels = None, None
    if observed is not None and observed.ndim == 2:
        x, masks = torch.where(observed, x, 0.0), observed
    elif observed is not None:
        pixels = observed.nonzero().squeeze(1)
        x = x[:, pixels]
    parts = []
    for rows in blocks(len(x)):
        part, mask = x[rows], None if masks is None else masks[rows]
        features = _features(part.double(), mask).float()
        parts.append(Evidence(part, mask, pixels, features))
    return parts


def _features(x: Tensor, masks: Tensor | None) -> Tensor:
    return torch.cat([x.square(), x] if masks is None else [x.square(), x, masks.to(x)], 1)


def _weights(chunk: Chunk, block: Evidence) -> tuple[Tensor, Tensor]:
    """What the features of a block are multiplied with [n, F], and what is added [n]."""
    parts = [chunk.quadratic, chunk.linear, chunk.constant]
    if block.masks is not None:
        weights = torch.cat(parts, 1)
        return weights, weights.new_zeros(len(weights))
    if block.pixels is not None:
        parts = [part[:, block.pixels] for part in parts]
    return torch.cat(parts[:2], 1), parts[2].sum(1)


class Scorer:
    """Log-likelihoods of one chunk of components for blocks of images.

    The matrices that depend on the components alone are made once for all blocks.
    """

    def __init__(self, chunk: Chunk, block: Evidence) -> None:
        self.weights, self.offsets = _weights(chunk, block)  # float64 [n, F], [n]
        self.leaves = [chunk.means, chunk.quadratic, -chunk.log_stds.double() - HALF_LOG_TWO_PI]
        if block.pixels is not None:
            self.leaves = [part[:, block.pixels] for part in self.leaves]
        self.weights32, self.offsets32 = self.weights.float(), self.offsets.float()
        self.rounding, self.margins = rounding_bound(chunk, block.pixels, self.weights.shape[1])

    def exact(self, block: Evidence) -> Tensor:
        """log p_n(x_o) [B, n] of every component, in float64."""
        return block.exact() @ self.weights.T + self.offsets

    def relevant(
        self, block: Evidence, log_weights: Tensor, floor: Tensor, ends: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of an image and a component that can matter: images, numbers, log p_n(x_o).

        A component can matter when, for one of the weight vectors log_weights [S, n], its term
        comes within `NEGLIGIBLE` nats of the largest one or of `floor` [S, B], the logarithm of
        the sum so far. Where sums are also taken up to some `ends` within the chunk, ascending,
        it is compared with the largest one up to the next end.
        """
        scores = torch.addmm(self.offsets32, block.features, self.weights32.T)  # [B, n]
        keep = torch.zeros_like(scores, dtype=torch.bool)
        for weights, so_far in zip(log_weights.float(), floor.float(), strict=True):
            least = torch.add(weights - self.margins, scores, alpha=1 + self.rounding)
            most = torch.add(weights + self.margins, scores, alpha=1 - self.rounding)
            for part in segments(ends, len(weights)):
                so_far = torch.maximum(least[:, part].amax(1), so_far)
                keep[:, part] |= most[:, part] >= so_far[:, None] - NEGLIGIBLE
        images, numbers = keep.nonzero(as_tuple=True)
        if len(images) > DENSE_SHARE * keep.numel():
            return images, numbers, self.exact(block)[images, numbers]
        values = scores.new_empty(len(images), dtype=torch.float64)
        for pairs in blocks(len(images), GATHERED_PAIRS):
            values[pairs] = self.of_pairs(block, images[pairs], numbers[pairs])
        return images, numbers, values

    def of_pairs(self, block: Evidence, images: Tensor, numbers: Tensor) -> Tensor:
        """log p_n(x_o) [P] of pairs, in float64 and from differences x − μ, so that nothing large
        cancels."""
        means, quadratic, log_densities = (part[numbers] for part in self.leaves)
        values = (block.x[images].double() - means).square_().mul_(quadratic).add_(log_densities)
        return values.sum(1) if block.masks is None else (values * block.masks[images]).sum(1)


def rounding_bound(chunk: Chunk, pixels: Tensor | None, n_terms: int) -> tuple[float, Tensor]:
    """(r, m [n]) such that the float32 score s̃ of any image differs from s by ≤ m_n − r s̃.

    A sum of F products in any order is off by at most F u Σ|terms|, with the unit roundoff u. With
    z = (x − μ)/σ and q = μ/σ, the terms of a pixel are −½(z + q)², (z + q) q and the constant
    −½q² + l, with l = −log σ − ½ log 2π. Their sizes add up to at most 3/2 z² + 5/2 q² and that of
    the constant, and Σ z² = 2(Σ l − s).
    """
    log_densities = -chunk.log_stds.double() - HALF_LOG_TWO_PI
    squares = -2 * (chunk.constant - log_densities)  # q²
    parts = [log_densities.clamp(min=0), squares, chunk.constant.abs()]
    if pixels is not None:
        parts = [part[:, pixels] for part in parts]
    peak, square, constant = (part.sum(1) for part in parts)
    unit = (n_terms + 4) * FLOAT32_ROUNDING  # 4 for the rounding of the factors and of the sum
    unit /= 1 - 3 * unit  # for s̃ in place of s in Σ z²
    return 3 * unit, (unit * (3 * peak + 2.5 * square + constant)).float()


def segments(ends: Sequence[int], n: int) -> Iterator[slice]:
    """The slices that the ends within 0 … n cut it into."""
    start = 0
    for end in (*ends, n):
        if end > start:
            yield slice(start, end)
            start = end


def log_sum(
    x: Tensor,
    components: Components,
    log_weights: Tensor,
    sizes: list[int],
    observed: Tensor | None = None,
) -> Tensor:
    """log Σ_{n < size} w_n p_n(x_o) for several sizes and weights, from one pass.

    x: [B, D]; log_weights: [S, N] float64, not necessarily normalised; sizes: ascending, at most
    N; observed: mask [D] or [B, D], or None. Returns [S, len(sizes), B] float64, in nats.
    """
    result = torch.full(
        (len(log_weights), len(sizes), len(x)), -torch.inf, dtype=torch.float64, device=x.device
    )
    running = result[:, 0].clone()  # [S, B]
    parts = evidence(x, observed)
    for chunk in chunks(components, sizes[-1]):
        stop = chunk.start + len(chunk.means)
        weights, scorer = log_weights[:, chunk.start : stop], Scorer(chunk, parts[0])
        inside = [i for i, size in enumerate(sizes) if chunk.start < size <= stop]
        ends = [sizes[i] - chunk.start for i in inside]
        for rows, block in zip(blocks(len(x)), parts, strict=True):
            images, numbers, values = scorer.relevant(block, weights, running[:, rows], ends)
            for part in segments(ends, len(chunk.means)):
                of_part = (numbers >= part.start) & (numbers < part.stop)
                terms = values[of_part] + weights[:, numbers[of_part]]  # [S, pairs]
                sums = log_sum_by_image(terms, images[of_part], len(block.x))  # [S, B]
                running[:, rows] = torch.logaddexp(running[:, rows], sums)
                if part.stop in ends:
                    result[:, inside[ends.index(part.stop)], rows] = running[:, rows]
    return result


def log_sum_by_image(terms: Tensor, images: Tensor, n_images: int) -> Tensor:
    """log Σ exp [S, B] of the terms [S, pairs] of each of the `images` [pairs]; −inf for none."""
    index = images.expand_as(terms)
    largest = terms.new_full((len(terms), n_images), -torch.inf)
    largest = largest.scatter_reduce(1, index, terms, "amax").clamp(min=LOWEST)
    sums = torch.zeros_like(largest)
    sums.scatter_add_(1, index, torch.exp(terms - largest.gather(1, index)))
    return largest + sums.log()


def blocks(n: int, size: int = IMAGE_BLOCK) -> Iterator[slice]:
    """Slices that cut 0 … n into blocks, one at least."""
    for start in range(0, max(n, 1), size):
        yield slice(start, min(start + size, n))


def rows_of(observed: Tensor | None, rows: slice) -> Tensor | None:
    """The masks of a block of images."""
    return observed if observed is None or observed.ndim == 1 else observed[rows]
