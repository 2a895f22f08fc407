"""Every guarantee of exact_answers.py holds."""

import math

import pytest
import torch
from exact_answers import GUARANTEES, hold, worst


@pytest.fixture(autouse=True)
def as_in_steps():
    """Numbers too small for full precision are zeros."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("name", GUARANTEES)
def test_guarantee(name):
    hold(name)


def test_what_is_no_number_is_no_small_deviation():
    assert worst(0.0, math.nan, 1.0) == math.inf
