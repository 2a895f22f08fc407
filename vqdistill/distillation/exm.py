"""ExM: the exact model, a mixture over all K^(HW) latents (Eq. 1 with p(z) as the weights)."""

import torch
from torch import Tensor

from vqdistill.distillation import MAX_EXACT_LATENTS
from vqdistill.distillation.enumeration import enumerate_latents
from vqdistill.distillation.selection import mean_over_classes, n_latents
from vqdistill.errors import InputError

MAX_BY_CLASS = 2**24  # numbers log p(z|c) that are kept: an eighth of a gigabyte


def log_probs_of_all(prior) -> tuple[Tensor, Tensor | None]:
    """log p(z) [K^(HW)] and log p(z|c) [K^(HW), C] of all latents in lexicographic order, float64.

    Of more than MAX_BY_CLASS numbers log p(z|c) there are none. Raises InputError where there are
    too many latents to be held.
    """
    n = n_latents(prior)
    if n > MAX_EXACT_LATENTS:
        raise InputError(
            f"exm: K = {prior.codebook_size} on the grid {prior.grid} has {n} latents, of which at"
            f" most {MAX_EXACT_LATENTS} can be enumerated; lower the codebook size"
        )
    log_prior = torch.empty(n, dtype=torch.float64)
    kept = n * prior.n_classes <= MAX_BY_CLASS
    by_class = torch.empty(n, prior.n_classes, dtype=torch.float64) if kept else None
    filled = 0
    for codes, log_prob_by_class in enumerate_latents(prior):
        rows = slice(filled, filled + len(codes))
        log_prior[rows] = mean_over_classes(log_prob_by_class).cpu()
        if kept:
            by_class[rows] = log_prob_by_class.cpu()
        filled += len(codes)
    return log_prior, by_class
