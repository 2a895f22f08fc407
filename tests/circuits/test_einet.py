import itertools

import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.errors import InputError

TOLERANCE = 1e-9


def small_einet(shape=(2, 2), step=1, size=2, seed=0):
    torch.manual_seed(seed)
    graph = poon_domingos(shape, step)
    model = EiNet(graph, size)
    model.leaves.means.uniform_(0, 1)
    model.leaves.stds.uniform_(0.05, 0.4)
    model.double()
    for layer in model.layers:  # normalised in float32 so far
        layer.weights.div_(layer.weights.sum((2, 3), keepdim=True))
        layer.mixing.div_(layer.mixing.sum(1, keepdim=True))
    return graph, model


class Expansion:
    """An EiNet as the explicit mixture of all its induced trees: weights [N], leaves' units."""

    def __init__(self, graph, model):
        self.graph, self.model = graph, model
        trees = self.trees(graph.n_regions - 1, 0)
        self.log_weights = torch.stack([weight for weight, _ in trees]).log()  # [N]
        self.units = torch.tensor([[units[leaf] for leaf in sorted(units)] for _, units in trees])
        leaves = torch.arange(len(graph.pixels))
        pixels = graph.pixels.flatten()
        self.means = torch.empty(len(trees), len(pixels), dtype=torch.float64)
        self.stds = torch.empty_like(self.means)
        self.means[:, pixels] = model.leaves.means[leaves, self.units].flatten(1)
        self.stds[:, pixels] = model.leaves.stds[leaves, self.units].flatten(1)

    def trees(self, region, unit):
        """(weight, {leaf: unit}) of each tree under one unit of a region."""
        if region < len(self.graph.pixels):
            return [(torch.ones((), dtype=torch.float64), {region: unit})]
        layer = max(n for n, layer in enumerate(self.graph.layers) if layer.start <= region)
        index = region - self.graph.layers[layer].start
        depth = self.graph.layers[layer].left.shape[1]
        parameters, found = self.model.layers[layer], []
        for branch in range(depth):
            left = self.graph.layers[layer].left[index, branch].item()
            right = self.graph.layers[layer].right[index, branch].item()
            mixing = parameters.mixing[index, branch, unit]
            for i, j in itertools.product(range(self.model.size), repeat=2):
                weight = mixing * parameters.weights[index * depth + branch, unit, i, j]
                for a, b in itertools.product(self.trees(left, i), self.trees(right, j)):
                    found.append((weight * a[0] * b[0], a[1] | b[1]))
        return found

    def terms(self, x, observed):
        """log w_n p_n(x_o) [B, N]."""
        density = Normal(self.means, self.stds).log_prob(x[:, None])  # [B, N, D]
        mask = torch.atleast_2d(observed)[:, None]
        return self.log_weights + torch.where(mask, density, 0.0).sum(2)


@pytest.fixture(scope="module")
def pair():
    graph, model = small_einet()
    return model, Expansion(graph, model)


@pytest.fixture(scope="module")
def images():
    return torch.rand(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


MASKS = [
    torch.tensor([True, True, True, True]),
    torch.tensor([True, False, False, True]),
    torch.tensor([False, True, False, False]),
    torch.rand(7, 4, generator=torch.Generator().manual_seed(5)) < 0.5,
]


def test_expansion_is_a_distribution(pair):
    _, mixture = pair
    assert mixture.log_weights.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("observed", MASKS)
def test_log_prob_equals_the_explicit_mixture(pair, images, observed):
    model, mixture = pair
    expected = mixture.terms(images, observed).logsumexp(1)
    found = model.log_prob(images, observed)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    if observed.all():
        torch.testing.assert_close(model.log_prob(images), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("shape", "step", "size"), [((2, 4), 2, 3), ((1, 4), 1, 2), ((3, 2), 1, 1), ((4, 4), 2, 2)]
)
def test_other_shapes_equal_the_explicit_mixture(shape, step, size):
    graph, model = small_einet(shape, step, size, seed=1)
    mixture = Expansion(graph, model)
    x = torch.rand(5, model.n_variables, dtype=torch.float64)
    observed = torch.rand(5, model.n_variables) < 0.6
    expected = mixture.terms(x, observed).logsumexp(1)
    torch.testing.assert_close(model.log_prob(x, observed), expected, atol=TOLERANCE, rtol=0)
    weights = mixture.terms(x, observed).softmax(1)
    mean = torch.where(observed, x, weights @ mixture.means)
    torch.testing.assert_close(model.conditional_mean(x, observed), mean, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("observed", MASKS)
def test_conditional_mean_equals_the_explicit_mixture(pair, images, observed):
    model, mixture = pair
    expected = mixture.terms(images, observed).softmax(1) @ mixture.means
    expected = torch.where(observed, images, expected)
    found = model.conditional_mean(images, observed)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("observed", MASKS[1:])
def test_mode_has_the_largest_joint_of_all_trees(pair, images, observed):
    model, mixture = pair
    peaks = Normal(mixture.means, mixture.stds).log_prob(mixture.means)  # [N, D]
    hidden = ~torch.atleast_2d(observed)[:, None]
    joint = mixture.terms(images, observed) + torch.where(hidden, peaks, 0.0).sum(2)
    best = joint.argmax(1)
    expected = torch.where(observed, images, mixture.means[best])
    found = model.conditional_mode(images, observed)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    evidence = model.upward(
        torch.where(observed, images, torch.nan), observed, maximise=True
    )  # hidden pixels are not looked at
    torch.testing.assert_close(evidence.log_prob, joint.amax(1), atol=TOLERANCE, rtol=0)


def test_nothing_observed_is_certain(pair, images):
    model, _ = pair
    nothing = torch.zeros(4, dtype=torch.bool)
    assert (model.log_prob(images, nothing) == 0).all()
    some = torch.zeros(7, 4, dtype=torch.bool)
    some[2, 1] = True
    assert ((model.log_prob(images, some) == 0) == ~some.any(1)).all()


def test_hidden_values_do_not_matter(pair, images):
    model, _ = pair
    observed = torch.tensor([True, False, True, False])
    other = torch.where(observed, images, torch.nan)
    assert torch.equal(model.log_prob(images, observed), model.log_prob(other, observed))
    means = model.conditional_mean(other, observed)
    assert torch.equal(means, model.conditional_mean(images, observed))


def test_density_integrates_to_one():
    _, model = small_einet((1, 2), 1, 3, seed=2)
    line = torch.linspace(-2, 3, 701, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    density = model.log_prob(grid).exp().view(701, 701)
    assert torch.trapezoid(torch.trapezoid(density, line), line).item() == pytest.approx(
        1, abs=1e-6
    )


def test_float32_parameters_are_evaluated_in_float64(images):
    graph, model = small_einet(seed=4)
    model = model.float()
    mixture = Expansion(graph, model.double())
    expected = mixture.terms(images, MASKS[0]).logsumexp(1) - mixture.log_weights.logsumexp(0)
    found = model.float().log_prob(images)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_narrow_and_far_leaves_stay_exact():
    _, model = small_einet((4, 4), 2, 3, seed=6)
    model.leaves.stds.fill_(1e-3)
    x = torch.rand(4, 16, dtype=torch.float64)
    found = model.log_prob(x)  # of the order of −10⁶ nats
    assert found.isfinite().all()
    assert (found < -1e5).all()
    leaf = Normal(model.leaves.means, model.leaves.stds).log_prob(
        x[:, model.leaves.pixels][:, :, None]
    )
    best = leaf.sum(3).amax(2).sum(1)  # an upper bound, and one tree reaches it
    smallest = sum(layer.weights.log().min() + layer.mixing.log().min() for layer in model.layers)
    assert (found <= best + TOLERANCE).all()
    assert (found >= best + 4 * smallest).all()


def test_queries_do_not_depend_on_the_block_size(pair, images):
    model, _ = pair
    observed = MASKS[3]
    whole = model.log_prob(images, observed), model.conditional_mean(images, observed)
    block, model.block = model.block, 3
    try:
        torch.testing.assert_close(model.log_prob(images, observed), whole[0])
        torch.testing.assert_close(model.conditional_mean(images, observed), whole[1])
        assert model.sample(8, torch.Generator().manual_seed(0)).shape == (8, 4)
    finally:
        model.block = block


def test_partitions_are_cut_without_changing_anything(monkeypatch, images):
    _, model = small_einet((4, 4), 1, 3)
    x = torch.rand(5, 16, dtype=torch.float64)
    whole = model.log_prob(x), model.downward(model.upward(x))
    monkeypatch.setattr("vqdistill.circuits.einet.CPU_PRODUCTS", 3 * 9 * 5)
    torch.testing.assert_close(model.log_prob(x), whole[0], atol=TOLERANCE, rtol=0)
    found = model.downward(model.upward(x))
    torch.testing.assert_close(found, whole[1], atol=TOLERANCE, rtol=0)


def mixture_cdf(values, weights, means, stds):
    return (weights * Normal(means, stds).cdf(torch.as_tensor(values)[:, None])).sum(1).numpy()


def test_samples_follow_the_marginals(pair):
    model, mixture = pair
    samples = model.sample(4000, torch.Generator().manual_seed(0))
    weights = mixture.log_weights.exp()
    for pixel in range(4):
        result = stats.kstest(
            samples[:, pixel].numpy(),
            lambda v, d=pixel: mixture_cdf(v, weights, mixture.means[:, d], mixture.stds[:, d]),
        )
        assert result.pvalue > 1e-3
    mean = weights @ mixture.means
    covariance = torch.diag(weights @ mixture.stds.square())
    covariance += (mixture.means - mean).T @ (weights[:, None] * (mixture.means - mean))
    torch.testing.assert_close(samples.T.cov(), covariance, atol=0.015, rtol=0)


def test_frequencies_of_leaf_units_are_those_of_the_trees(pair):
    model, mixture = pair
    samples = model.sample(20_000, torch.Generator().manual_seed(1), leaf_means=True)
    choices = (samples[:, None] == mixture.means).all(2)  # trees of alike leaves are alike
    found = choices.double().mean(0)
    alike = (mixture.means[:, None] == mixture.means).all(2).double()
    torch.testing.assert_close(found, alike @ mixture.log_weights.exp(), atol=0.02, rtol=0)


def test_conditional_samples_follow_the_exact_conditional(pair, images):
    model, mixture = pair
    observed = torch.tensor([True, False, False, True])
    x = images[:1].expand(4000, 4)
    samples = model.conditional_sample(x, observed, torch.Generator().manual_seed(2))
    assert torch.equal(samples[:, observed], x[:, observed])
    weights = mixture.terms(images[:1], observed).softmax(1)[0]
    for pixel in (1, 2):
        result = stats.kstest(
            samples[:, pixel].numpy(),
            lambda v, d=pixel: mixture_cdf(v, weights, mixture.means[:, d], mixture.stds[:, d]),
        )
        assert result.pvalue > 1e-3
    means = mixture.means[:, 1:3]
    covariance = weights @ means.prod(1) - (weights @ means).prod()
    assert samples[:, 1:3].T.cov()[0, 1].item() == pytest.approx(covariance.item(), abs=0.01)


def test_conditional_sample_with_a_mask_for_each_image(pair, images):
    model, mixture = pair
    observed = MASKS[3]
    found = model.conditional_sample(images, observed, torch.Generator().manual_seed(3), True)
    assert torch.equal(found[observed], images[observed])
    units = mixture.means.T  # [D, N]: hidden pixels are means of leaves
    assert all(found[b, d] in units[d] for b, d in (~observed).nonzero().tolist())


def test_the_generator_decides_the_samples(pair):
    model, _ = pair
    draws = [model.sample(5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("shape", "step", "size"), [((2, 2), 1, 2), ((4, 6), 2, 3), ((1, 2), 1, 4)]
)
def test_n_parameters_equals_a_walk_over_the_graph(shape, step, size):
    graph, model = small_einet(shape, step, size)
    expected = 2 * size * shape[0] * shape[1]
    for region in range(len(graph.pixels), graph.n_regions):
        top, bottom, left, right = graph.rectangles[region]
        partitions = (bottom - top - 1) + (right - left - 1)
        sums = 1 if region == graph.n_regions - 1 else size
        expected += sums * partitions * (size**2 - 1) + sums * (partitions - 1)
    assert model.n_parameters == expected


def test_state_dict_holds_all_parameters(images):
    _, model = small_einet(seed=0)
    _, other = small_einet(seed=1)
    assert not torch.equal(model.log_prob(images), other.log_prob(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.log_prob(images), other.log_prob(images))


def test_bad_images_and_masks_are_refused(pair, images):
    model, _ = pair
    with pytest.raises(InputError, match="images of shape"):
        model.log_prob(images[:, :3])
    with pytest.raises(InputError, match="mask"):
        model.conditional_mean(images, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("observed", MASKS)
def test_the_gradient_is_that_of_the_explicit_mixture(pair, images, observed):
    model, mixture = pair
    x = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model.log_prob(x, observed).sum(), x)
    (expected,) = torch.autograd.grad(mixture.terms(x, observed).logsumexp(1).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
