"""Mixtures by both ways to a log-likelihood, against explicit sums in float64.

Other guarantees of all circuits are held in tests/trust/.
"""

import math

import pytest
import torch
from helpers import chi_square, refusal, seeded, terms
from torch.distributions import Normal

from vqdistill.circuits import gaussian
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.gaussian import Chunk, Evidence
from vqdistill.circuits.mixture import (
    DecodedComponents,
    Mixture,
    StreamedMixture,
    uniform_log_weights,
)

N, D, B = 24, 18, 13


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


def several_masks(d=D):
    """Overlapping ones, one that hides nothing, one that hides everything, and one twice."""
    some = torch.rand(3, d, generator=seeded(7)) < 0.5
    all_of_them = torch.ones(1, d, dtype=torch.bool)
    return torch.cat([some, all_of_them, ~all_of_them, some[:1]])


def direct(mixture, x, observed=None):
    return terms(mixture, x, observed).logsumexp(1)


def answered(mixture, x, masks):
    """log p(x_o) under a kind of masks, [B] or [masks, B], and what is expected of it."""
    if masks == "several":
        several = several_masks(x.shape[1])
        expected = torch.stack([direct(mixture, x, observed) for observed in several])
        return mixture.marginals(x, several), expected
    observed = mask_of(masks, *x.shape)
    return mixture.log_prob(x, observed), direct(mixture, x, observed)


MASKS = pytest.mark.parametrize("masks", ["none", "shared", "each"])
ANY_MASKS = pytest.mark.parametrize("masks", ["none", "shared", "each", "several"])
HIDING = pytest.mark.parametrize("masks", ["shared", "each"])
EVEN_OR_PEAKED = pytest.mark.parametrize("kind", ["uniform", "peaked"])
WEIGHTS = pytest.mark.parametrize("kind", ["uniform", "random", "peaked"])


@pytest.fixture(params=["float64", "float64 in chunks", "pruned", "pruned, then float64"])
def way(request, monkeypatch):
    """All ways to a log-likelihood: the product in float64, and pruning by one in float32 with the
    pairs that matter from differences or, where they are many, from the product in float64. All
    but the first go through chunks so small that every loop runs several times."""
    monkeypatch.setattr(gaussian, "FEW", 10**9 if request.param.startswith("float64") else 0)
    monkeypatch.setattr(gaussian, "DENSE", 1.0 if request.param == "pruned" else -1.0)
    if request.param != "float64":
        monkeypatch.setattr(gaussian, "IMAGES", 5)
        monkeypatch.setattr(gaussian, "COMPONENTS", 7)
        monkeypatch.setattr(gaussian, "PAIRS", 3)


# log_prob


@WEIGHTS
@ANY_MASKS
def test_log_prob_is_the_sum_over_all_components(way, kind, masks):
    found, expected = answered(random_mixture(kind=kind), images(), masks)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-9)
    if masks == "several":
        assert torch.equal(found[4], torch.zeros(B, dtype=torch.float64))  # nothing is observed


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


def check_exact(found, expected):
    """Within 10⁻⁶ bits per dimension of an image of 784 pixels."""
    assert (found - expected).abs().max() < 1e-6 * 784 * math.log(2)


@ANY_MASKS
def test_exact_where_deviations_are_at_their_floor(way, masks):
    x = mnist_like(6, 3)
    mixture = Mixture(weights_of("peaked", 60), *near_copies(x, 10, 4))
    check_exact(*answered(mixture, x, masks))


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
    exact, rows = terms(mixture, x) - mixture.log_weights, slice(0, 5)
    assert (chunk.of_all(rows, torch.float32)[0] - exact).abs().max() > 1.0
    pairs = torch.ones(exact.shape).nonzero(as_tuple=True)
    for values in (chunk.of_all(rows, torch.float64)[0], chunk.of_pairs(rows, 0, *pairs)):
        torch.testing.assert_close(values.view_as(exact), exact, rtol=0, atol=1e-4)
    check_exact(mixture.log_prob(x), direct(mixture, x))


@MASKS
@pytest.mark.parametrize("at_mode", [False, True])
def test_float32_products_are_within_their_bound(masks, at_mode):
    """Where they are off by nats: all pixels of an image are equal, and so are all leaves of a
    component, so that errors add up."""
    x = (0.99 + 0.009 * torch.rand(5, 1, generator=seeded(1))).expand(5, 784)
    means = (x[0, 0] + 1e-4 * torch.randn(400, 1, generator=seeded(2))).expand(400, 784)
    log_stds = (math.log(1e-3) * torch.rand(400, 1, generator=seeded(3))).expand(400, 784)
    observed = mask_of(masks, 5, 784)
    chunk = Chunk(0, means, log_stds, evidence_of(x, observed), at_mode)
    exact = Normal(means.double(), log_stds.double().exp()).log_prob(x.double()[:, None])
    if observed is not None:
        hidden = gaussian.log_mode(log_stds.double()) if at_mode else torch.zeros(())
        exact = torch.where(observed.expand(5, 784)[:, None], exact, hidden)
    exact, product = exact.sum(-1), chunk.product(torch.float32)
    rough = chunk.of_all(slice(0, 5), torch.float32)[0].double()
    share = (exact - rough).abs() / (product.margins - product.rounding * rough)
    assert 1e-4 < share.max() < 1


@pytest.mark.parametrize("n_weights", [1, 3])
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


@MASKS
def test_the_gradient_is_that_of_an_explicit_sum(way, masks):
    """Also where a chunk has no term that matters to an image."""
    mixture, x, observed = random_mixture(smallest=-5.0), images().double(), mask_of(masks)
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
    mixture = Mixture(uniform_log_weights(800), *near_copies(x, 40, 4))
    observed = mask_of(masks, len(x), 784)
    monkeypatch.setattr(gaussian, "COMPONENTS", 100)
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = kind
    try:
        found = mixture.log_prob(x, observed)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    check_exact(found, direct(mixture, x, observed))


def test_images_of_a_shorter_type():
    """As pictures.npz holds them: what is asked is the density of these very numbers."""
    x = mnist_like(6, 3).half()
    mixture = Mixture(uniform_log_weights(60), *near_copies(x.float(), 10, 4))
    check_exact(mixture.log_prob(x), direct(mixture, x))


@pytest.mark.parametrize(
    ("name", "value"), [("means", math.nan), ("means", math.inf), ("log_stds", -40)]
)
def test_components_that_are_no_numbers_are_refused(name, value):
    mixture = random_mixture()
    getattr(mixture, name)[3, 5] = value
    assert "no finite numbers" in refusal(mixture.log_prob, images())


@pytest.mark.parametrize("name", ["means", "log_stds"])
@pytest.mark.parametrize("query", ["log_prob", "conditional_mean", "conditional_mode"])
def test_hidden_pixels_that_are_no_numbers_are_refused(name, query):
    mixture, observed = random_mixture(), torch.arange(D) != 5
    getattr(mixture, name)[3, 5] = math.nan
    assert "no finite numbers" in refusal(getattr(mixture, query), images(), observed)


@MASKS
@pytest.mark.parametrize("log_std", [-12, -30])
def test_exact_where_deviations_are_far_below_their_floor(way, masks, log_std):
    """There, even a float64 expansion of the square is off by nats."""
    x = mnist_like(6, 3).double()
    means = (x + math.exp(log_std) * torch.randn(10, *x.shape, generator=seeded(4))).flatten(0, 1)
    mixture = Mixture(uniform_log_weights(60), means, torch.full_like(means, log_std))
    check_exact(*answered(mixture, x, masks))


@pytest.mark.parametrize("value", [0.5001, 0.77, 0.9371, 0.999])
def test_exact_where_rounding_errors_add_up(value):
    """Pixels and means that are all alike: float32 errors do not cancel as they do in noise."""
    x = value + 1e-5 * torch.arange(4.0)[:, None].expand(-1, 784).contiguous()
    means = value + 1e-4 * torch.linspace(-3, 3, 101)[:, None].expand(-1, 784).contiguous()
    mixture = Mixture(uniform_log_weights(101), means, torch.full_like(means, math.log(1e-3)))
    check_exact(mixture.log_prob(x), direct(mixture, x))


def test_one_image_may_be_hidden_and_another_seen(way):
    mixture, x = random_mixture(), images(2)
    observed = torch.tensor([[False] * D, [True] * D])
    found = mixture.log_prob(x, observed)
    assert found[0] == 0.0
    torch.testing.assert_close(found[1], mixture.log_prob(x)[1], rtol=1e-12, atol=1e-10)


# prefixes


def check_prefixes(found, mixture, x, observed, sizes, weights, check):
    """log p(x_o) [S, sizes, B] against a mixture of its own for each size and weight vector."""
    assert found.shape == (len(weights), len(sizes), len(x))
    for s, row in enumerate(weights):
        for i, n in enumerate(sizes):
            normalised = torch.log_softmax(row[:n], 0)
            alone = Mixture(normalised, mixture.means[:n], mixture.log_stds[:n])
            check(found[s, i], direct(alone, x, observed))


@MASKS
@pytest.mark.parametrize("sizes", [[1, 2, 5, 16, 24], [6, 7, 8, 13, 14]], ids=str)
def test_prefixes_equal_separate_mixtures(way, masks, sizes):
    mixture, x, observed = random_mixture(), images(), mask_of(masks)
    weights = torch.stack([weights_of(kind, N, 5) for kind in ("uniform", "random", "peaked")])
    weights = weights + torch.tensor([[0.0], [3.0], [-700.0]])  # not normalised

    def check(found, expected):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-9)

    found = mixture.prefix_log_prob(x, sizes, weights, observed)
    check_prefixes(found, mixture, x, observed, sizes, weights, check)


def test_prefixes_are_exact_where_late_components_dwarf_early_ones(way):
    """The small sizes must not lose the terms that the large ones can do without."""
    x = mnist_like(5, 3)
    means, log_stds = near_copies(x, 4, 4)
    distance = torch.linspace(0.5, 0.0, 20)[:, None]  # the later, the nearer
    mixture = Mixture(weights_of("uniform", 20), (means - distance).clamp(0, 1), log_stds)
    sizes, weights = [1, 2, 3, 7, 9, 13, 14, 19, 20], weights_of("peaked", 20)[None]
    found = mixture.prefix_log_prob(x, sizes, weights)
    check_prefixes(found, mixture, x, None, sizes, weights, check_exact)


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
    said = refusal(mixture.prefix_log_prob, images(), sizes, mixture.log_weights[None])
    assert str(sizes) in said


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


# conditionals


@HIDING
def test_conditional_equals_the_conditional_mixture(way, masks):
    """p(x_u | x_o) = Σ_n r_n(x_o) p_n(x_u) with explicit responsibilities r."""
    mixture, x, observed = random_mixture(kind="peaked"), images(), mask_of(masks)
    given = terms(mixture, x, observed)
    hidden = terms(mixture, x) - given  # log p_n(x_u)
    expected = (given.log_softmax(1) + hidden).logsumexp(1)
    found = mixture.conditional_log_prob(x, observed)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-9)


@HIDING
@EVEN_OR_PEAKED
def test_conditional_mean_weights_the_means_by_responsibility(way, masks, kind):
    mixture, x, observed = random_mixture(kind=kind), images(), mask_of(masks)
    responsibilities = terms(mixture, x, observed).softmax(1)
    expected = torch.where(observed, x.double(), responsibilities @ mixture.means.double())
    found = mixture.conditional_mean(x, observed)
    assert torch.equal(torch.where(observed, found, 0), torch.where(observed, x, 0))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("masks", ["shared", "each", "hidden"])
@EVEN_OR_PEAKED
def test_conditional_mode_is_the_brute_force_maximum(way, masks, kind):
    mixture, x = random_mixture(kind=kind), images()
    observed = torch.zeros(D, dtype=torch.bool) if masks == "hidden" else mask_of(masks)
    completed = torch.where(observed.expand(x.shape)[:, None], x[:, None], mixture.means)
    joint = [terms(mixture, of_image).diagonal() for of_image in completed]  # under its component
    best = torch.stack(joint).argmax(1)
    assert torch.equal(mixture.conditional_mode(x, observed), completed[torch.arange(B), best])


@EVEN_OR_PEAKED
def test_completions_equal_the_queries_one_by_one(way, kind):
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
    said = refusal(random_mixture().completions, images(), several_masks(), [seeded()])
    assert "generators: found 1, expected 6" in said


@pytest.mark.parametrize("per_image", [False, True])
def test_conditional_sample_draws_components_by_responsibility(way, per_image):
    """Leaf means tell the components apart by their first pixel."""
    n, d, draws = 16, 4, 3000
    mixture = random_mixture(n, d, smallest=-1.0, seed=8)
    mixture.means[:, 0] = torch.arange(n) / n
    x, observed = images(1, d), torch.tensor([False, True, False, True])
    repeated = x.expand(draws, d)
    mask = observed.expand(draws, d) if per_image else observed
    found = mixture.conditional_sample(repeated, mask, seeded(3), leaf_means=True)
    index = (found[:, 0] * n).round().long()
    assert torch.equal(found, torch.where(observed, x, mixture.means[index]))
    expected = draws * terms(mixture, x, observed)[0].softmax(0)
    assert (expected >= 5).sum() > 5
    assert chi_square(index.bincount(minlength=n).double(), expected) < 1


def test_samples_depend_on_their_generator_only():
    mixture, x, observed = random_mixture(), images(), mask_of("shared")
    first = mixture.conditional_sample(x, observed, seeded(1))
    torch.manual_seed(99)
    assert torch.equal(mixture.conditional_sample(x, observed, seeded(1)), first)
    assert not torch.equal(mixture.conditional_sample(x, observed, seeded(2)), first)
    assert torch.equal(mixture.sample(5, seeded(1)), mixture.sample(5, seeded(1)))


def test_components_of_no_weight_are_never_drawn_and_do_no_harm(way):
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


# errors


@pytest.mark.parametrize("total", [0.5, 1.001, 2.0, 0.0, math.nan])
def test_weights_that_do_not_sum_to_one_are_refused(total):
    log_weights = torch.full((4,), total / 4, dtype=torch.float64).log()
    said = refusal(Mixture, log_weights, torch.rand(4, 2), torch.zeros(4, 2))
    assert "expected 1" in said


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
    log_weights = uniform_log_weights(math.prod(weights)).view(weights)
    assert named in refusal(Mixture, log_weights, torch.rand(means), torch.zeros(log_stds))
