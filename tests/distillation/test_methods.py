"""What every selection method has to fulfil, whichever files there are."""

import pytest
import torch
from helpers import TabularPrior, refusal, seeded, small_prior
from priors import beginnings, n_distinct

from vqdistill.distillation import load_method, method_names
from vqdistill.distillation.selection import log_prob_by_class, new_rows

METHODS = pytest.mark.parametrize("method", [load_method(name) for name in method_names()])


@METHODS
def test_selections_are_distinct_and_weighted(method):
    prior = TabularPrior(3, (2, 2), 3)
    training_codes = prior.every_latent()[::3]
    chosen = method.select(prior, 40, seeded(), training_codes)
    assert prior.evaluations == chosen.evaluations + chosen.weighting_evaluations
    assert chosen.codes.shape == (40, 2, 2)
    assert chosen.codes.dtype == chosen.classes.dtype == torch.int64
    assert chosen.log_prob_by_class.dtype == torch.float64
    assert n_distinct(chosen.codes) == 40
    for c in range(3):
        expected = prior.log_prob(chosen.codes, torch.full((40,), c))
        torch.testing.assert_close(chosen.log_prob_by_class[:, c], expected)


@METHODS
def test_prefixes_are_models_where_a_method_says_so(method):
    prior = TabularPrior(3, (2, 2), 3)
    training_codes = prior.every_latent()[::3]
    large, small = (method.select(prior, n, seeded(), training_codes).codes for n in (40, 12))
    assert isinstance(method.PREFIXES_ARE_MODELS, bool)
    assert torch.equal(large[:12], small) or not method.PREFIXES_ARE_MODELS


@METHODS
@pytest.mark.parametrize("n", [0, 10])
def test_impossible_sizes_are_refused(method, n):
    prior = TabularPrior(3, (1, 2))
    assert "n_components" in refusal(method.select, prior, n, seeded(), prior.every_latent())


@METHODS
def test_equal_seeds_give_equal_selections(method):
    prior = TabularPrior(4, (2, 2), 3)
    training_codes = prior.every_latent()[:3]  # the rest of `frequent` is drawn
    one, two = (method.select(prior, 20, seeded(9), training_codes) for _ in range(2))
    assert torch.equal(one.codes, two.codes)
    assert torch.equal(one.classes, two.classes)
    assert one.evaluations == two.evaluations


@pytest.mark.parametrize("name", ["dmrs", "dmbs", "random", "frequent"])
def test_methods_that_draw_follow_their_generator(name):
    prior = TabularPrior(4, (2, 2), 3)
    training_codes = prior.every_latent()[:3]
    method = load_method(name)
    one, other = (method.select(prior, 20, seeded(s), training_codes) for s in (9, 10))
    assert not torch.equal(one.codes, other.codes)


def test_the_papers_methods_are_there():
    assert {"dmrs", "dmbs", "random", "frequent"} <= set(method_names())


@pytest.mark.parametrize("name", ["selection", "enumeration", "exm", "nothing", "../dmrs", ""])
def test_unknown_methods_are_refused(name):
    assert "expected one of dmbs, dmrs" in refusal(load_method, name)


def test_new_rows_are_the_first_of_each():
    seen: set[bytes] = set()
    codes = torch.tensor([4, 4, 7, 1, 7, 2])[:, None, None]
    assert new_rows(codes, seen, 3).tolist() == [0, 2, 3]
    assert new_rows(codes, seen, 9).tolist() == [5]
    assert new_rows(codes, seen, 9).tolist() == []


@pytest.mark.parametrize("at_once", [1, 4, 256])
@pytest.mark.parametrize("shape", [(3, (2, 2)), (2, (1, 3)), (5, (1, 1))])
def test_probabilities_of_given_codes(shape, at_once):
    """In any order and with repetitions; each beginning is evaluated once a class, if all codes
    are taken at once."""
    prior = TabularPrior(*shape, 4)
    everything = prior.every_latent()
    codes = everything[torch.randint(len(everything), (30,), generator=seeded())]
    expected = [prior.log_prob(codes, torch.full((30,), c)) for c in range(4)]
    before = prior.evaluations
    found = log_prob_by_class(prior, codes, at_once)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=0, atol=1e-12)
    if at_once == 256:
        assert prior.evaluations - before == beginnings(codes) * 4 * shape[0]


def test_no_codes_have_no_probabilities():
    prior = TabularPrior(3, (2, 2), 4)
    assert log_prob_by_class(prior, prior.every_latent()[:0]).shape == (0, 4)


def test_probabilities_of_given_codes_under_a_network():
    prior = small_prior((4, 4), 6, 3, head=8)
    codes = torch.randint(2, (500, 4, 4), generator=seeded())
    expected = [prior.log_prob(codes, torch.full((500,), c)) for c in range(3)]
    found = log_prob_by_class(prior, codes)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=0, atol=2e-5)
