"""A prior of explicit tables, whose every probability can be computed by hand."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch


@dataclass(frozen=True)
class TabularPrefixes:
    codes: torch.Tensor
    classes: torch.Tensor


class TabularPrior:
    """tables[i][c, z_<i, k] = log p(z_i = k | z_<i, c), z_<i as a number in base K."""

    device = torch.device("cpu")

    def __init__(self, codebook_size, grid, n_classes, scale, seed):
        self.codebook_size, self.grid, self.n_classes = codebook_size, grid, n_classes
        self.evaluations = 0
        generator = torch.Generator().manual_seed(seed)
        self.tables = [
            torch.randn(
                n_classes, codebook_size**i, codebook_size, generator=generator, dtype=torch.float64
            )
            .mul(scale)
            .log_softmax(-1)
            for i in range(math.prod(grid))
        ]

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


@pytest.fixture
def tabular_prior():
    """tabular_prior(codebook_size, grid, n_classes, scale, seed): `scale` 0 is uniform."""

    def build(codebook_size=3, grid=(1, 2), n_classes=2, scale=1.0, seed=0):
        return TabularPrior(codebook_size, grid, n_classes, scale, seed)

    return build


@pytest.fixture
def single_latent_prior(tabular_prior):
    """All but about 1e-9 of the mass is on the latent of zeros, in every class; 3^16 latents."""
    prior = tabular_prior(3, (2, 2), 2)
    n_positions = math.prod(prior.grid)
    rest = 1e-9 / n_positions / 2
    log_probs = torch.tensor([1 - 2 * rest, rest, rest], dtype=torch.float64).log()
    prior.tables = [log_probs.expand_as(table) for table in prior.tables]
    return prior


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def beginnings():
    """beginnings(codes): how many different z_<i there are among codes, over all positions i."""

    def count(codes):
        rows = codes.flatten(1)
        return sum(len(rows[:, :i].unique(dim=0)) if i else 1 for i in range(rows.shape[1]))

    return count
