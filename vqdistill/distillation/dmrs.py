"""DMRS: latents sampled from the prior, c ~ U(C), z ~ p(z|c), distinct.

"Distinct" is sampling from p(z) without replacement: the first occurrences in a stream of
independent draws. Three ways give that law exactly, in this order of preference:

- few latents: all are enumerated, and the largest of log p(z) + Gumbel noise are taken;
- ancestral sampling in batches that drops what was drawn before;
- where that accepts too little (a peaked prior), stochastic beam search, Kool et al. 2019,
  https://arxiv.org/abs/1903.06059, Algorithm 1, which always ends.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqdistill.distillation.enumeration import ENUMERABLE, codes_of, enumerate_latents, index_of
from vqdistill.distillation.selection import (
    Selection,
    check_n_components,
    complete,
    gumbel,
    mean_over_classes,
    n_latents,
    new_rows,
)

PREFIXES_ARE_MODELS = True

LARGEST_BATCH = 2048  # draws at once; batches double up to it, whatever N, so that samples nest
JUDGED_BATCH = 64  # acceptance is judged from batches of this size
LEAST_ACCEPTANCE = 0.1
GROUP = 1024  # prefixes of the beam that are followed at a time


def select(
    prior, n_components: int, generator: torch.Generator, training_codes: Tensor | None = None
) -> Selection:
    """N distinct latents of p(z) = (1/C) sum_c p(z|c), sampled without replacement, in order.

    The class of a latent is the one that it was drawn under. The first n of N have the law of a
    selection of n; where no beam is needed, equal seeds make them the same latents.
    Raises InputError where N is not in 1 to K^(HW).
    """
    check_n_components(prior, n_components)
    before = prior.evaluations
    nothing = torch.zeros(0, *prior.grid, dtype=torch.int64, device=prior.device)
    codes, classes = draw(prior, n_components, generator, nothing)
    return complete(prior, codes, classes, prior.evaluations - before)


def draw(prior, n: int, generator: torch.Generator, taken: Tensor) -> tuple[Tensor, Tensor]:
    """n latents sampled without replacement from p(z) outside of `taken` [m, H, W].

    Gives codes [n, H, W] in order of selection and the classes [n] that they were drawn under.
    """
    if n_latents(prior) <= ENUMERABLE:
        return draw_enumerated(prior, n, generator, taken)
    return draw_ancestral(prior, n, generator, taken)


def draw_enumerated(
    prior, n: int, generator: torch.Generator, taken: Tensor
) -> tuple[Tensor, Tensor]:
    """`draw` by the Gumbel-top-n of log p(z) over all latents; the class follows p(c|z)."""
    by_class = torch.cat([by_class for _, by_class in enumerate_latents(prior)])  # [K^(HW), C]
    perturbed = mean_over_classes(by_class) + gumbel(by_class.shape[:1], generator, prior.device)
    perturbed[index_of(taken, prior.codebook_size, prior.grid)] = -math.inf
    index = perturbed.topk(n).indices
    noise = gumbel((n, prior.n_classes), generator, prior.device)
    classes = (by_class[index] + noise).argmax(1)
    return codes_of(index, prior.codebook_size, prior.grid), classes


def draw_ancestral(
    prior, n: int, generator: torch.Generator, taken: Tensor
) -> tuple[Tensor, Tensor]:
    """`draw` by ancestral sampling; finished by the beam once acceptance is low."""
    seen: set[bytes] = set()
    new_rows(taken, seen, len(taken))
    codes, classes, missing, batch = [], [], n, 1
    while missing:
        z, c = sample(prior, batch, generator)
        new = new_rows(z, seen, missing)
        codes.append(z[new])
        classes.append(c[new])
        missing -= len(new)
        if missing and batch >= JUDGED_BATCH and len(new) < LEAST_ACCEPTANCE * batch:
            z, c = draw_beam(prior, missing, generator, seen)
            codes.append(z)
            classes.append(c)
            break
        batch = min(2 * batch, LARGEST_BATCH)
    return torch.cat(codes), torch.cat(classes)


def sample(prior, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n independent draws c ~ U(C), z ~ p(z|c): codes [n, H, W], classes [n]."""
    draws = torch.randint(prior.n_classes, (n,), generator=generator, device=generator.device)
    classes = draws.to(prior.device)
    prefixes, rows = prior.begin(classes), torch.arange(n, device=prior.device)
    for _ in range(math.prod(prior.grid)):
        log_probs = prior.next_log_probs(prefixes)
        code = (log_probs + gumbel(log_probs.shape, generator, prior.device)).argmax(1)
        prefixes = prior.extend(prefixes, rows, code)
    return prefixes.codes.unflatten(1, prior.grid), classes


def draw_beam(prior, n: int, generator: torch.Generator, seen: set[bytes]) -> tuple[Tensor, Tensor]:
    """`draw` by stochastic beam search, outside of `seen`, which then holds what was drawn.

    A beam of k samples k pairs (c, z) without replacement; their new z, in order, are samples of
    p(z) without replacement. Pairs beyond the first k are independent of how those fell, so a
    beam that gave too few goes on with fresh noise. A latent makes at most C pairs: a beam of
    C * (len(seen) + n) is always wide enough.
    """
    codes, classes, width = [], [], 2 * (len(seen) + n)
    missing = n
    while missing:
        z, c = stochastic_beam(prior, width, generator)
        new = new_rows(z, seen, missing)
        codes.append(z[new])
        classes.append(c[new])
        missing -= len(new)
        width *= 2
    return torch.cat(codes), torch.cat(classes)


def stochastic_beam(
    prior, width: int, generator: torch.Generator, at_once: int = GROUP
) -> tuple[Tensor, Tensor]:
    """`width` distinct pairs of codes [n, H, W] and classes [n], sampled without replacement.

    The pairs follow p(c, z) = p(z|c) / C; the class is the first token of the search. All pairs
    are given where there are no more than `width`.

    The best child of a prefix is as good as the prefix itself. So at any time the `width`-th best
    of all pairs found and prefixes still open is a bound below which nothing is among the best,
    and prefixes can be followed in any order. They are followed depth first, `at_once` at a time,
    best first, so that the prior's memory of few is held at a time, whatever the width.
    """
    C, device = prior.n_classes, prior.device
    log_prob = torch.full((C,), -math.log(C), dtype=torch.float64, device=device)
    perturbed = log_prob + gumbel((C,), generator, device)
    prefixes = prior.begin(torch.arange(C, device=device))
    waiting = list(children(prior, prefixes, log_prob, perturbed, width, generator, at_once))[::-1]
    found: list[tuple[Tensor, Tensor, Tensor]] = []  # codes, classes, perturbed
    while waiting:
        prefixes, parents, codes, log_prob, perturbed = waiting.pop()
        good = [group.perturbed for group in waiting] + [pairs[2] for pairs in found]
        scores = torch.cat([*good, perturbed])
        bound = scores.topk(width).values[-1] if width <= len(scores) else -math.inf
        keep = perturbed >= bound
        if not keep.any():
            continue
        log_prob, perturbed = log_prob[keep], perturbed[keep]
        longer = prior.extend(prefixes, parents[keep], codes[keep])
        if longer.codes.shape[1] == math.prod(prior.grid):
            found.append((longer.codes, longer.classes, perturbed))
        else:
            groups = children(prior, longer, log_prob, perturbed, width, generator, at_once, bound)
            waiting.extend(list(groups)[::-1])
    codes, classes, perturbed = (torch.cat(part) for part in zip(*found, strict=True))
    order = perturbed.argsort(descending=True)[:width]
    return codes[order].unflatten(1, prior.grid), classes[order]


class Children(NamedTuple):
    """n prefixes, each one code longer than one of `prefixes`."""

    prefixes: Any
    parents: Tensor  # [n]
    codes: Tensor  # [n]
    log_prob: Tensor  # [n], log p(c, z_<=i)
    perturbed: Tensor  # [n], the same with noise


def children(
    prior, prefixes, log_prob: Tensor, perturbed: Tensor, width: int, generator: torch.Generator,
    at_once: int, bound: float | Tensor = -math.inf,
) -> Iterator[Children]:  # fmt: skip
    """Of all children of prefixes those that can be among the `width` best, and are not below
    `bound`: in groups of `at_once`, best first."""
    log_probs = log_prob[:, None] + prior.next_log_probs(prefixes)  # [n, K]
    noise = gumbel(log_probs.shape, generator, prior.device)
    scores = conditioned_on_max(log_probs + noise, perturbed).flatten()
    best, index = scores.topk(min(width, len(scores)))
    for part in index[best >= bound].split(at_once):
        parents, codes = part // prior.codebook_size, part % prior.codebook_size
        yield Children(prefixes, parents, codes, log_probs.flatten()[part], scores[part])


def conditioned_on_max(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Gumbels [n, K] conditioned on their maximum over K being `maximum` [n].

    -log(exp(-maximum) - exp(-max_k perturbed) + exp(-perturbed)), Kool et al. 2019, in the
    numerically stable form of its appendix.
    """
    below = perturbed - perturbed.amax(1, keepdim=True)
    v = maximum[:, None] - perturbed + log1mexp(below)
    return maximum[:, None] - F.relu(v) - torch.log1p(torch.exp(-v.abs()))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))
