"""ExM: the exact model, a mixture over all K^(HW) latents (Eq. 1 with p(z) as the weights)."""

import torch
from torch import Tensor

from vqdistill.distillation import MAX_EXACT_LATENTS
from vqdistill.distillation.enumeration import enumerate_latents
from vqdistill.distillation.selection import mean_over_classes, n_latents
from vqdistill.errors import InputError


def log_prior_of_all(prior) -> Tensor:
    """log p(z) [K^(HW)] float64 of all latents in lexicographic order.

    Raises InputError where there are too many to be held.
    """
    n = n_latents(prior)
    if n > MAX_EXACT_LATENTS:
        raise InputError(
            f"exm: K = {prior.codebook_size} on the grid {prior.grid} has {n} latents, of which at"
            f" most {MAX_EXACT_LATENTS} can be enumerated; lower the codebook size"
        )
    log_prior = torch.empty(n, dtype=torch.float64)
    filled = 0
    for codes, log_prob_by_class in enumerate_latents(prior):
        log_prior[filled : filled + len(codes)] = mean_over_classes(log_prob_by_class).cpu()
        filled += len(codes)
    return log_prior
