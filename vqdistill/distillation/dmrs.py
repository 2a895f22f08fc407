"""DMRS: latents sampled from the prior, c ~ U(C), z ~ p(z|c), distinct.

"Distinct" is sampling from p(z) without replacement: the first occurrences in a stream of
independent draws. Three ways give that law exactly, in this order of preference:

- few latents: all are enumerated, and the largest of log p(z) + Gumbel noise are taken;
- ancestral sampling in batches that drops what was drawn before;
- where that accepts too little (a peaked prior), stochastic beam search, Kool et al. 2019,
  https://arxiv.org/abs/1903.06059, Algorithm 1, which always ends.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vqdistill.distillation.enumeration import codes_of, enumerate_latents, index_of
from vqdistill.distillation.selection import (
    Selection,
    check_n_components,
    complete,
    gumbel,
    mean_over_classes,
    n_latents,
    new_rows,
)

LABEL = "DMRS"
NESTED = True

ENUMERABLE = 2**20  # latents up to which the prior is enumerated
LARGEST_BATCH = 2048  # draws at once; batches double up to it, whatever N, so that samples nest
JUDGED_BATCH = 64  # acceptance is judged from batches of this size
LEAST_ACCEPTANCE = 0.1
GROUP = 2**22  # children of the beam's prefixes that are held at once


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


def stochastic_beam(prior, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`width` distinct pairs of codes [n, H, W] and classes [n], sampled without replacement.

    The pairs follow p(c, z) = p(z|c) / C; the class is the first token of the search. All pairs
    are given where there are no more than `width`.
    """
    C, device = prior.n_classes, prior.device
    log_prob = torch.full((C,), -math.log(C), dtype=torch.float64, device=device)
    perturbed, classes = (log_prob + gumbel((C,), generator, device)).topk(min(width, C))
    groups = [(prior.begin(classes), log_prob[classes], perturbed)]
    for _ in range(math.prod(prior.grid)):
        children = [candidates(prior, *group, width, generator) for group in groups]
        perturbed = torch.cat([child[0] for child in children])
        keep = torch.zeros(len(perturbed), dtype=torch.bool, device=device)
        keep[perturbed.topk(min(width, len(perturbed))).indices] = True
        kept = keep.split([len(child[0]) for child in children])
        groups = [  # what the prior keeps of a group is freed once its children have theirs
            longer
            for child, keep in zip(children, kept, strict=True)
            for longer in extend(prior, groups.pop(0)[0], *(part[keep] for part in child))
        ]
    codes = torch.cat([prefixes.codes for prefixes, _, _ in groups])
    classes = torch.cat([prefixes.classes for prefixes, _, _ in groups])
    order = torch.cat([perturbed for _, _, perturbed in groups]).argsort(descending=True)
    return codes[order].unflatten(1, prior.grid), classes[order]


def candidates(
    prior,
    prefixes,
    log_prob: Tensor,
    perturbed: Tensor,
    width: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best children of n prefixes: perturbed and plain log p(c, z_<=i), parents, codes [m]."""
    K = prior.codebook_size
    log_probs = log_prob[:, None] + prior.next_log_probs(prefixes)  # [n, K]
    noise = gumbel(log_probs.shape, generator, prior.device)
    scores = conditioned_on_max(log_probs + noise, perturbed).flatten()
    best, index = scores.topk(min(width, len(scores)))
    return best, log_probs.flatten()[index], index // K, index % K


def extend(prior, prefixes, perturbed: Tensor, log_prob: Tensor, parents: Tensor, codes: Tensor):
    """Groups of (prefixes, log p, perturbed log p) whose children fit into memory."""
    group = max(1, GROUP // prior.codebook_size)
    for part in torch.arange(len(codes), device=codes.device).split(group):
        if len(part):
            longer = prior.extend(prefixes, parents[part], codes[part])
            yield longer, log_prob[part], perturbed[part]


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
