"""Priors that the tests of this folder select from."""

import math

import torch
from helpers import TabularPrior


def of_a_single_latent() -> TabularPrior:
    """All but about 1e-9 of the mass is on the latent of zeros, in every class; 81 latents."""
    prior = TabularPrior(3, (2, 2))
    rest = 1e-9 / math.prod(prior.grid) / 2
    log_probs = torch.tensor([1 - 2 * rest, rest, rest], dtype=torch.float64).log()
    prior.tables = [log_probs.expand_as(table) for table in prior.tables]
    return prior


def n_distinct(codes: torch.Tensor) -> int:
    """How many of codes [n, H, W] differ."""
    return len(codes.flatten(1).unique(dim=0))


def beginnings(codes: torch.Tensor) -> int:
    """How many different z_<i there are among codes, over all positions i."""
    rows = codes.flatten(1)
    return sum(len(rows[:, :i].unique(dim=0)) if i else 1 for i in range(rows.shape[1]))
