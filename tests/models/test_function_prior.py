"""A prior of one function does what one of tables does."""

import pytest
import torch
from helpers import TabularPrior, seeded

from vqdistill.distillation import load_method, method_names
from vqdistill.distillation.selection import log_prob_by_class
from vqdistill.models.function_prior import FunctionPrior


def of_tables(tables: TabularPrior) -> FunctionPrior:
    def next_codes(codes, classes):
        index = torch.zeros_like(classes)
        for code in codes.unbind(1):
            index = index * tables.codebook_size + code
        return tables.tables[codes.shape[1]][classes, index] + 3.0  # not normalised

    return FunctionPrior(next_codes, tables.codebook_size, tables.grid, tables.n_classes)


def test_its_probabilities_are_those_of_the_function():
    tables = TabularPrior(3, (2, 2), 2)
    found = log_prob_by_class(of_tables(tables), tables.every_latent())
    expected = [tables.log_prob(tables.every_latent(), torch.full((81,), c)) for c in range(2)]
    torch.testing.assert_close(found, torch.stack(expected, 1))


@pytest.mark.parametrize("name", method_names())
def test_every_method_selects_from_it_as_from_another(name):
    tables = TabularPrior(3, (2, 2), 2)
    prior, training_codes = of_tables(tables), tables.every_latent()[::5]
    one, other = (
        load_method(name).select(one, 20, seeded(), training_codes) for one in (prior, tables)
    )
    assert torch.equal(one.codes, other.codes)
    assert one.evaluations == other.evaluations
