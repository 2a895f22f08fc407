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


FAILING = """
import numpy, torch
from vqdistill.steps.job import run

def step(job):
    {statement}

run(step)
"""


@pytest.mark.parametrize(
    "statement", ["torch.empty(2**50)", "numpy.empty(2**50)", "raise MemoryError"]
)
def test_a_lack_of_memory_is_told_in_one_line(statement):
    done = subprocess.run(
        [sys.executable, "-c", FAILING.format(statement=statement)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("step: out of memory (")
    assert len(done.stderr.splitlines()) == 1


def test_other_errors_are_not_hidden():
    statement = "raise RuntimeError('an illegal memory access')"
    done = subprocess.run(
        [sys.executable, "-c", FAILING.format(statement=statement)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" in done.stderr
