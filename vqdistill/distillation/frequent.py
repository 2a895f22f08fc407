"""Control: the N most frequent latents of the training images.

Where the training images have fewer distinct latents than N, the rest are sampled from the prior
as DMRS does, without replacement, outside of those.
"""

import torch
from torch import Tensor

from vqdistill.distillation import dmrs
from vqdistill.distillation.selection import (
    Selection,
    check_n_components,
    complete,
    log_prob_by_class,
    mean_over_classes,
)
from vqdistill.errors import InputError

PREFIXES_ARE_MODELS = True


def select(
    prior, n_components: int, generator: torch.Generator, training_codes: Tensor
) -> Selection:
    """The N most frequent of training_codes [n, H, W]; then those more probable; then in order.

    Ties in frequency go by log p(z), which counts as evaluations, ties in that by lexicographic
    order. Class -1, but for those sampled from the prior to fill up.
    Raises InputError where N is not in 1 to K^(HW), or where there are no training codes.
    """
    check_n_components(prior, n_components)
    if training_codes is None or not len(training_codes):
        raise InputError(
            "frequent: found no training codes, expected those of the training images; "
            "pass training_codes [n, H, W]"
        )
    before = prior.evaluations
    codes = most_frequent(prior, training_codes.to(prior.device), n_components)
    classes = torch.full((len(codes),), -1, device=codes.device)
    if len(codes) < n_components:
        more, drawn = dmrs.draw(prior, n_components - len(codes), generator, codes)
        codes, classes = torch.cat([codes, more]), torch.cat([classes, drawn])
    return complete(prior, codes, classes, prior.evaluations - before)


def most_frequent(prior, training_codes: Tensor, n: int) -> Tensor:
    """At most n distinct codes [m, H, W] in the order of `select`."""
    distinct, counts = training_codes.flatten(1).unique(dim=0, return_counts=True)  # sorted
    least = counts.sort(descending=True).values[:n][-1]
    candidates = distinct[counts >= least].unflatten(1, prior.grid)
    log_prob = mean_over_classes(log_prob_by_class(prior, candidates))
    by_log_prob = log_prob.argsort(descending=True, stable=True)
    by_count = counts[counts >= least][by_log_prob].argsort(descending=True, stable=True)
    return candidates[by_log_prob[by_count]][:n]
