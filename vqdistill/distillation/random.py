"""Control: N distinct latents drawn uniformly, whatever the prior."""

import torch
from torch import Tensor

from vqdistill.distillation.enumeration import ENUMERABLE, codes_of
from vqdistill.distillation.selection import (
    Selection,
    check_n_components,
    complete,
    n_latents,
    new_rows,
)

PREFIXES_ARE_MODELS = True

BATCH = 1024  # draws at once


def select(
    prior, n_components: int, generator: torch.Generator, training_codes: Tensor | None = None
) -> Selection:
    """N latents drawn uniformly without replacement; no class, no evaluation of the prior.

    Raises InputError where N is not in 1 to K^(HW).
    """
    check_n_components(prior, n_components)
    if n_latents(prior) <= ENUMERABLE:
        order = torch.randperm(n_latents(prior), generator=generator, device=generator.device)
        codes = codes_of(order[:n_components], prior.codebook_size, prior.grid)
    else:
        codes = draw_distinct(prior.codebook_size, prior.grid, n_components, generator)
    codes = codes.to(prior.device)
    classes = torch.full((n_components,), -1, device=prior.device)
    return complete(prior, codes, classes, evaluations=0)


def draw_distinct(
    codebook_size: int, grid: tuple[int, int], n: int, generator: torch.Generator
) -> Tensor:
    """n distinct codes [n, H, W], uniform; batches of fixed size, so that samples nest."""
    seen: set[bytes] = set()
    codes = []
    while len(seen) < n:
        batch = torch.randint(
            codebook_size, (BATCH, *grid), generator=generator, device=generator.device
        )
        codes.append(batch[new_rows(batch, seen, n - len(seen))])
    return torch.cat(codes)
