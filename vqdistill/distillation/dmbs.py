"""DMBS: latents found by class-conditioned stochastic beam search.

Generating High-Quality and Informative Conversation Responses with Sequence-to-Sequence Models,
Shao et al. 2017, https://arxiv.org/abs/1701.03185: each hypothesis samples its children rather
than trying all, which keeps the beam diverse. O(NHWK) evaluations of the prior.
"""

import math

import torch
from torch import Tensor

from vqdistill.distillation.selection import (
    Selection,
    check_n_components,
    complete,
    gumbel,
    n_latents,
)

PREFIXES_ARE_MODELS = False


def select(
    prior, n_components: int, generator: torch.Generator, training_codes: Tensor | None = None
) -> Selection:
    """N distinct latents: a beam of width ceil(N / C) for each class, merged by rank.

    Where classes share so many latents that fewer than N are distinct, all beams are searched
    again with twice the width. A beam of width N gives N latents by itself, so that at most
    4 N C H W K conditionals are evaluated, and (N + C) H W K where the first width is enough.
    Raises InputError where N is not in 1 to K^(HW).
    """
    check_n_components(prior, n_components)
    before = prior.evaluations
    order = torch.randperm(prior.n_classes, generator=generator, device=generator.device).tolist()
    width = math.ceil(n_components / prior.n_classes)
    while True:
        found = [search(prior, c, width, generator)[0] for c in order]
        codes, classes = merge(found, order, n_components)
        if len(codes) == n_components:
            return complete(prior, codes, classes, prior.evaluations - before)
        width = min(2 * width, n_latents(prior))


def search(prior, class_: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Beam of one class: codes [B, H, W] and scores log p(z|c) [B] in nats, the best first.

    Each of n hypotheses samples M = min(K, max(2, ceil(2B / n))) distinct children from
    p(z_i | z_<i, c); the best B of all children by log p(z_<=i | c) stay.
    """
    prefixes = prior.begin(torch.tensor([class_], device=prior.device))
    scores = torch.zeros(1, dtype=torch.float64, device=prior.device)
    for _ in range(math.prod(prior.grid)):
        n_children = min(prior.codebook_size, max(2, math.ceil(2 * width / len(scores))))
        log_probs = prior.next_log_probs(prefixes)  # [n, K]
        noise = gumbel(log_probs.shape, generator, prior.device)
        children = (log_probs + noise).topk(n_children).indices  # [n, M]
        totals = (scores[:, None] + log_probs.gather(1, children)).flatten()
        scores, best = totals.topk(min(width, len(totals)))
        prefixes = prior.extend(prefixes, best // n_children, children.flatten()[best])
    return prefixes.codes.unflatten(1, prior.grid), scores


def merge(found: list[Tensor], classes: list[int], n: int) -> tuple[Tensor, Tensor]:
    """Round-robin by rank: in turn each class gives the best of its latents that is not yet taken.

    found: codes [B, H, W] of each class, the best first -> at most n distinct codes [m, H, W] and
    their classes [m].
    """
    taken: set[bytes] = set()
    rows = [list(enumerate(codes.flatten(1).cpu().numpy())) for codes in found]
    queues = [iter(ranked) for ranked in rows]
    chosen: list[tuple[int, int]] = []  # (turn of the class, rank)
    round_start = -1
    while round_start < len(chosen) < n:
        round_start = len(chosen)
        for turn, queue in enumerate(queues):
            rank = next((i for i, code in queue if code.tobytes() not in taken), None)
            if rank is not None and len(chosen) < n:
                taken.add(rows[turn][rank][1].tobytes())
                chosen.append((turn, rank))
    turns, ranks = torch.tensor(chosen, device=found[0].device).unbind(1)
    return torch.stack(found)[turns, ranks], torch.tensor(classes, device=turns.device)[turns]
