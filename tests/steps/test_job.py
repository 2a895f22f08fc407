"""What a step tells PyTorch of the processor, each time in a process of its own."""

import subprocess
import sys

import pytest
import torch

PRODUCTS = """
import torch
from vqdistill.steps.job import compute_device

compute_device({threads})
tiny = torch.full((2**20,), 1e-20)
print((tiny * tiny).count_nonzero().item(), torch.get_num_threads())
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_products_below_the_smallest_normal_number_are_zero(threads):
    """On all threads: a processor may take tens of times as long for such a number."""
    supported = torch.set_flush_denormal(True)
    torch.set_flush_denormal(False)
    if not supported:
        pytest.skip("this processor has no such mode")
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS.format(threads=threads)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", str(threads)]
