"""Mixtures against torch.distributions, scikit-learn, quadrature and explicit formulas."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chisquare, kstest
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vqdistill.circuits import gaussian
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.gaussian import Chunk, Evidence
from vqdistill.circuits.mixture import (
    DecodedComponents,
    Mixture,
    StoredComponents,
    StreamedMixture,
    uniform_log_weights,
)
from vqdistill.errors import InputError

SMALLEST_P_VALUE = 1e-3
N, D, B = 24, 18, 13


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def weights_of(kind, n, seed=0):
    """Uniform, random, or peaked log-weights: the last spans 60 nats."""
    noise = torch.randn(n, generator=seeded(seed), dtype=torch.float64)
    scale = {"uniform": 0.0, "random": 1.0, "peaked": 15.0}[kind]
    return torch.log_softmax(scale * noise, 0)


def random_mixture(n=N, d=D, kind="random", smallest=-2.5, seed=0):
    g = seeded(seed)
    means = torch.rand(n, d, generator=g)
    log_stds = smallest * torch.rand(n, d, generator=g)
    return Mixture(weights_of(kind, n, seed), means, log_stds)


def images(b=B, d=D, seed=1):
    return torch.rand(b, d, generator=seeded(seed))


def mask_of(kind, b=B, d=D, seed=2):
    if kind == "none":
        return None
    shape = (d,) if kind == "shared" else (b, d)
    return torch.rand(shape, generator=seeded(seed)) < 0.5


def leaves(mixture, x):
    """log N(x_bd; μ_nd, σ_nd) by torch.distributions in float64, [B, n, D]."""
    means, log_stds = mixture.components.parameters(slice(0, mixture.n_components))
    return Normal(means.double(), log_stds.double().exp()).log_prob(x.double()[:, None])


def terms_of(mixture, x, observed):
    """log w_n p_n(x_o) [B, n], leaf by leaf."""
    values = leaves(mixture, x)
    if observed is not None:
        values = values * observed.expand(x.shape)[:, None]
    return values.sum(-1) + mixture.log_weights


def direct(mixture, x, observed=None):
    return terms_of(mixture, x, observed).logsumexp(1)


MASKS = pytest.mark.parametrize("masks", ["none", "shared", "each"])
HIDING = pytest.mark.parametrize("masks", ["shared", "each"])
WEIGHTS = pytest.mark.parametrize("kind", ["uniform", "random", "peaked"])


@pytest.fixture(params=["whole", "chunked"])
def chunking(request, monkeypatch):
    """The chunks as they are, and so small that every loop runs several times."""
    if request.param == "chunked":
        monkeypatch.setattr(gaussian, "IMAGES", 5)
        monkeypatch.setattr(gaussian, "COMPONENTS", 7)
        monkeypatch.setattr(gaussian, "PAIRS", 3)


@pytest.fixture(params=["float64", "pruned", "pruned, then float64"])
def way(request, monkeypatch):
    """All ways to a log-likelihood: the product in float64, and pruning by one in float32 with the
    pairs that matter from differences or, where they are many, from the product in float64."""
    monkeypatch.setattr(gaussian, "FEW", 10**9 if request.param == "float64" else 0)
    monkeypatch.setattr(gaussian, "DENSE", 1.0 if request.param == "pruned" else -1.0)


# log_prob


@WEIGHTS
@MASKS
def test_log_prob_equals_torch_distributions(chunking, way, kind, masks):
    mixture, x, observed = random_mixture(kind=kind), images(), mask_of(masks)
    rows = range(B) if masks == "each" else [slice(None)]
    expected = []
    for row in rows:
        mask = slice(None) if observed is None else observed if masks == "shared" else observed[row]
        normal = Normal(mixture.means[:, mask].double(), mixture.log_stds[:, mask].double().exp())
        reference = MixtureSameFamily(
            Categorical(logits=mixture.log_weights), Independent(normal, 1)
        )
        expected.append(reference.log_prob(torch.atleast_2d(x[row])[:, mask].double()))
    found = mixture.log_prob(x, observed)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-11, atol=1e-9)


@WEIGHTS
def test_log_prob_equals_scikit_learn(chunking, kind):
    mixture, x = random_mixture(kind=kind), images()
    reference = GaussianMixture(N, covariance_type="diag")
    reference.weights_ = mixture.log_weights.exp().numpy()
    reference.means_ = mixture.means.double().numpy()
    reference.covariances_ = (2 * mixture.log_stds.double()).exp().numpy()
    reference.precisions_cholesky_ = (-mixture.log_stds.double()).exp().numpy()
    expected = torch.from_numpy(reference.score_samples(x.double().numpy()))
    torch.testing.assert_close(mixture.log_prob(x), expected, rtol=1e-11, atol=1e-9)


def mnist_like(n, seed):
    """Black pictures with strokes whose pixels are near 1, [n, 784], with one level's noise."""
    g = seeded(seed)
    strokes = torch.rand(n, 784, generator=g) < 0.2
    grey = torch.where(strokes, 250 + 6 * torch.rand(n, 784, generator=g), 0.0)
    return ((grey.floor().clamp(max=255) + torch.rand(n, 784, generator=g)) / 256).clamp(max=1.0)


def near_copies(x, per_image, seed):
    """Components at σ = 1e-3 that lie around the images, so that many of them compete closely."""
    g = seeded(seed)
    offsets = 1.5e-3 * torch.randn(per_image, *x.shape, generator=g)
    means = (x + offsets).flatten(0, 1).clamp(0, 1)
    return means, torch.full_like(means, math.log(1e-3))


@MASKS
@pytest.mark.parametrize("kind", ["uniform", "peaked"])
def test_exact_where_deviations_are_at_their_floor(chunking, way, masks, kind):
    x = mnist_like(6, 3)
    means, log_stds = near_copies(x, 10, 4)
    mixture = Mixture(weights_of(kind, len(means)), means, log_stds)
    observed = mask_of(masks, len(x), 784)
    bits = (mixture.log_prob(x, observed) - direct(mixture, x, observed)) / (784 * math.log(2))
    assert bits.abs().max() < 1e-6


def evidence_of(x, observed=None):
    if observed is None:
        observed = torch.ones(x.shape[1], dtype=torch.bool)
    return Evidence(x, observed if observed.ndim == 2 else observed[None], observed.ndim == 2)


def test_exact_where_float32_alone_is_wrong(way):
    """All pixels near 1: a float32 product is wrong by nats, here even about the best component."""
    x = 0.99 + 0.009 * torch.rand(5, 784, generator=seeded(1))
    means = (x[:1] + 1e-4 * torch.randn(400, 784, generator=seeded(2))).clamp(0, 1)
    mixture = Mixture(uniform_log_weights(400), means, torch.full_like(means, math.log(1e-3)))
    chunk = Chunk(0, mixture.means, mixture.log_stds, evidence_of(x), at_mode=False)
    exact, rows = leaves(mixture, x).sum(-1), slice(0, 5)
    assert (chunk.of_all(rows, torch.float32)[0] - exact).abs().max() > 1.0
    pairs = torch.ones(exact.shape).nonzero(as_tuple=True)
    for values in (chunk.of_all(rows, torch.float64)[0], chunk.of_pairs(rows, 0, *pairs)):
        torch.testing.assert_close(values.view_as(exact), exact, rtol=0, atol=1e-4)
    difference = mixture.log_prob(x) - direct(mixture, x)
    assert difference.abs().max() < 1e-6 * 784 * math.log(2)


@MASKS
@pytest.mark.parametrize("at_mode", [False, True])
def test_float32_products_are_within_their_bound(masks, at_mode):
    """Where they are off by nats: all pixels of an image are equal, and so are all leaves of a
    component, so that errors add up."""
    x = (0.99 + 0.009 * torch.rand(5, 1, generator=seeded(1))).expand(5, 784)
    means = (x[0, 0] + 1e-4 * torch.randn(400, 1, generator=seeded(2))).expand(400, 784)
    log_stds = (math.log(1e-3) * torch.rand(400, 1, generator=seeded(3))).expand(400, 784)
    mixture = Mixture(uniform_log_weights(400), means, log_stds)
    observed = mask_of(masks, 5, 784)
    chunk = Chunk(0, means, log_stds, evidence_of(x, observed), at_mode)
    exact = leaves(mixture, x)
    if observed is not None:
        hidden = gaussian.log_mode(log_stds.double()) if at_mode else torch.zeros(())
        exact = torch.where(observed.expand(5, 784)[:, None], exact, hidden)
    exact, product = exact.sum(-1), chunk.product(torch.float32)
    rough = chunk.of_all(slice(0, 5), torch.float32)[0].double()
    share = (exact - rough).abs() / (product.margins - product.rounding * rough)
    assert 1e-4 < share.max() < 1


@pytest.mark.parametrize("n_weights", [1, 2, 3])
@pytest.mark.parametrize("spread", [10.0, 1e3])
@pytest.mark.parametrize("so_far", [gaussian.LOWEST, -100.0, 0.0])
def test_what_can_matter_is_found_and_nothing_else(n_weights, spread, so_far):
    """By the definition, pair by pair; some weights are zero."""
    g, n = seeded(), 97
    values = -spread * torch.rand(11, n, generator=g).square()
    log_weights = -30 * torch.rand(n_weights, n, generator=g, dtype=torch.float64)
    log_weights[:, 1::7] = -math.inf
    log_weights[-1, 2::5] = -math.inf
    margins, r = 3 * torch.rand(n, generator=g, dtype=torch.float64), 0.001
    product = gaussian.Product([], torch.zeros(1, n), r, margins)
    totals = torch.full((n_weights, 11), so_far, dtype=torch.float64)
    totals[:, ::3] = gaussian.LOWEST
    expected = torch.zeros(11, n, dtype=torch.bool)
    for weights, total in zip(log_weights, totals, strict=True):
        least = (1 + r) * values - margins + weights
        most = (1 - r) * values + margins + weights
        needed = torch.maximum(least.amax(1), total) - gaussian.NEGLIGIBLE
        expected |= most > needed[:, None]
    assert torch.equal(gaussian.can_matter(values, product, log_weights, totals), expected)
    assert 0 < expected.sum() < 0.9 * expected.numel()


def test_components_without_weight_do_not_matter():
    nothing = torch.full((2, 7), -math.inf, dtype=torch.float64)
    product = gaussian.Product([], torch.zeros(1, 7), 0.0, torch.zeros(7))
    totals = torch.full((2, 3), gaussian.LOWEST, dtype=torch.float64)
    assert not gaussian.can_matter(torch.zeros(3, 7), product, nothing, totals).any()


@MASKS
def test_the_gradient_is_that_of_an_explicit_sum(chunking, way, masks):
    mixture, x, observed = random_mixture(), images().double(), mask_of(masks)
    gradients = []
    for ask in (mixture.log_prob, lambda x, observed: direct(mixture, x, observed)):
        asked = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(ask(asked, observed).sum(), asked)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("masks", ["none", "shared"])
@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_exact_where_products_round_their_factors(monkeypatch, kind, masks):
    """As GPUs do when they are told to."""

    def shorter(matrix):
        step = {"tf32": 2**13, "bf16": 2**16}[kind]  # of the bits of a float32
        bits = matrix.contiguous().view(torch.int32)
        return ((bits + step // 2) // step * step).view(torch.float32)

    def rounded(one, other, product=torch.Tensor.__matmul__):
        return product(*(shorter(m) if m.dtype == torch.float32 else m for m in (one, other)))

    x = mnist_like(20, 3)
    means, log_stds = near_copies(x, 40, 4)
    mixture = Mixture(uniform_log_weights(len(means)), means, log_stds)
    observed = mask_of(masks, len(x), 784)
    monkeypatch.setattr(gaussian, "COMPONENTS", 100)
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = kind
    try:
        found = mixture.log_prob(x, observed)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    assert (found - direct(mixture, x, observed)).abs().max() < 1e-6 * 784 * math.log(2)


def test_images_of_a_shorter_type():
    """As pictures.npz holds them: what is asked is the density of these very numbers."""
    x = mnist_like(6, 3).half()
    means, log_stds = near_copies(x.float(), 10, 4)
    mixture = Mixture(uniform_log_weights(len(means)), means, log_stds)
    difference = mixture.log_prob(x) - direct(mixture, x)
    assert difference.abs().max() < 1e-6 * 784 * math.log(2)


@pytest.mark.parametrize(
    ("name", "value"), [("means", math.nan), ("means", math.inf), ("log_stds", -40)]
)
def test_components_that_are_no_numbers_are_refused(name, value):
    mixture = random_mixture()
    getattr(mixture, name)[3, 5] = value
    with pytest.raises(InputError, match="no finite numbers"):
        mixture.log_prob(images())


@pytest.mark.parametrize("name", ["means", "log_stds"])
@pytest.mark.parametrize("query", ["log_prob", "conditional_mean", "conditional_mode"])
def test_hidden_pixels_that_are_no_numbers_are_refused(name, query):
    mixture, observed = random_mixture(), torch.arange(D) != 5
    getattr(mixture, name)[3, 5] = math.nan
    with pytest.raises(InputError, match="no finite numbers"):
        getattr(mixture, query)(images(), observed)


@MASKS
@pytest.mark.parametrize("log_std", [-12, -20, -30])
def test_exact_where_deviations_are_far_below_their_floor(way, masks, log_std):
    """There, even a float64 expansion of the square is off by nats."""
    x = mnist_like(6, 3).double()
    means = (x + math.exp(log_std) * torch.randn(10, *x.shape, generator=seeded(4))).flatten(0, 1)
    mixture = Mixture(uniform_log_weights(60), means, torch.full_like(means, log_std))
    observed = mask_of(masks, len(x), 784)
    difference = mixture.log_prob(x, observed) - direct(mixture, x, observed)
    assert difference.abs().max() < 1e-6 * 784 * math.log(2)


@pytest.mark.parametrize("value", [0.5001, 0.77, 0.9371, 0.999])
def test_exact_where_rounding_errors_add_up(value):
    """Pixels and means that are all alike: float32 errors do not cancel as they do in noise."""
    x = value + 1e-5 * torch.arange(4.0)[:, None].expand(-1, 784).contiguous()
    means = value + 1e-4 * torch.linspace(-3, 3, 101)[:, None].expand(-1, 784).contiguous()
    mixture = Mixture(uniform_log_weights(101), means, torch.full_like(means, math.log(1e-3)))
    bits = (mixture.log_prob(x) - direct(mixture, x)) / (784 * math.log(2))
    assert bits.abs().max() < 1e-6


def test_hidden_values_are_ignored():
    mixture, x = random_mixture(), images()
    for masks in ("shared", "each"):
        observed = mask_of(masks)
        spoiled = torch.where(observed, x, torch.nan)
        assert torch.equal(mixture.log_prob(spoiled, observed), mixture.log_prob(x, observed))
        filled = mixture.conditional_mean(spoiled, observed)
        assert torch.equal(filled, mixture.conditional_mean(x, observed))


@pytest.mark.parametrize("shape", [(D,), (B, D)])
def test_nothing_observed_is_exactly_zero_and_everything_is_the_joint(chunking, shape):
    mixture, x = random_mixture(), images()
    nothing = mixture.log_prob(x, torch.zeros(shape, dtype=torch.bool))
    assert torch.equal(nothing, torch.zeros(B, dtype=torch.float64))
    everything = mixture.log_prob(x, torch.ones(shape, dtype=torch.bool))
    torch.testing.assert_close(everything, mixture.log_prob(x), rtol=1e-12, atol=1e-10)


def test_one_image_may_be_hidden_and_another_seen():
    mixture, x = random_mixture(), images(2)
    observed = torch.tensor([[False] * D, [True] * D])
    found = mixture.log_prob(x, observed)
    assert found[0] == 0.0
    torch.testing.assert_close(found[1], mixture.log_prob(x)[1], rtol=1e-12, atol=1e-10)


def test_density_integrates_to_one():
    """The trapezoid rule, whose error for Gaussians is negligible at a step of σ / 4."""
    mixture, step = random_mixture(n=16, d=2), 0.02
    axis = torch.arange(-6.0, 7.0, step, dtype=torch.float64)
    density = mixture.log_prob(torch.cartesian_prod(axis, axis)).exp()
    assert density.sum().item() * step**2 == pytest.approx(1.0, abs=1e-8)


def test_marginal_is_the_integral_over_the_hidden_pixel():
    mixture, observed = random_mixture(n=16, d=2), torch.tensor([True, False])
    x = torch.tensor([[0.3, 0.0]], dtype=torch.float64)

    def joint(hidden):
        return mixture.log_prob(torch.tensor([[0.3, hidden]], dtype=torch.float64)).exp().item()

    total, _ = quad(joint, -6, 7, epsabs=1e-9, limit=200)
    assert mixture.log_prob(x, observed).exp().item() == pytest.approx(total, rel=1e-7)


# prefixes


@MASKS
@pytest.mark.parametrize(
    "sizes", [[1, 2, 5, 16, 24], [7, 14, 21], [24], [1, 3], [6, 7, 8, 13, 15]], ids=str
)
def test_prefixes_equal_separate_mixtures(chunking, way, masks, sizes):
    mixture, x, observed = random_mixture(), images(), mask_of(masks)
    weights = torch.stack([weights_of(kind, N, 5) for kind in ("uniform", "random", "peaked")])
    weights = weights + torch.tensor([[0.0], [3.0], [-700.0]])  # not normalised
    found = mixture.prefix_log_prob(x, sizes, weights, observed)
    assert found.shape == (3, len(sizes), B)
    for s, row in enumerate(weights):
        for i, n in enumerate(sizes):
            normalised = torch.log_softmax(row[:n], 0)
            alone = Mixture(normalised, mixture.means[:n], mixture.log_stds[:n])
            torch.testing.assert_close(
                found[s, i], direct(alone, x, observed), rtol=1e-11, atol=1e-9
            )


def test_prefixes_are_exact_where_late_components_dwarf_early_ones(chunking, way):
    """The small sizes must not lose the terms that the large ones can do without."""
    x = mnist_like(5, 3)
    means, log_stds = near_copies(x, 4, 4)
    distance = torch.linspace(0.5, 0.0, 20)[:, None]  # the later, the nearer
    mixture = Mixture(weights_of("uniform", 20), (means - distance).clamp(0, 1), log_stds)
    sizes, weights = [1, 2, 3, 7, 9, 13, 14, 19, 20], weights_of("peaked", 20)[None]
    found = mixture.prefix_log_prob(x, sizes, weights)
    for i, n in enumerate(sizes):
        normalised = torch.log_softmax(weights[0, :n], 0)
        alone = Mixture(normalised, mixture.means[:n], mixture.log_stds[:n])
        difference = (found[0, i] - direct(alone, x)).abs().max()
        assert difference < 1e-6 * 784 * math.log(2)


def test_prefixes_with_nothing_observed_are_zero():
    mixture = random_mixture()
    weights = torch.stack([weights_of("random", N), weights_of("peaked", N)])
    found = mixture.prefix_log_prob(images(), [3, 24], weights, torch.zeros(D, dtype=torch.bool))
    assert torch.equal(found, torch.zeros(2, 2, B, dtype=torch.float64))


def test_first_components_are_a_normalised_mixture():
    mixture, x = random_mixture(), images()
    first = mixture.first(5)
    assert first.n_components == 5
    assert first.log_weights.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    expected = mixture.prefix_log_prob(x, [5], mixture.log_weights[None])[0, 0]
    torch.testing.assert_close(first.log_prob(x), expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("sizes", [[N + 1], [3, 3], [5, 2], [0]], ids=str)
def test_impossible_sizes_are_refused(sizes):
    """A size that can't be read must not come back as a number."""
    mixture = random_mixture()
    with pytest.raises((InputError, ValueError, IndexError)):
        mixture.prefix_log_prob(images(), sizes, mixture.log_weights[None])


# streaming


def streamed(mixture):
    """The same mixture, decoded when asked; counts that no call asks for all components."""
    calls = []

    def decode(index):
        calls.append(len(index))
        return mixture.means[index], mixture.log_stds[index]

    decoded = DecodedComponents(
        decode, mixture.n_components, mixture.n_variables, torch.device("cpu")
    )
    return StreamedMixture(mixture.log_weights, decoded), calls


@HIDING
def test_streamed_equals_stored(monkeypatch, masks):
    monkeypatch.setattr(gaussian, "COMPONENTS", 7)
    stored, x, observed = random_mixture(), images(), mask_of(masks)
    stream, calls = streamed(stored)
    assert stream.n_components == N
    assert stream.n_parameters == stored.n_parameters
    assert torch.equal(stream.log_prob(x), stored.log_prob(x))
    assert calls == [7, 7, 7, 3]
    assert torch.equal(stream.log_prob(x, observed), stored.log_prob(x, observed))
    found = stream.conditional_log_prob(x, observed)
    expected = stored.conditional_log_prob(x, observed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)  # from one pass and from two
    for query in ("conditional_mean", "conditional_mode"):
        assert torch.equal(getattr(stream, query)(x, observed), getattr(stored, query)(x, observed))
    for leaf_means in (False, True):
        assert torch.equal(
            stream.conditional_sample(x, observed, seeded(), leaf_means),
            stored.conditional_sample(x, observed, seeded(), leaf_means),
        )
        assert torch.equal(
            stream.sample(9, seeded(), leaf_means), stored.sample(9, seeded(), leaf_means)
        )
    weights = weights_of("peaked", N)[None]
    assert torch.equal(
        stream.prefix_log_prob(x, [2, 20], weights), stored.prefix_log_prob(x, [2, 20], weights)
    )


# several masks at once


def several_masks(d=D):
    """Overlapping ones, one that hides nothing, one that hides everything, and one twice."""
    some = torch.rand(3, d, generator=seeded(7)) < 0.5
    all_of_them = torch.ones(1, d, dtype=torch.bool)
    return torch.cat([some, all_of_them, ~all_of_them, some[:1]])


@WEIGHTS
def test_marginals_equal_those_of_each_mask(chunking, way, kind):
    mixture, x, masks = random_mixture(kind=kind), images(), several_masks()
    found = mixture.marginals(x, masks)
    expected = torch.stack([direct(mixture, x, observed) for observed in masks])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-9)
    assert torch.equal(found[4], torch.zeros(B, dtype=torch.float64))


def test_marginals_are_exact_where_deviations_are_at_their_floor(way):
    x = mnist_like(6, 3)
    mixture = Mixture(weights_of("peaked", 60), *near_copies(x, 10, 4))
    masks = several_masks(784)
    expected = torch.stack([direct(mixture, x, observed) for observed in masks])
    bits = (mixture.marginals(x, masks) - expected) / (784 * math.log(2))
    assert bits.abs().max() < 1e-6


@WEIGHTS
def test_completions_equal_the_queries_one_by_one(chunking, way, kind):
    mixture, x, masks = random_mixture(kind=kind), images(), several_masks()[[0, 1, 2, 4]]
    spoiled = torch.where(masks.any(0), x, torch.nan)
    found = mixture.completions(spoiled, masks, [seeded(m) for m in range(len(masks))])
    expected = Circuit.completions(mixture, x, masks, [seeded(m) for m in range(len(masks))])
    torch.testing.assert_close(found.log_prob, expected.log_prob, rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(found.samples, expected.samples)
    torch.testing.assert_close(found.means, expected.means)
    for m, observed in enumerate(masks):
        assert torch.equal(found.means[m][:, observed], x[:, observed])


def test_completions_need_a_generator_for_each_mask():
    with pytest.raises(ValueError, match="zip"):
        random_mixture().completions(images(), several_masks(), [seeded()])


# conditionals


@HIDING
@WEIGHTS
def test_conditional_equals_the_conditional_mixture(chunking, masks, kind):
    """p(x_u | x_o) = Σ_n r_n(x_o) p_n(x_u) with explicit responsibilities r."""
    mixture, x, observed = random_mixture(kind=kind), images(), mask_of(masks)
    responsibilities = terms_of(mixture, x, observed).log_softmax(1)
    hidden = (leaves(mixture, x) * ~observed.expand(x.shape)[:, None]).sum(-1)
    expected = (responsibilities + hidden).logsumexp(1)
    found = mixture.conditional_log_prob(x, observed)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)


@HIDING
@WEIGHTS
def test_conditional_mean_weights_the_means_by_responsibility(chunking, way, masks, kind):
    mixture, x, observed = random_mixture(kind=kind), images(), mask_of(masks)
    responsibilities = terms_of(mixture, x, observed).softmax(1)
    expected = torch.where(observed, x.double(), responsibilities @ mixture.means.double())
    found = mixture.conditional_mean(x, observed)
    assert torch.equal(torch.where(observed, found, 0), torch.where(observed, x, 0))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("masks", ["shared", "each", "hidden"])
@WEIGHTS
def test_conditional_mode_is_the_brute_force_maximum(chunking, masks, kind):
    mixture, x = random_mixture(kind=kind), images()
    observed = torch.zeros(D, dtype=torch.bool) if masks == "hidden" else mask_of(masks)
    expected = []
    for b in range(B):
        mask = observed.expand(x.shape)[b]
        scores = []
        for n in range(N):
            candidate = torch.where(mask, x[b], mixture.means[n])[None]
            scores.append(leaves(mixture, candidate)[0, n].sum() + mixture.log_weights[n])
        expected.append(torch.where(mask, x[b], mixture.means[torch.stack(scores).argmax()]))
    assert torch.equal(mixture.conditional_mode(x, observed), torch.stack(expected))


def test_conditional_mode_prefers_a_narrow_component():
    """Two equal components but for σ: the narrow one has the higher peak."""
    means, log_stds = torch.tensor([[0.2, 0.2], [0.2, 0.8]]), torch.tensor([[-1.0, -1.0], [-1, -3]])
    mixture = Mixture(uniform_log_weights(2), means, log_stds)
    found = mixture.conditional_mode(torch.tensor([[0.5, 0.0]]), torch.tensor([True, False]))
    assert torch.equal(found, torch.tensor([[0.5, 0.8]]))


def separated(n, d):
    """A mixture whose leaf means tell its components apart by their first pixel."""
    mixture = random_mixture(n, d, smallest=-1.0, seed=8)
    mixture.means[:, 0] = torch.arange(n) / n
    return mixture


@pytest.mark.parametrize("per_image", [False, True])
def test_conditional_sample_draws_components_by_responsibility(chunking, per_image):
    n, d, draws = 16, 4, 3000
    mixture = separated(n, d)
    x, observed = images(1, d), torch.tensor([False, True, False, True])
    repeated = x.expand(draws, d)
    mask = observed.expand(draws, d) if per_image else observed
    found = mixture.conditional_sample(repeated, mask, seeded(3), leaf_means=True)
    index = (found[:, 0] * n).round().long()
    assert torch.equal(found, torch.where(observed, x, mixture.means[index]))
    expected = draws * terms_of(mixture, x, observed)[0].softmax(0)
    counts = index.bincount(minlength=n).double()
    few = expected < 8
    if few.any():
        counts = torch.cat([counts[~few], counts[few].sum()[None]])
        expected = torch.cat([expected[~few], expected[few].sum()[None]])
    assert len(expected) > 5
    assert chisquare(counts, expected).pvalue > SMALLEST_P_VALUE


def test_conditional_sample_follows_the_conditional_distribution(chunking):
    """Kolmogorov-Smirnov of the one hidden pixel against the exact distribution function."""
    mixture = random_mixture(16, 3, smallest=-2.0)
    x, observed = images(1, 3), torch.tensor([True, False, True])
    found = mixture.conditional_sample(x.expand(4000, 3), observed, seeded(4))
    assert torch.equal(found[:, observed], x[:, observed].expand(4000, 2))
    responsibilities = terms_of(mixture, x, observed)[0].softmax(0)
    normals = Normal(mixture.means[:, 1].double(), mixture.log_stds[:, 1].double().exp())

    def distribution(values):
        return (normals.cdf(torch.from_numpy(values)[:, None]) @ responsibilities).numpy()

    assert kstest(found[:, 1].double().numpy(), distribution).pvalue > SMALLEST_P_VALUE


def test_conditional_samples_of_two_pixels_have_the_exact_covariance():
    """Pixels of one sample come from one component: their covariance, within 4 standard errors."""
    mixture = random_mixture(16, 4, smallest=-2.0)
    x, observed, draws = images(1, 4), torch.tensor([True, False, True, False]), 20000
    found = mixture.conditional_sample(x.expand(draws, 4), observed, seeded(5))[:, ~observed]
    responsibilities = terms_of(mixture, x, observed)[0].softmax(0)
    means = mixture.means[:, ~observed].double()
    centred = means - responsibilities @ means
    covariance = (responsibilities * centred[:, 0] * centred[:, 1]).sum()
    products = (found.double() - responsibilities @ means).prod(1)
    assert abs(products.mean() - covariance) < 4 * products.std() / math.sqrt(draws)
    assert abs(covariance) > 8 * products.std() / math.sqrt(draws)  # or the test tells nothing


def test_sample_frequencies_and_moments():
    n, draws = 16, 8000
    mixture = separated(n, 3)
    index = (mixture.sample(draws, seeded(6), leaf_means=True)[:, 0] * n).round().long()
    expected = draws * mixture.log_weights.exp()
    assert chisquare(index.bincount(minlength=n), expected).pvalue > SMALLEST_P_VALUE

    found, w = mixture.sample(draws, seeded(7)).double(), mixture.log_weights.exp()
    means, variances = mixture.means.double(), (2 * mixture.log_stds.double()).exp()
    mean = w @ means
    variance = w @ (variances + means.square()) - mean.square()
    assert ((found.mean(0) - mean).abs() < 4 * (variance / draws).sqrt()).all()
    spread = (found - mean).square()
    assert ((spread.mean(0) - variance).abs() < 4 * spread.std(0) / math.sqrt(draws)).all()


def test_samples_depend_on_their_generator_only():
    mixture, x, observed = random_mixture(), images(), mask_of("shared")
    first = mixture.conditional_sample(x, observed, seeded(1))
    torch.manual_seed(99)
    assert torch.equal(mixture.conditional_sample(x, observed, seeded(1)), first)
    assert not torch.equal(mixture.conditional_sample(x, observed, seeded(2)), first)
    assert torch.equal(mixture.sample(5, seeded(1)), mixture.sample(5, seeded(1)))


def test_components_of_no_weight_are_never_drawn_and_do_no_harm(chunking):
    """The first chunk may hold no mass at all."""
    log_weights = torch.full((N,), -torch.inf, dtype=torch.float64)
    log_weights[[10, 20]] = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    stored = random_mixture()
    mixture = Mixture(log_weights, stored.means, stored.log_stds)
    reduced = Mixture(log_weights[[10, 20]], stored.means[[10, 20]], stored.log_stds[[10, 20]])
    x, observed = images(), mask_of("each")
    torch.testing.assert_close(mixture.log_prob(x, observed), reduced.log_prob(x, observed))
    assert torch.equal(mixture.conditional_mode(x, observed), reduced.conditional_mode(x, observed))
    drawn = mixture.sample(200, seeded(), leaf_means=True)
    matches = (drawn[:, None] == reduced.means).all(-1)
    assert matches.any(1).all()
    assert matches.any(0).all()
    torch.testing.assert_close(
        mixture.conditional_mean(x, observed), reduced.conditional_mean(x, observed)
    )


# size and errors


def test_parameters_equal_a_walk_of_the_circuit():
    mixture = random_mixture(5, 3)
    leaves_of = [[("mean", "std") for _ in row] for row in mixture.means]
    walked = sum(len(leaf) for product in leaves_of for leaf in product)
    walked += len(leaves_of) - 1  # the sum unit's fan-in − 1
    assert mixture.n_parameters == walked == 34
    uniform = Mixture(uniform_log_weights(5), mixture.means, mixture.log_stds)
    assert uniform.n_parameters == mixture.n_parameters


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("total", [0.5, 1.001, 2.0, 0.0, math.nan])
def test_weights_that_do_not_sum_to_one_are_refused(total):
    log_weights = torch.full((4,), total / 4, dtype=torch.float64).log()
    with pytest.raises(InputError) as error:
        Mixture(log_weights, torch.rand(4, 2), torch.zeros(4, 2))
    assert "expected 1" in one_line(error)


@pytest.mark.parametrize(
    ("weights", "means", "log_stds", "named"),
    [
        ((3,), (4, 2), (4, 2), "mixture weights of shape (3,)"),
        ((4, 1), (4, 2), (4, 2), "mixture weights of shape (4, 1)"),
        ((4,), (4, 2), (4, 3), "means of shape (4, 2)"),
        ((4,), (8,), (8,), "means of shape (8,)"),
    ],
)
def test_parameters_of_wrong_shapes_are_refused(weights, means, log_stds, named):
    n = math.prod(weights)
    with pytest.raises(InputError) as error:
        Mixture(uniform_log_weights(n).view(weights), torch.rand(means), torch.zeros(log_stds))
    assert named in one_line(error)


QUERIES = ("log_prob", "conditional_log_prob", "conditional_mean", "conditional_mode")


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("shape", [(D,), (B, D + 1), (B, 3, 6)])
def test_images_of_wrong_shapes_are_refused(query, shape):
    with pytest.raises(InputError) as error:
        getattr(random_mixture(), query)(torch.rand(shape), torch.ones(D, dtype=torch.bool))
    assert f"expects [B, {D}]" in one_line(error)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(D - 1, dtype=torch.bool),
        torch.ones(B - 1, D, dtype=torch.bool),
        torch.ones(1, D, dtype=torch.bool),
        torch.ones(D),
        torch.ones(B, D, dtype=torch.int64),
    ],
    ids=lambda mask: f"{tuple(mask.shape)}-{mask.dtype}",
)
def test_wrong_masks_are_refused(query, mask):
    with pytest.raises(InputError) as error:
        getattr(random_mixture(), query)(images(), mask)
    assert "expected bool" in one_line(error)


def test_stored_components_give_what_was_stored():
    means, log_stds = torch.rand(5, 2), torch.rand(5, 2)
    stored = StoredComponents(means, log_stds)
    index = torch.tensor([4, 0])
    assert len(stored) == 5
    assert torch.equal(stored.parameters(index)[0], means[index])
    assert torch.equal(stored.parameters(slice(1, 3))[1], log_stds[1:3])
