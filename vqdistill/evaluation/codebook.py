"""How much of a codebook is used."""

import torch
from torch import Tensor


def codebook_usage(codes: Tensor, codebook_size: int) -> dict[str, float]:
    """Of codes [n, H, W]: the fraction of the codebook in use, and the perplexity exp(entropy)."""
    frequency = code_frequency(codes, codebook_size)
    used = frequency[frequency > 0]
    return {
        "codebook_usage": len(used) / codebook_size,
        "perplexity": torch.exp(-(used * used.log()).sum()).item(),
    }


def code_frequency(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code is used [K], in descending order, as a share of all."""
    counts = torch.bincount(codes.flatten(), minlength=codebook_size).double()
    return (counts / counts.sum()).sort(descending=True).values
