"""What every selection method has to fulfil, whichever files there are."""

import pkgutil

import pytest
import torch

import vqdistill.distillation
from vqdistill.distillation import NO_METHODS, base, load_method
from vqdistill.distillation.base import new_rows
from vqdistill.errors import InputError
from vqdistill.models.pixelcnn import PixelCNN, PixelCNNSettings

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
    assert isinstance(method.PREFIXES_ARE_MODELS, bool)


@pytest.mark.parametrize("name", METHODS)
def test_nested_methods_nest(tabular_prior, name):
    method = load_method(name)
    prior = tabular_prior(3, (2, 2), 3)
    training_codes = prior.every_latent()[::3]
    large, small = (
        method.select(prior, n, torch.Generator().manual_seed(0), training_codes) for n in (40, 12)
    )
    assert torch.equal(large.codes[:12], small.codes) or not method.PREFIXES_ARE_MODELS


def test_the_papers_methods_are_there():
    assert {"dmrs", "dmbs", "random", "frequent"} <= set(METHODS)


@pytest.mark.parametrize("name", ["base", "enumeration", "exm", "nothing", "../dmrs", ""])
def test_unknown_methods_are_refused(name):
    with pytest.raises(InputError, match="expected one of dmbs, dmrs"):
        load_method(name)


def test_new_rows_are_the_first_of_each():
    seen: set[bytes] = set()
    codes = torch.tensor([4, 4, 7, 1, 7, 2])[:, None, None]
    assert new_rows(codes, seen, 3).tolist() == [0, 2, 3]
    assert new_rows(codes, seen, 9).tolist() == [5]
    assert new_rows(codes, seen, 9).tolist() == []


@pytest.mark.parametrize("at_once", [1, 4, 256])
@pytest.mark.parametrize("shape", [(3, (2, 2)), (2, (1, 3)), (5, (1, 1))])
def test_probabilities_of_given_codes(tabular_prior, beginnings, monkeypatch, shape, at_once):
    """In any order and with repetitions; each beginning is evaluated once a class, if all codes
    are taken at once."""
    monkeypatch.setattr(base, "CONDITIONALS", 1)
    monkeypatch.setattr(base, "FEWEST_ROWS", at_once)
    prior = tabular_prior(*shape, 4)
    everything = prior.every_latent()
    order = torch.randint(len(everything), (30,), generator=torch.Generator().manual_seed(0))
    codes = everything[order]
    expected = [prior.log_prob(codes, torch.full((30,), c)) for c in range(4)]
    before = prior.evaluations
    found = base.log_prob_by_class(prior, codes)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=0, atol=1e-12)
    if at_once == 256:
        assert prior.evaluations - before == beginnings(codes) * 4 * shape[0]


def test_no_codes_have_no_probabilities(tabular_prior):
    prior = tabular_prior(3, (2, 2), 4)
    assert base.log_prob_by_class(prior, prior.every_latent()[:0]).shape == (0, 4)


@pytest.mark.parametrize(("limit", "largest"), [(40, 16), (1000, 27 * 4)])
def test_as_many_codes_at_once_as_a_prior_may_keep(tabular_prior, monkeypatch, limit, largest):
    """Ten codes of 81 under four classes share four beginnings of three codes; all have 27."""
    monkeypatch.setattr(base, "PREFIXES", limit)
    prior, sizes = tabular_prior(3, (2, 2), 4), []
    extend = prior.extend
    monkeypatch.setattr(prior, "extend", lambda *a: sizes.append(len(a[1])) or extend(*a))
    base.log_prob_by_class(prior, prior.every_latent())
    assert max(sizes) == largest


def test_probabilities_of_given_codes_under_a_network():
    torch.manual_seed(0)
    prior = PixelCNN(6, (4, 4), 3, PixelCNNSettings(8, 3, 8))
    codes = torch.randint(2, (500, 4, 4))
    expected = [prior.log_prob(codes, torch.full((500,), c)) for c in range(3)]
    found = base.log_prob_by_class(prior, codes)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=0, atol=2e-5)
