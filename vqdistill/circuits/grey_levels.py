"""Probabilities of grey levels, of Gaussians and of mixtures of them.

Grey level v of L is the bin [v/L, (v + 1)/L) of a pixel; the first bin has all that lies below it
too, and the last all that lies above, so that the levels of a pixel sum to 1.

A mixture's Σ_n w_n p_n(v) needs only the terms near the largest one. Which these are is told by an
upper bound on log p_n(v) of all images and components, which is one matrix product. Let x be the
middle of a bin, z = (x − μ)/σ and s = 1/Lσ its width. Then it has the mass s φ(z) exp g(z) with

    g(z) = log ∫ exp(−s z t − s² t²/2) dt over −1/2 ≤ t ≤ 1/2,

which is convex in z, and at most (s z)²/24, since sinh(y)/y ≤ exp(y²/6). So at all levels but the
first and the last g is at most this parabola, and at most its own chord from level 1 to level
L − 2: either makes the bound of a pixel quadratic in x. The first and the last level have their own
weights in the product, which are exact.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqdistill.circuits.gaussian import (
    COMPONENTS,
    GPU_COMPONENTS,
    GPU_IMAGES,
    HALF_LOG_TWO_PI,
    IMAGES,
    LOWEST,
    NEGLIGIBLE,
    Components,
    check_finite,
    log_sum_by_image,
    rounding_unit,
    slices,
)

WIDE_BIN = 1.0  # s above which the chord is the closer bound
COARSE = 1e-3  # rounding unit of float32 above which it tells too little
PIXELS = 2**18  # at a time, of pairs of images and components


def log_mass(levels: Tensor | int, n_levels: int, means: Tensor, stds: Tensor) -> Tensor:
    """log of the probability of grey levels under Gaussians, float64 nats; the shapes broadcast.

    That is log(Φ(b) − Φ(a)), taken as log Φ(b) + log(1 − Φ(a)/Φ(b)) on the side of the mean where
    Φ is small: nothing cancels, however far out the bin lies.
    """
    means, stds = means.double(), stds.double()
    levels = torch.as_tensor(levels, dtype=torch.float64, device=means.device)
    a = torch.where(levels > 0, (levels / n_levels - means) / stds, -torch.inf)
    b = torch.where(levels < n_levels - 1, ((levels + 1) / n_levels - means) / stds, torch.inf)
    above = a + b > 0
    a, b = torch.where(above, -b, a), torch.where(above, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log(-torch.expm1(log_a - log_b))


def expected_moments(
    levels: Tensor, n_levels: int, means: Tensor, stds: Tensor
) -> tuple[Tensor, Tensor]:
    """E[x² | v] and E[x | v] of Gaussians in the bins of grey levels; the shapes broadcast.

    With z = (x − μ)/σ in [a, b), E[z | v] = (φ(a) − φ(b)) / P(v) and
    E[z² | v] = 1 + (a φ(a) − b φ(b)) / P(v), float64.
    """
    means, stds = means.double(), stds.double()
    mass = log_mass(levels, n_levels, means, stds)
    first = second = torch.zeros_like(mass)
    for sign, edge, inside in (
        (1, levels, levels > 0),
        (-1, levels + 1, levels < n_levels - 1),
    ):
        z = torch.where(inside, (edge.double() / n_levels - means) / stds, 0.0)
        ratio = torch.exp(-0.5 * z.square() - HALF_LOG_TWO_PI - mass)  # φ(z) / P(v)
        ratio = torch.where(inside, sign * ratio, 0.0)
        first, second = first + ratio, second + z * ratio
    second = (1 + second).clamp(min=first.square())
    return means.square() + stds * (2 * means * first + stds * second), means + stds * first


def log_sums_discrete(
    images: Tensor,
    n_levels: int,
    components: Components,
    log_weights: Tensor,
    sizes: Sequence[int],
    before: Tensor | None = None,
) -> Tensor:
    """log Σ_{n ≤ size} w_n p_n(v) of images of grey levels [B, D], for several weights and sizes.

    log_weights: [S, N] float64, not necessarily normalised; sizes: ascending, at most N; before:
    the logarithms [S, B] of sums that these go on from. Returns [S, len(sizes), B] float64, in
    nats, from one pass.
    """
    blocks = slices(len(images), GPU_IMAGES if images.is_cuda else IMAGES)
    chunks = slices(sizes[-1], GPU_COMPONENTS if images.is_cuda else COMPONENTS, sizes)
    shape = (len(log_weights), len(images))
    totals = log_weights.new_full(shape, LOWEST) if before is None else before.clone()
    found = []
    for part in chunks:
        chunk = Chunk(*components.parameters(part), n_levels)
        for rows in blocks:
            of_images = chunk.log_sums(images[rows], log_weights[:, part], totals[:, rows])
            totals[:, rows] = torch.logaddexp(totals[:, rows], of_images)
        if part.stop in sizes:
            found.append(totals.clone())
    sums = torch.stack(found, 1)
    return torch.where(sums > LOWEST / 2, sums, -torch.inf)


class Bound(NamedTuple):
    """What features [b, 4 D] of images are multiplied with, for an upper bound on log p_n(v).

    The result u is off by at most m_n − r u. Let T be the log-mass of a first or last level, and
    h = −k z²/2 + βz + c = A x² + B x + C + T_first the bound of a pixel at an inner one, q = μ/σ.
    |A| x² + |B| x is at most x²/σ² + q² + β², and by z² ≤ 4 (|c| − h) + 4 β² at most
    8 |c| + 9 β² + 3 q² − 8 h. All h and T of an image add up to u, and no T is above 0.
    """

    weights: Tensor  # [n, 4 D]
    offsets: Tensor  # [n] float64, added to the product
    rounding: float  # r
    margins: Tensor  # m [n]


def features(images: Tensor, n_levels: int, dtype: torch.dtype) -> Tensor:
    """[x², x, 1] of the inner levels and [1] of the last, by pixel: [b, 4 D]."""
    last = images == n_levels - 1
    inner = (images > 0) & ~last
    x = (images.to(dtype) + 0.5) / n_levels * inner
    return torch.cat([x.square(), x, inner.to(dtype), last.to(dtype)], 1)


class Chunk:
    """Some consecutive components, and their probabilities of images."""

    def __init__(self, means: Tensor, log_stds: Tensor, n_levels: int) -> None:
        check_finite(means, log_stds)
        self.means, self.stds = means.double(), log_stds.double().exp()
        self.n_levels = n_levels
        self.first = log_mass(0, n_levels, self.means, self.stds)  # [n, D], of level 0
        self.bound = self._bound()

    def log_sums(self, images: Tensor, log_weights: Tensor, totals: Tensor) -> Tensor:
        """log Σ_n w_n p_n(v) [S, b], of what matters beside the sums so far [S, b]."""
        reach = self.upper(images)[None] + log_weights[:, None]  # [S, b, n]
        likely = torch.zeros_like(reach[0], dtype=torch.bool)
        for of_weights, total in zip(reach, totals, strict=True):
            best = of_weights.max(1)
            rows = (best.values > total - NEGLIGIBLE).nonzero().flatten()
            likely[rows, best.indices[rows]] = True
        found = [self._terms(images, log_weights, likely)]
        least = log_sum_by_image(*found[0], len(images))
        needed = torch.maximum(totals, least) - NEGLIGIBLE
        others = (reach > needed[..., None]).any(0) & ~likely
        found.append(self._terms(images, log_weights, others))
        values, of_image = (torch.cat(part, -1) for part in zip(*found, strict=True))
        return log_sum_by_image(values, of_image, len(images))

    def upper(self, images: Tensor) -> Tensor:
        """At least log p_n(v) [b, n]."""
        weights, offsets, rounding, margins = self.bound
        of_images = features(images, self.n_levels, weights.dtype)
        used = of_images.any(0).nonzero().flatten()
        products = of_images.index_select(1, used) @ weights.index_select(1, used).T
        return (products + offsets) * (1 - rounding) + margins

    def of_pairs(self, images: Tensor, numbers: Tensor) -> Tensor:
        """log p_n(v) [P] of images [P, D] under the components with these numbers [P]."""
        pair, pixel = images.nonzero(as_tuple=True)
        place = numbers[pair] * images.shape[1] + pixel
        means, stds, first = (part.flatten()[place] for part in (self.means, self.stds, self.first))
        brighter = log_mass(images[pair, pixel], self.n_levels, means, stds) - first
        return self.bound.offsets[numbers].index_add(0, pair, brighter)

    def _terms(self, images: Tensor, log_weights: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """log w_n p_n(v) [S, P] of the pairs [b, n] that are kept, and the image of each."""
        of_image, numbers = keep.nonzero(as_tuple=True)
        at_once = max(1, PIXELS // images.shape[1])
        parts = zip(of_image.split(at_once), numbers.split(at_once), strict=True)
        values = torch.cat([self.of_pairs(images[i], n) for i, n in parts])
        return values + log_weights[:, numbers], of_image

    def _bound(self) -> Bound:
        stds, n_levels = self.stds, self.n_levels
        width = 1 / (n_levels * stds)
        centre = self.means / stds
        height = width.log() - HALF_LOG_TWO_PI
        curvature, slope = 1 - width.square() / 12, torch.zeros_like(width)
        wide = width > WIDE_BIN
        curvature[wide] = 1.0
        slope[wide], height[wide] = self._chord(wide)
        # −k z²/2 + βz + c with z = x/σ − q
        square = -0.5 * curvature / stds.square()
        linear = (curvature * centre + slope) / stds
        constant = height - 0.5 * curvature * centre.square() - slope * centre - self.first
        last = log_mass(n_levels - 1, n_levels, self.means, stds) - self.first
        sizes = 8 * height.abs() + 9 * slope.square() + 3 * centre.square()
        sizes = sizes + constant.abs() + self.first.abs()
        weights, dtype = torch.cat([square, linear, constant, last], 1), torch.float32
        if stds.is_cuda or rounding_unit(weights.shape[1], dtype, stds.device) > COARSE:
            dtype = torch.float64
        unit = rounding_unit(weights.shape[1], dtype, stds.device)
        unit = unit / (1 - 8 * unit)  # for u with its rounding in place of u
        return Bound(weights.to(dtype), self.first.sum(1), 8 * unit, unit * sizes.sum(1))

    def _chord(self, wide: Tensor) -> tuple[Tensor, Tensor]:
        """β and c of −z²/2 + βz + c through levels 1 and L − 2, of some pixels [n, D]."""
        means, stds, n_levels = self.means[wide], self.stds[wide], self.n_levels
        z, height = [], []
        for level in (1, n_levels - 2):
            z.append(((level + 0.5) / n_levels - means) / stds)
            height.append(log_mass(level, n_levels, means, stds) + 0.5 * z[-1].square())
        apart = z[1] - z[0]
        slope = torch.where(apart > 0, (height[1] - height[0]) / apart, 0.0)
        return slope, height[0] - slope * z[0]
