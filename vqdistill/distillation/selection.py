"""What every selection method gives, and what they share."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqdistill.errors import InputError

PREFIXES_AT_ONCE = {"cpu": 2**12, "cuda": 2**15}  # at once, for what the prior keeps of each


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


@torch.no_grad()
def log_prob_by_class(prior, codes: Tensor, at_once: int | None = None) -> Tensor:
    """log p(z|c) of every class: codes [N, H, W] -> float64 [N, C], nats.

    The codes are sorted and taken `at_once` at a time; in each part, the conditionals of a
    beginning z_<i are evaluated once, however many codes share it.
    """
    rows, places = codes.flatten(1).unique(dim=0, return_inverse=True)  # in lexicographic order
    at_once = at_once or PREFIXES_AT_ONCE[codes.device.type] // prior.n_classes
    return torch.cat([_of_sorted(prior, part) for part in rows.split(at_once)])[places]


def _of_sorted(prior, rows: Tensor) -> Tensor:
    """log p(z|c) [n, C] of distinct rows of codes [n, H * W] that stand in lexicographic order."""
    classes = torch.arange(prior.n_classes, device=rows.device)
    if not len(rows):
        return torch.zeros(0, len(classes), dtype=torch.float64, device=rows.device)
    prefixes = prior.begin(classes)  # the classes of one beginning side by side
    beginning = torch.zeros_like(rows[:, 0])  # of each row, its number
    total = torch.zeros(*rows[:, 0].shape, len(classes), dtype=torch.float64, device=rows.device)
    for i, codes in enumerate(rows.T):
        log_probs = prior.next_log_probs(prefixes).unflatten(0, (-1, len(classes)))
        total += log_probs[beginning, :, codes]
        if i + 1 < rows.shape[1]:
            new = (rows[1:, : i + 1] != rows[:-1, : i + 1]).any(1)
            first = torch.cat([new.new_ones(1), new])  # of the rows with the same codes up to i
            parents = (beginning[first, None] * len(classes) + classes).flatten()
            prefixes = prior.extend(prefixes, parents, codes[first].repeat_interleave(len(classes)))
            beginning = first.cumsum(0) - 1
    return total


def complete(prior, codes: Tensor, classes: Tensor, evaluations: int) -> Selection:
    """The selection of codes [N, H, W] and classes [N], with log p(z|c) evaluated by the prior."""
    before = prior.evaluations
    by_class = log_prob_by_class(prior, codes)
    return Selection(codes, classes, by_class, evaluations, prior.evaluations - before)


def check_selection(selection: Any, prior, n: int, where: str = "") -> None:
    """InputError unless what a method's `select` gave is a selection of n distinct codes."""
    if not isinstance(selection, Selection):
        raise InputError(
            f"{where}select: found {type(selection).__name__}, expected a Selection; end it with"
            " `return complete(prior, codes, classes, evaluations)`"
        )
    expected = {
        "codes": (torch.int64, (n, *prior.grid)),
        "classes": (torch.int64, (n,)),
        "log_prob_by_class": (torch.float64, (n, prior.n_classes)),
    }
    for name, (dtype, shape) in expected.items():
        found = getattr(selection, name)
        if found.dtype != dtype or found.shape != shape:
            raise InputError(
                f"{where}select: found {name} of shape {tuple(found.shape)} and type {found.dtype},"
                f" expected {shape} and {dtype}"
            )
    for name, first, end in (("codes", 0, prior.codebook_size), ("classes", -1, prior.n_classes)):
        found = getattr(selection, name)
        if found.min() < first or found.max() >= end:
            raise InputError(
                f"{where}select: found {name} from {found.min()} to {found.max()}, expected"
                f" {first} to {end - 1}"
            )
    distinct = len(selection.codes.flatten(1).unique(dim=0))
    if distinct < n:
        raise InputError(f"{where}select: found {distinct} distinct codes, expected {n}")


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
