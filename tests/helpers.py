"""What tests of several folders share: `from helpers import seeded`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vqdistill.errors import InputError

ROOT = Path(__file__).parents[1]  # of the repository


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    """A random generator that begins at `seed`."""
    return torch.Generator(device=device).manual_seed(seed)


def refusal(call: Callable, *arguments: Any, **named: Any) -> str:
    """The message of the InputError that a call ends in; it has to be one line."""
    with pytest.raises(InputError) as error:
        call(*arguments, **named)
    message = str(error.value)
    assert "\n" not in message
    return message
