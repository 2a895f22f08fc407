"""Which components can matter to Σ_n w_n p_n(x), from float32 scores that may be somewhat off.

A term can matter where it comes within `NEGLIGIBLE` nats of the largest. A bound on the rounding
error of a score tells what its term is at least and at most.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqdistill.circuits.evidence import NEGLIGIBLE

RUN = 64  # components whose largest score is looked at first
FLOAT32_ROUNDING = 0.5 * torch.finfo(torch.float32).eps


class Bounds(NamedTuple):
    """Of S weight vectors the least and the most that a term is, from a score s̃ in float32."""

    lowest: Tensor  # [S, n], at least lowest + wide s̃
    highest: Tensor  # [S, n], at most highest + narrow s̃
    wide: float
    narrow: float
    so_far: Tensor  # [S, B], the logarithm of the sum of earlier terms, or a term if that is larger

    def of(self, part: slice) -> "Bounds":
        """The bounds of some of the components."""
        return self._replace(lowest=self.lowest[:, part], highest=self.highest[:, part])


def among_all(scores: Tensor, bounds: Bounds, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images, ascending, and components that can matter, from the scores [B, n] of all."""
    found = []
    for part in segments(ends, scores.shape[1]):
        of_part = bounds.of(part)
        pairs = near_the_top(scores[:, part], of_part)
        images, numbers, largest = near_the_largest(*pairs, of_part)
        found.append((images, part.start + numbers))
        bounds = bounds._replace(so_far=largest)
    if len(found) == 1:
        return found[0]
    images, numbers = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = images.argsort(stable=True)
    return images[order], numbers[order]


def near_the_top(scores: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """Images, components and scores [P] of the pairs that a coarse comparison leaves.

    scores: [B, n]. The weight vectors share one comparison, of the most that a term can be under
    any of them, relative to that vector's largest weight. It is made by runs of components, of
    which most hold none that is near an image, and only for images that have any near.
    """
    lowest, highest, wide, narrow, so_far = bounds
    size = math.gcd(scores.shape[1], RUN)
    scores = scores.unflatten(1, (-1, size))  # [B, runs, size]
    lowest, highest = (bound.unflatten(1, (-1, size)) for bound in (lowest, highest))
    shift = highest.amax((1, 2)).clamp(min=torch.finfo(highest.dtype).min)  # [S]
    high = (highest - shift[:, None, None]).amax(0)
    so_far = so_far - shift[:, None]
    tops = torch.add(high, scores, alpha=narrow).amax(2)  # [B, runs]
    rows = (tops.amax(1) > so_far.amin(0) - NEGLIGIBLE).nonzero().squeeze(1)
    tops = tops.index_select(0, rows)

    best = tops.argmax(1)  # the run whose terms tell how large one is at least
    least = torch.add(lowest.index_select(1, best), scores[rows, best], alpha=wide).amax(2)
    largest = torch.maximum(so_far.index_select(1, rows), least - shift[:, None])  # [S, rows]
    needed = largest.amin(0) - NEGLIGIBLE

    places, runs = where(tops > needed[:, None])
    images = rows.index_select(0, places)
    chosen = scores[images, runs]  # [pairs of an image and a run, size]
    most = torch.add(high.index_select(0, runs), chosen, alpha=narrow)
    pairs, within = where(most > needed.index_select(0, places)[:, None])
    return images[pairs], runs[pairs] * size + within, chosen[pairs, within]


def where(true: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, ascending, and columns [P] of the true entries of a boolean [B, n]."""
    if true.is_cuda:
        return true.nonzero(as_tuple=True)
    positions = torch.from_numpy(np.flatnonzero(true.numpy()))  # where few are true, it takes a
    rows = positions // true.shape[1]  # fraction of PyTorch's time
    return rows, positions - rows * true.shape[1]


def near_the_largest(
    images: Tensor, numbers: Tensor, scores: Tensor, bounds: Bounds
) -> tuple[Tensor, Tensor, Tensor]:
    """Of pairs with their scores [P] those that can matter, and the largest term [S, B] that
    an image has at least."""
    least = torch.add(bounds.lowest[:, numbers], scores, alpha=bounds.wide)
    most = torch.add(bounds.highest[:, numbers], scores, alpha=bounds.narrow)
    largest = bounds.so_far.scatter_reduce(1, images.expand_as(least), least, "amax")
    keep = (most > largest[:, images] - NEGLIGIBLE).any(0)
    return images[keep], numbers[keep], largest


def segments(ends: Sequence[int], n: int) -> Iterator[slice]:
    """The slices that the ends within 0 … n cut it into."""
    start = 0
    for end in (*ends, n):
        if end > start:
            yield slice(start, end)
            start = end


def factor_rounding(device: torch.device) -> float:
    """Roundoff of the factors of a float32 product, where PyTorch is told to use a shorter type."""
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    return {"tf32": 2.0**-11, "bf16": 2.0**-8}.get(backend.matmul.fp32_precision, 0.0)


def rounding_bound(
    peaks: Tensor, positive: Tensor, constants: Tensor, n_terms: int, factors: float
) -> tuple[float, Tensor]:
    """(r, m [M, n]) such that the float32 score s̃ of any image differs from s by ≤ m_n − r s̃.

    peaks, positive, constants: [M, n], over the observed pixels Σ l, Σ max(l, 0) and Σ c, with
    l = −log σ − ½ log 2π and c = l − ½q², q = μ/σ; factors: roundoff of a product's factors, beyond
    that of float32.

    A sum in which no term passes through more than F additions and products is off by at most
    F u Σ|terms|, with the unit roundoff u. With z = (x − μ)/σ, the terms of a pixel are
    −½(z + q)², (z + q) q and c. Their sizes add up to at most 3/2 z² + 5/2 q² + |c|, where
    Σ z² = 2(Σ l − s) and |c| ≤ |l| + ½q². With q² = 2(l − c) and |l| = 2 max(l, 0) − l that is at
    most 5 Σ max(l, 0) + 5 Σ l − 6 Σ c − 3s, for 3 Σ l ≤ 3 Σ max(l, 0).
    """
    # 8 for the factors, of which an exponential is off by 2 u, and for the sum
    unit = (n_terms + 8) * FLOAT32_ROUNDING
    unit += 2 * factors + factors**2
    unit /= 1 - 3 * unit  # for s̃ in place of s in Σ z²
    return 3 * unit, unit * (5 * positive + 5 * peaks - 6 * constants)
