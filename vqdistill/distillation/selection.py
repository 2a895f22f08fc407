"""What every selection method gives, and what they share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqdistill.errors import InputError


@dataclass(frozen=True)
class Selection:
    """N distinct latents in order of selection, with their prior probabilities in nats.

    Evaluations count evaluated p(z_i = k | z_<i, c): those that the selection itself cost, and
    apart from them those of the pass that filled `log_prob_by_class`.
    """

    codes: Tensor  # int64 [N, H, W], distinct
    classes: Tensor  # int64 [N]               class under which each was selected, -1 for none
    log_prob_by_class: Tensor  # float64 [N, C]  log p(z|c)
    evaluations: int
    weighting_evaluations: int

    @property
    def log_prob(self) -> Tensor:
        """log p(z) = logsumexp_c log p(z|c) - log C, float64 [N]."""
        return mean_over_classes(self.log_prob_by_class)


def mean_over_classes(log_prob_by_class: Tensor) -> Tensor:
    """log p(z) of p(z) = (1/C) sum_c p(z|c): [N, C] -> [N], nats."""
    return log_prob_by_class.logsumexp(1) - math.log(log_prob_by_class.shape[1])


def log_prob_by_class(prior, codes: Tensor) -> Tensor:
    """log p(z|c) of every class: codes [N, H, W] -> float64 [N, C]. The prior works in chunks."""
    classes = torch.arange(prior.n_classes, device=codes.device)
    return torch.stack([prior.log_prob(codes, c.expand(len(codes))) for c in classes], dim=1)


def complete(prior, codes: Tensor, classes: Tensor, evaluations: int) -> Selection:
    """The selection of codes [N, H, W] and classes [N], with log p(z|c) evaluated by the prior."""
    before = prior.evaluations
    by_class = log_prob_by_class(prior, codes)
    return Selection(codes, classes, by_class, evaluations, prior.evaluations - before)


def n_latents(prior) -> int:
    """K^(HW), the number of latents."""
    return prior.codebook_size ** math.prod(prior.grid)


def check_n_components(prior, n_components: int) -> None:
    """Raises InputError unless 1 <= N <= K^(HW)."""
    if not 1 <= n_components <= n_latents(prior):
        raise InputError(
            f"n_components: found {n_components}, expected 1 to {n_latents(prior)} (K = "
            f"{prior.codebook_size}, grid {prior.grid}: that many latents are distinct); lower it"
        )


def new_rows(codes: Tensor, seen: set[bytes], n: int) -> Tensor:
    """Indices of the first n codes [B, ...] that are not yet in `seen`, which then holds them."""
    new = []
    for i, code in enumerate(codes.flatten(1).cpu().numpy()):
        key = code.tobytes()
        if len(new) < n and key not in seen:
            seen.add(key)
            new.append(i)
    return torch.tensor(new, dtype=torch.int64, device=codes.device)


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, float64.

    The largest k of log p + noise are k draws from p without replacement, in order (Yellott 1977;
    Kool et al. 2019, https://arxiv.org/abs/1903.06059).
    """
    noise = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return noise.exponential_(generator=generator).log_().neg_().to(device)
