"""Streams of random numbers, one for each purpose, all fixed by one seed."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose, such as 'noise' or 'selection dmbs 64', of a run's seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A torch generator on `device` for one purpose of a run's seed."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose))
