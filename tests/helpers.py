"""What test files of several folders share; `from helpers import seeded` works in each of them.

What one folder alone shares stands in a conftest.py or a module beside its tests.
"""

import torch


def seeded(seed: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers are fixed by the seed."""
    return torch.Generator(device).manual_seed(seed)
