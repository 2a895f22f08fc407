"""Quad-trees against the explicit mixture of all their induced trees; tests/trust/ has more."""

import pytest
import torch
from helpers import expanded_tree, explicit, quad_tree_of, seeded, terms
from torch.distributions import Normal

from vqdistill.circuits.quad_tree import QuadTree, quad_tree

TOLERANCE = 1e-9
SHAPES = [(2, 2), (3, 2), (2, 3), (1, 5), (1, 1)]
OF_CLASSES = [(1, 0), (3, 0), (2, 1), (2, 2)]  # classes, and the levels that know them


@pytest.fixture(params=[(s, c) for s in SHAPES for c in OF_CLASSES], ids=str)
def model(request):
    shape, (n_classes, class_levels) = request.param
    levels = min(class_levels, len(quad_tree(*shape)[1]))
    return quad_tree_of(shape, 2, n_classes, levels, 0.05)


def asked(model, n=7):
    """Images, and a mask for each."""
    shape = (n, model.n_variables)
    x = torch.rand(shape, dtype=torch.float64, generator=seeded(3))
    return x, torch.rand(shape, generator=seeded(5)) < 0.5


def close(found, expected, tolerance=TOLERANCE):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_levels_cut_an_image_into_quarters():
    order, levels = quad_tree(3, 2)
    assert order == [0, 4, 1, 5, 2, 3]
    assert [(level.n_regions, level.parents) for level in levels] == [
        (2, [[0, 1], [0, 1], [0], [0]]),
        (1, [[0], [0]]),
    ]
    order, levels = quad_tree(28, 28)
    assert sorted(order) == [*range(784)]
    assert [level.n_regions for level in levels] == [196, 49, 16, 4, 1]


def test_expansion_is_a_distribution(model):
    assert explicit(model)[0].exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_marginals_and_means_equal_those_of_the_explicit_mixture(model):
    x, observed = asked(model)
    close(model.log_prob(x), terms(model, x).logsumexp(1))
    of_trees = terms(model, x, observed)
    seen = observed.any(1)
    close(model.log_prob(x, observed), torch.where(seen, of_trees.logsumexp(1), 0.0))
    mean = torch.where(observed, x, of_trees.softmax(1) @ explicit(model)[1])
    close(model.conditional_mean(x, observed), mean)


def test_classes_are_those_of_the_trees(model):
    x, observed = asked(model)
    classes = expanded_tree(model)[3]
    of_trees = terms(model, x, observed)
    expected = torch.stack([of_trees[:, classes == c].logsumexp(1) for c in range(model.n_classes)])
    close(model.upward(x, observed).joint, expected)
    if model.n_classes > 1:
        close(model.class_log_prob(x, observed), expected.log_softmax(0).T)


def test_deviations_equal_those_of_the_explicit_mixture(model):
    x, observed = asked(model)
    shares, (_, means, stds) = terms(model, x, observed).softmax(1), explicit(model)
    squares = (means - (shares @ means)[:, None]).square() + stds.square()  # [B, N, D]
    expected = torch.where(observed, 0.0, (shares[..., None] * squares).sum(1).sqrt())
    close(model.conditional_std(x, observed), expected)


def test_mode_has_the_largest_joint_of_all_trees(model):
    x, observed = asked(model)
    _, means, stds = explicit(model)
    peaks = Normal(means, stds).log_prob(means)  # [N, D]
    joint = terms(model, x, observed) + torch.where(~observed[:, None], peaks, 0.0).sum(2)
    expected = torch.where(observed, x, means[joint.argmax(1)])
    close(model.conditional_mode(x, observed), expected)


def test_frequencies_of_leaf_units_are_those_of_the_trees(model):
    log_weights, means, _ = explicit(model)
    samples = model.sample(20_000, seeded(1), leaf_means=True)
    close(samples.double().mean(0), log_weights.exp() @ means, 0.01)
    second = log_weights.exp() @ (means[:, :, None] * means[:, None]).flatten(1)
    found = (samples[:, :, None] * samples[:, None]).double().mean(0).flatten()
    close(found, second, 0.01)


def test_conditional_samples_follow_the_posterior_of_the_trees():
    model = quad_tree_of((2, 3), 2, 2, 1, 0.05)
    x, observed = asked(model, 1)
    posterior = terms(model, x, observed).softmax(1)[0]
    many = model.conditional_sample(
        x.expand(20_000, -1), observed.expand(20_000, -1), seeded(2), leaf_means=True
    )
    expected = torch.where(observed[0], x[0], posterior @ explicit(model)[1])
    close(many.mean(0), expected, 0.01)


def test_parameters_are_counted_by_a_walk(model):
    gaussians = 2 * model.n_variables * model.size
    sums = sum(w[..., 0].numel() * (w.shape[-1] - 1) for w in model.sum_weights())
    assert model.n_parameters == gaussians + sums


def test_published_count_of_parameters():
    """2·784 K + 1049 K (K − 1) + K − 1 for images of 28×28."""
    for size in (4, 8):
        expected = 2 * 784 * size + 1049 * size * (size - 1) + size - 1
        assert QuadTree((28, 28), size).n_parameters == expected


def test_narrow_and_far_leaves_stay_exact():
    model = quad_tree_of((2, 3), 2)
    model.leaves.stds.fill_(1e-3)
    x, _ = asked(model)
    found, expected = model.log_prob(x), terms(model, x).logsumexp(1)
    assert (expected < -1e4).all()
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-12)


def test_gradients_for_images_are_those_of_the_explicit_mixture(model):
    x, observed = asked(model, 3)
    gradients = []
    for log_prob in (model.log_prob, lambda x, o: terms(model, x, o).logsumexp(1)):
        leaf = x.clone().requires_grad_()
        log_prob(leaf, observed).sum().backward()
        gradients.append(leaf.grad)
    close(*gradients, 1e-8)


def test_expected_counts_are_the_gradients_of_the_log_likelihood(model):
    x, _ = asked(model, 5)
    counts, step = model.zero_counts(), 1e-6
    close(model.count(x, counts), model.log_prob(x))
    for weights, gradient in zip(model.sum_weights(), counts.weights, strict=True):
        direction = torch.randn(weights.shape, generator=seeded(1), dtype=torch.float64)
        change = []
        for sign in (1, -1):
            weights.add_(sign * step * direction)
            change.append(model.log_prob(x).sum().item())
            weights.sub_(sign * step * direction)
        expected = (change[0] - change[1]) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_float32_counts_agree_with_float64():
    model = quad_tree_of((5, 3), 3, smallest=0.01).float()
    x, _ = asked(model, 64)
    counts, exact = model.zero_counts(), model.double().zero_counts()
    model.count(x, exact)
    model.float()
    model.count(x.float(), counts)
    close(counts.leaves.occupancy, exact.leaves.occupancy, 1e-3)
    for a, b in zip(counts.weights, exact.weights, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-3, rtol=1e-3)


def test_weights_near_zero_give_numbers_in_float32():
    """Each parent of four children that have one unit each left."""
    model = quad_tree_of((4, 4), 3).float()
    for weights in model.sum_weights():
        weights.fill_(1e-9)
        weights[..., 0] = 1
        weights.div_(weights.sum(-1, keepdim=True))
    model.leaves.stds.fill_(1e-3)
    counts = model.zero_counts()
    assert model.count(asked(model)[0].float(), counts).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in (*counts.weights, *counts.leaves))


def test_queries_do_not_depend_on_the_block_size():
    model = quad_tree_of((3, 2), 2)
    x, observed = asked(model)
    whole = model.log_prob(x, observed), model.conditional_mean(x, observed)
    model.block = 3
    close(model.log_prob(x, observed), whole[0])
    close(model.conditional_mean(x, observed), whole[1])
    assert model.sample(8, seeded()).shape == (8, 6)
