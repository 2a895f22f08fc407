"""What tests of several folders share: `from helpers import seeded`."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


class TabularPrefixes(NamedTuple):
    """The codes so far [B, i] and the classes [B] of prefixes."""

    codes: torch.Tensor
    classes: torch.Tensor


class TabularPrior:
    """A prior of explicit tables, whose every probability can be computed by hand.

    tables[i][c, z_<i, k] = log p(z_i = k | z_<i, c), with z_<i as a number in base K; the larger
    `scale`, the more peaked, and 0 is uniform.
    """

    device = torch.device("cpu")

    def __init__(self, codebook_size=3, grid=(1, 2), n_classes=2, scale=1.0, seed=0):
        self.codebook_size, self.grid, self.n_classes = codebook_size, grid, n_classes
        self.evaluations, g = 0, seeded(seed)
        shapes = [(n_classes, codebook_size**i, codebook_size) for i in range(math.prod(grid))]
        noise = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
        self.tables = [(scale * one).log_softmax(-1) for one in noise]

    def begin(self, classes):
        return TabularPrefixes(classes.new_zeros(len(classes), 0), classes)

    def next_log_probs(self, prefixes):
        self.evaluations += len(prefixes.codes) * self.codebook_size
        index = torch.zeros_like(prefixes.classes)
        for code in prefixes.codes.unbind(1):
            index = index * self.codebook_size + code
        return self.tables[prefixes.codes.shape[1]][prefixes.classes, index]

    def extend(self, prefixes, parents, codes):
        longer = torch.cat([prefixes.codes[parents], codes[:, None]], dim=1)
        return TabularPrefixes(longer, prefixes.classes[parents])

    def log_prob(self, codes, classes):
        prefixes, total = self.begin(classes), torch.zeros(len(codes), dtype=torch.float64)
        rows = torch.arange(len(codes))
        for code in codes.flatten(1).unbind(1):
            total = total + self.next_log_probs(prefixes)[rows, code]
            prefixes = self.extend(prefixes, rows, code)
        return total

    def every_latent(self):
        """All codes [K^(HW), H, W] in lexicographic order."""
        places = [range(self.codebook_size)] * math.prod(self.grid)
        return torch.tensor(list(itertools.product(*places))).unflatten(1, self.grid)

    def joint(self):
        """p(z, c) of every latent, [K^(HW), C], by the product of the tables' entries."""
        joint = []
        for z in self.every_latent().flatten(1).tolist():
            row = []
            for c in range(self.n_classes):
                p, index = 1.0 / self.n_classes, 0
                for table, code in zip(self.tables, z, strict=True):
                    p *= math.exp(table[c, index, code])
                    index = index * self.codebook_size + code
                row.append(p)
            joint.append(row)
        return torch.tensor(joint, dtype=torch.float64)
