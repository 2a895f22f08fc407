"""The codebook of a VQ-VAE: nearest vectors, how they are trained, and how many are in use.

The codebook is trained by gradient, or by moving averages of the encodings that it stands for (van
den Oord et al. 2017, https://arxiv.org/abs/1711.00937, appendix A.1). Codes that fall out of use
can be moved onto recent encodings.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.errors import InputError
from vqdistill.settings import VQVAE as VQVAESettings

DISTANCES_AT_ONCE = 2**24  # of the nearest-neighbour search
LLOYD_STEPS = 10


class Codebook(nn.Module):
    """K vectors of width C, drawn from U(-1/K, 1/K); settings are those of the VQ-VAE.

    `vectors` [K, C] is a parameter, or with moving averages a buffer.
    """

    def __init__(self, settings: VQVAESettings):
        super().__init__()
        self.settings = settings
        K, C = settings.codebook_size, settings.channels[-1]
        vectors = torch.empty(K, C).uniform_(-1 / K, 1 / K)
        if settings.ema_decay == 0:
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("ema_counts", torch.ones(K))
            self.register_buffer("ema_sums", vectors.clone())
        if settings.revive_dead_codes:
            self.register_buffer("usage", torch.zeros(K))  # of this epoch
            self.register_buffer("recent", torch.zeros(K, C))  # encodings, newest first

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors [..., C] of codes int64 [...]."""
        return F.embedding(codes, self.vectors)

    def nearest(self, encodings: Tensor) -> Tensor:
        """Codes int64 [n] of the vectors that are nearest to encodings [n, C]."""
        return nearest(encodings, self.vectors)

    @torch.no_grad()
    def track(self, encodings: Tensor, codes: Tensor) -> None:
        """Take in the encodings [n, C] of a training batch and their codes [n]."""
        counts = count(codes, len(self.vectors), encodings.dtype)
        if self.settings.revive_dead_codes:
            self.usage += counts
            self.recent.copy_(torch.cat([encodings, self.recent])[: len(self.recent)])
        if self.settings.ema_decay > 0:
            sums = torch.zeros_like(self.ema_sums).index_add_(0, codes, encodings)
            self.ema_counts.lerp_(counts, 1 - self.settings.ema_decay)
            self.ema_sums.lerp_(sums, 1 - self.settings.ema_decay)
            alive = self.ema_counts > 1e-6  # the averages of unused codes fade to 0/0
            averages = self.ema_sums / self.ema_counts.clamp_min(1e-6)[:, None]
            self.vectors.copy_(torch.where(alive[:, None], averages, self.vectors))

    @torch.no_grad()
    def revive(self, generator: torch.Generator) -> None:
        """Move the codes that the epoch did not use onto recent encodings, chosen at random."""
        n_recent = min(int(self.usage.sum()), len(self.recent))
        order = torch.randperm(n_recent, generator=generator, device=generator.device)
        dead = (self.usage == 0).nonzero().squeeze(1)[:n_recent]
        self.move(dead, self.recent[order[: len(dead)].to(dead.device)])
        self.usage.zero_()

    @torch.no_grad()
    def move(self, codes: Tensor | slice, vectors: Tensor) -> None:
        """Put codes on vectors [n, C], and their moving averages with them."""
        self.vectors[codes] = vectors
        if self.settings.ema_decay > 0:
            self.ema_counts[codes] = 1.0
            self.ema_sums[codes] = vectors


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """argmin_k ‖v - e_k‖² (the first of equals) of vectors [n, C] and a codebook [K, C]: [n]."""
    norms = codebook.square().sum(1)
    rows = max(1, DISTANCES_AT_ONCE // len(codebook))
    parts = [
        torch.addmm(norms, part, codebook.T, alpha=-2).min(1).indices  # ‖v - e‖² - ‖v‖²
        for part in vectors.split(rows)
    ]
    return torch.cat(parts)


def count(codes: Tensor, codebook_size: int, dtype: torch.dtype) -> Tensor:
    """How often each code occurs among codes [n]: [K]."""
    counts = torch.zeros(codebook_size, dtype=dtype, device=codes.device)
    return counts.index_add_(0, codes, torch.ones_like(codes, dtype=dtype))


def perplexity(codes: Tensor, codebook_size: int, dtype: torch.dtype) -> Tensor:
    """exp of the entropy of codes [n]: K where all are used alike, 1 where it is always one."""
    shares = count(codes, codebook_size, dtype) / len(codes)
    return torch.special.entr(shares).sum().exp()


@torch.no_grad()
def kmeans(vectors: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Cluster centres [K, C] of vectors [n, C]: Lloyd's steps from randomly chosen vectors.

    Clusters that lose all their vectors stay where they are. Raises InputError if n < K.
    """
    if len(vectors) < n_clusters:
        raise InputError(
            f"initialisation: k-means of {n_clusters} codes needs as many encodings, the "
            f"training_part has {len(vectors)}; raise it, lower codebook_size or choose 'uniform'"
        )
    order = torch.randperm(len(vectors), generator=generator, device=generator.device)
    centres = vectors[order[:n_clusters].to(vectors.device)]
    for _ in range(LLOYD_STEPS):
        members = nearest(vectors, centres)
        sizes = count(members, n_clusters, vectors.dtype)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, members, vectors)
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


def codebook_usage(codes: Tensor, codebook_size: int) -> dict[str, float]:
    """Of codes [n, H, W]: the share of the codebook that is in use, and the perplexity."""
    used = count(codes.flatten(), codebook_size, torch.float64) > 0
    return {
        "codebook_usage": used.double().mean().item(),
        "perplexity": perplexity(codes.flatten(), codebook_size, torch.float64).item(),
    }
