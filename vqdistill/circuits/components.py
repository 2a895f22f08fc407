"""The Gaussian components of a mixture, and their log-likelihoods: fast, and exact to float64.

The log-likelihood of image b under component n,

    log p_n(x_b) = Σ_d −(x_bd − μ_nd)² / 2σ_nd² − log σ_nd − ½ log 2π,

expands into one matrix product of [x², x] with [−1/2σ², μ/σ²]. In float32 that loses nats where
σ is small, since terms of size 1/σ² cancel; in float64 it is exact but slow. So the float32
product only screens: with a bound on its rounding error, it tells which components can matter to
Σ_n w_n p_n(x) at all. Those few are evaluated again in float64, the others count as zero.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
IMAGE_BLOCK = 1024
COMPONENT_CHUNK = 2048
GATHERED_PAIRS = 4096
NEGLIGIBLE = 40.0  # nats below the largest term; 2^24 such terms change a sum by less than 1e-9
DENSE_SHARE = 0.1  # above this share of components that matter, float64 throughout is faster
FLOAT32_ROUNDING = 4 * torch.finfo(torch.float32).eps


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


def chunks(components: Components, boundaries: list[int]) -> Iterator[Chunk]:
    """All components up to the last boundary, in chunks that do not cross any boundary."""
    start = 0
    for boundary in boundaries:
        while start < boundary:
            stop = min(boundary, start + COMPONENT_CHUNK)
            yield _chunk(start, *components.parameters(slice(start, stop)))
            start = stop


def _chunk(start: int, means: Tensor, log_stds: Tensor) -> Chunk:
    log_std, mean = log_stds.double(), means.double()
    precision = torch.exp(-2 * log_std)
    constant = -0.5 * mean.square() * precision - log_std - HALF_LOG_TWO_PI
    return Chunk(start, means, log_stds, -0.5 * precision, mean * precision, constant)


class Evidence(NamedTuple):
    """A block of images as the features that a chunk's parameters are multiplied with."""

    features: Tensor  # [B, F] float64
    pixels: Tensor | None  # the observed pixels, where one mask serves all images
    masked: bool  # whether each image has its own mask


def evidence(x: Tensor, observed: Tensor | None) -> Evidence:
    """Features of images [B, D] under no mask, one mask [D], or a mask each [B, D]."""
    x = x.double()
    if observed is not None and observed.ndim == 2:
        x = torch.where(observed, x, 0.0)
        return Evidence(torch.cat([x.square(), x, observed.double()], 1), None, True)
    pixels = None if observed is None else observed.nonzero().squeeze(1)
    if pixels is not None:
        x = x[:, pixels]
    return Evidence(torch.cat([x.square(), x], 1), pixels, False)


def _weights(chunk: Chunk, block: Evidence) -> tuple[Tensor, Tensor]:
    """What the features of a block are multiplied with [n, F], and what is added [n]."""
    if block.masked:
        weights = torch.cat([chunk.quadratic, chunk.linear, chunk.constant], 1)
        return weights, weights.new_zeros(len(weights))
    parts = [chunk.quadratic, chunk.linear, chunk.constant]
    if block.pixels is not None:
        parts = [part[:, block.pixels] for part in parts]
    return torch.cat(parts[:2], 1), parts[2].sum(1)


class Scorer:
    """Log-likelihoods of one chunk of components for blocks of images.

    The matrices that depend on the components alone are made once for all blocks.
    """

    def __init__(self, chunk: Chunk, block: Evidence) -> None:
        self.weights, self.offsets = _weights(chunk, block)  # float64 [n, F], [n]
        self.weights32 = self.weights.float()
        self.magnitudes = self.weights32.abs()

    def exact(self, block: Evidence) -> Tensor:
        """log p_n(x_o) [B, n] of every component, in float64."""
        return block.features @ self.weights.T + self.offsets

    def relevant(self, block: Evidence, log_weights: Tensor, floor: Tensor) -> Tensor:
        """log p_n(x_o) [B, n], exact where a component can matter and −inf elsewhere.

        A component can matter when, for one of the weight vectors log_weights [S, n], its term
        comes within `NEGLIGIBLE` nats of the largest one or of `floor` [S, B], the logarithm of
        the sum so far.
        """
        features = block.features.float()
        scores = (features @ self.weights32.T).double() + self.offsets  # [B, n]
        largest = features.abs().amax(0)  # [F]
        error = FLOAT32_ROUNDING * (self.magnitudes @ largest).double()  # [n]
        keep = torch.zeros_like(scores, dtype=torch.bool)
        for weights, so_far in zip(log_weights, floor, strict=True):
            terms = scores + weights
            bound = torch.maximum((terms - error).amax(1), so_far) - NEGLIGIBLE
            keep |= terms + error >= bound[:, None]
        images, numbers = keep.nonzero(as_tuple=True)
        if len(images) > DENSE_SHARE * keep.numel():
            return torch.where(keep, self.exact(block), -torch.inf)
        result = torch.full_like(scores, -torch.inf)
        for part in torch.arange(len(images), device=keep.device).split(GATHERED_PAIRS):
            image, number = images[part], numbers[part]
            products = torch.linalg.vecdot(block.features[image], self.weights[number])
            result[image, number] = products + self.offsets[number]
        return result


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
    result = torch.full((len(log_weights), len(sizes), len(x)), -torch.inf, dtype=torch.float64)
    result = result.to(x.device)
    running = result[:, 0].clone()  # [S, B]
    filled = 0
    for chunk in chunks(components, sizes):
        numbers = slice(chunk.start, chunk.start + len(chunk.means))
        weights, scorer = log_weights[:, numbers], None
        for rows in blocks(len(x)):
            block = evidence(x[rows], rows_of(observed, rows))
            scorer = scorer or Scorer(chunk, block)
            scores = scorer.relevant(block, weights, running[:, rows])
            for s in range(len(weights)):
                total = torch.logsumexp(scores + weights[s], 1)
                running[s, rows] = torch.logaddexp(running[s, rows], total)
        while filled < len(sizes) and sizes[filled] <= numbers.stop:
            result[:, filled] = running
            filled += 1
    return result


def blocks(n: int) -> Iterator[slice]:
    """Slices that cut n images into blocks."""
    for start in range(0, n, IMAGE_BLOCK):
        yield slice(start, min(start + IMAGE_BLOCK, n))


def rows_of(observed: Tensor | None, rows: slice) -> Tensor | None:
    """The masks of a block of images."""
    return observed if observed is None or observed.ndim == 1 else observed[rows]
