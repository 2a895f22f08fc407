"""Streams of random numbers, one for each purpose, all fixed by one seed."""

import hashlib
from contextlib import nullcontext
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


def fresh_generator() -> "torch.Generator":
    """A torch generator whose seed the system draws: it differs each time."""
    import torch

    generator = torch.Generator()
    generator.seed()
    return generator


def drawn_seed(generator: "torch.Generator") -> int:
    """A seed below 2^31 from a generator; on a GPU without waiting for the work it is doing."""
    import torch

    on_gpu = generator.device.type == "cuda"
    with torch.cuda.stream(torch.cuda.Stream(generator.device)) if on_gpu else nullcontext():
        return int(torch.randint(2**31, (), generator=generator, device=generator.device))
