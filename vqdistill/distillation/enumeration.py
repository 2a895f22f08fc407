"""All K^(HW) latents of a grid with log p(z|c), streamed through the tree of prefixes."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vqdistill import progress

ENUMERABLE = 2**20  # latents up to which selections hold all of them
PREFIXES_AT_ONCE = 2**11  # that are extended at once, counted once a class


def enumerate_latents(prior, at_once: int = PREFIXES_AT_ONCE) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (codes int64 [n, H, W], log p(z|c) float64 [n, C], nats) in lexicographic order.

    Codes count up in row-major order, the last position fastest. The conditionals of each prefix
    and class are evaluated once, C * (1 + K + ... + K^(HW-1)) prefixes in all. Depth first, with
    `at_once` prefixes at a time: memory grows with these and the depth HW, not with K^(HW).
    """
    classes = torch.arange(prior.n_classes, device=prior.device)
    totals = torch.zeros(1, prior.n_classes, dtype=torch.float64, device=prior.device)
    width = max(1, at_once // prior.n_classes)
    with progress.loop("latent", prior.codebook_size ** math.prod(prior.grid)) as latents:
        for codes, log_prob_by_class in expand(prior, prior.begin(classes), totals, width):
            yield codes, log_prob_by_class
            latents.advance(len(codes))


def expand(prior, prefixes, totals: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All latents below n prefixes of length i, each under all classes, `width` children a time.

    prefixes: n * C rows, the classes of one beginning side by side; totals: log p(z_<i|c) [n, C].
    """
    K, C, (H, W) = prior.codebook_size, prior.n_classes, prior.grid
    log_probs = prior.next_log_probs(prefixes).unflatten(0, (-1, C))  # [n, C, K]
    totals = (totals[:, :, None] + log_probs).transpose(1, 2).flatten(0, 1)  # [n * K, C]
    children = torch.arange(len(totals), device=totals.device)
    if prefixes.codes.shape[1] == H * W - 1:
        beginnings = prefixes.codes[::C].repeat_interleave(K, dim=0)
        codes = torch.cat([beginnings, children[:, None] % K], dim=1)
        yield codes.unflatten(1, (H, W)), totals
        return
    by_class = torch.arange(C, device=totals.device)
    for part in children.split(width):
        parents = (part[:, None] // K * C + by_class).flatten()
        longer = prior.extend(prefixes, parents, (part % K).repeat_interleave(C))
        yield from expand(prior, longer, totals[part], width)


def codes_of(index: Tensor, codebook_size: int, grid: tuple[int, int]) -> Tensor:
    """Codes [n, H, W] at places `index` [n] of the lexicographic order."""
    digits = index[:, None] // place_values(codebook_size, grid, index.device) % codebook_size
    return digits.unflatten(1, grid)


def index_of(codes: Tensor, codebook_size: int, grid: tuple[int, int]) -> Tensor:
    """Places [n] of codes [n, H, W] in the lexicographic order; K^(HW) must be below 2^63."""
    return (codes.flatten(1) * place_values(codebook_size, grid, codes.device)).sum(1)


def place_values(codebook_size: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """K^(HW-1), ..., K, 1."""
    places = range(grid[0] * grid[1] - 1, -1, -1)
    return torch.tensor([codebook_size**p for p in places], device=device)
