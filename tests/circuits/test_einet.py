"""EiNets against the explicit mixture of all their induced trees; tests/trust/ has more."""

import pytest
import torch
from helpers import einet_of, explicit, seeded, terms
from torch.distributions import Normal

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def model():
    return einet_of((2, 2), 2, smallest=0.05)


@pytest.fixture(scope="module")
def images():
    return torch.rand(7, 4, dtype=torch.float64, generator=seeded(3))


MASKS = [
    torch.tensor([True, True, True, True]),
    torch.tensor([True, False, False, True]),
    torch.tensor([False, True, False, False]),
    torch.rand(7, 4, generator=seeded(5)) < 0.5,
]


def test_expansion_is_a_distribution(model):
    assert explicit(model)[0].exp().sum().item() == pytest.approx(1, abs=1e-12)


def check_queries(model, x, observed):
    """Marginal and conditional mean."""
    of_trees = terms(model, x, observed)
    found = model.log_prob(x, observed)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, of_trees.logsumexp(1), atol=TOLERANCE, rtol=0)
    mean = torch.where(observed, x, of_trees.softmax(1) @ explicit(model)[1])
    torch.testing.assert_close(model.conditional_mean(x, observed), mean, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("observed", MASKS)
def test_queries_equal_those_of_the_explicit_mixture(model, images, observed):
    check_queries(model, images, observed)


@pytest.mark.parametrize(
    ("shape", "step", "size"), [((2, 4), 2, 3), ((1, 4), 1, 2), ((3, 2), 1, 1), ((4, 4), 2, 2)]
)
def test_other_shapes_equal_the_explicit_mixture(shape, step, size):
    model = einet_of(shape, size, step, 0.05, seed=1)
    x = torch.rand(5, model.n_variables, dtype=torch.float64)
    check_queries(model, x, torch.rand(5, model.n_variables) < 0.6)


@pytest.mark.parametrize("observed", MASKS[1:])
def test_mode_has_the_largest_joint_of_all_trees(model, images, observed):
    _, means, stds = explicit(model)
    peaks = Normal(means, stds).log_prob(means)  # [N, D]
    hidden = ~torch.atleast_2d(observed)[:, None]
    joint = terms(model, images, observed) + torch.where(hidden, peaks, 0.0).sum(2)
    expected = torch.where(observed, images, means[joint.argmax(1)])
    found = model.conditional_mode(images, observed)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    evidence = model.upward(
        torch.where(observed, images, torch.nan), observed, maximise=True
    )  # hidden pixels are not looked at
    torch.testing.assert_close(evidence.log_prob, joint.amax(1), atol=TOLERANCE, rtol=0)


def test_one_image_may_be_hidden_and_others_seen(model, images):
    some = torch.zeros(7, 4, dtype=torch.bool)
    some[2, 1] = True
    assert ((model.log_prob(images, some) == 0) == ~some.any(1)).all()


def test_float32_parameters_are_evaluated_in_float64(images):
    model = einet_of((2, 2), 2, smallest=0.05, seed=4).float()
    log_weights = explicit(model.double())[0]
    expected = terms(model, images).logsumexp(1) - log_weights.logsumexp(0)
    found = model.float().log_prob(images)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_narrow_and_far_leaves_stay_exact():
    model = einet_of((4, 4), 3, 2)
    model.leaves.stds.fill_(1e-3)
    x = torch.rand(4, 16, dtype=torch.float64)
    found, expected = model.log_prob(x), terms(model, x).logsumexp(1)
    assert (expected < -1e5).all()
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-13)


def test_queries_do_not_depend_on_the_block_size(model, images):
    observed = MASKS[3]
    whole = model.log_prob(images, observed), model.conditional_mean(images, observed)
    block, model.block = model.block, 3
    try:
        torch.testing.assert_close(model.log_prob(images, observed), whole[0])
        torch.testing.assert_close(model.conditional_mean(images, observed), whole[1])
        assert model.sample(8, seeded()).shape == (8, 4)
    finally:
        model.block = block


def test_partitions_are_cut_without_changing_anything(monkeypatch):
    model = einet_of((4, 4), 3)
    x = torch.rand(5, 16, dtype=torch.float64)
    whole = model.log_prob(x), model.downward(model.upward(x))
    monkeypatch.setattr("vqdistill.circuits.einet.CPU_PRODUCTS", 3 * 9 * 5)
    torch.testing.assert_close(model.log_prob(x), whole[0], atol=TOLERANCE, rtol=0)
    found = model.downward(model.upward(x))
    torch.testing.assert_close(found, whole[1], atol=TOLERANCE, rtol=0)


def test_frequencies_of_leaf_units_are_those_of_the_trees(model):
    log_weights, means, _ = explicit(model)
    samples = model.sample(20_000, seeded(1), leaf_means=True)
    choices = (samples[:, None] == means.float()).all(2)  # trees of alike leaves are alike
    found = choices.double().mean(0)
    alike = (means[:, None] == means).all(2).double()
    torch.testing.assert_close(found, alike @ log_weights.exp(), atol=0.02, rtol=0)


def test_conditional_sample_with_a_mask_for_each_image(model, images):
    observed = MASKS[3]
    found = model.conditional_sample(images, observed, seeded(3), True)
    assert torch.equal(found[observed], images[observed])
    units = explicit(model)[1].T  # [D, N]: hidden pixels are means of leaves
    assert all(found[b, d] in units[d] for b, d in (~observed).nonzero().tolist())


def test_the_generator_decides_the_samples(model):
    draws = [model.sample(5, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("observed", MASKS)
def test_the_gradient_is_that_of_the_explicit_mixture(model, images, observed):
    x = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model.log_prob(x, observed).sum(), x)
    (expected,) = torch.autograd.grad(terms(model, x, observed).logsumexp(1).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
