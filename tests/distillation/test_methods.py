"""What every selection method has to fulfil, whichever files there are."""

import pkgutil

import pytest
import torch

import vqdistill.distillation
from vqdistill.distillation import NO_METHODS, load_method
from vqdistill.distillation.selection import new_rows
from vqdistill.errors import InputError

METHODS = sorted(
    {module.name for module in pkgutil.iter_modules(vqdistill.distillation.__path__)} - NO_METHODS
)


@pytest.mark.parametrize("name", METHODS)
def test_selections_are_distinct_and_weighted(tabular_prior, generator, name):
    method = load_method(name)
    prior = tabular_prior(3, (2, 2), 3)
    training_codes = prior.every_latent()[::3]
    before = prior.evaluations
    chosen = method.select(prior, 40, generator, training_codes)
    assert prior.evaluations - before == chosen.evaluations + chosen.weighting_evaluations
    assert chosen.codes.shape == (40, 2, 2)
    assert chosen.codes.dtype == torch.int64
    assert chosen.classes.dtype == torch.int64
    assert chosen.log_prob_by_class.dtype == torch.float64
    assert len(chosen.codes.flatten(1).unique(dim=0)) == 40
    for c in range(3):
        expected = prior.log_prob(chosen.codes, torch.full((40,), c))
        torch.testing.assert_close(chosen.log_prob_by_class[:, c], expected)
    assert isinstance(method.NESTED, bool)


@pytest.mark.parametrize("name", METHODS)
def test_nested_methods_nest(tabular_prior, name):
    method = load_method(name)
    prior = tabular_prior(3, (2, 2), 3)
    training_codes = prior.every_latent()[::3]
    large, small = (
        method.select(prior, n, torch.Generator().manual_seed(0), training_codes) for n in (40, 12)
    )
    assert torch.equal(large.codes[:12], small.codes) or not method.NESTED


def test_the_papers_methods_are_there():
    assert {"dmrs", "dmbs", "random", "frequent"} <= set(METHODS)


@pytest.mark.parametrize("name", ["selection", "enumeration", "exm", "nothing", "../dmrs", ""])
def test_unknown_methods_are_refused(name):
    with pytest.raises(InputError, match="expected one of dmbs, dmrs"):
        load_method(name)


def test_new_rows_are_the_first_of_each():
    seen: set[bytes] = set()
    codes = torch.tensor([4, 4, 7, 1, 7, 2])[:, None, None]
    assert new_rows(codes, seen, 3).tolist() == [0, 2, 3]
    assert new_rows(codes, seen, 9).tolist() == [5]
    assert new_rows(codes, seen, 9).tolist() == []
