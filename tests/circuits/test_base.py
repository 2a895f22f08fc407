"""Every query of every circuit, asked with every kind of input: a documented answer or one line."""

import inspect
import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers import einet_of, mixture_of, quad_tree_of, refusal, seeded

from vqdistill import settings
from vqdistill.baselines import continuous_mixture
from vqdistill.baselines.gmm import GaussianMixture
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.inputs import HIGHEST, LOWEST
from vqdistill.circuits.mixture import Mixture, StreamedMixture, uniform_log_weights
from vqdistill.data import prepare
from vqdistill.distillation.mixtures import distilled_mixture, exact_mixture
from vqdistill.models.vqvae import VQVAE

SHAPE, D, B, LEVELS = (8, 8), 64, 3, 17
TEACHER = settings.VQVAE(grid="2x2", codebook_size=3, channels=(4, 6))
CM = settings.ContinuousMixture(latent_dimension=3, channels=(6, 4, 2), points=8, chunk=8)


def of_a_teacher(make):
    torch.manual_seed(0)
    return make(VQVAE(SHAPE, TEACHER).eval().requires_grad_(False))


def compiled():
    torch.manual_seed(0)
    return continuous_mixture.circuit(continuous_mixture.build(SHAPE, CM), 8, seeded())


CIRCUITS = {  # a new kind of circuit is one more entry
    "distilled": lambda: of_a_teacher(
        lambda vqvae: distilled_mixture(vqvae, torch.randint(3, (5, 2, 2), generator=seeded()))
    ),
    "distilled, of classes": lambda: of_a_teacher(
        lambda vqvae: distilled_mixture(
            vqvae,
            torch.randint(3, (5, 2, 2), generator=seeded()),
            log_prob_by_class=torch.randn(5, 10, generator=seeded()),
        )
    ),
    "exact": lambda: of_a_teacher(lambda v: exact_mixture(v, uniform_log_weights(3**4))),
    "streamed": lambda: StreamedMixture(uniform_log_weights(3), mixture_of(3, D).components),
    "mixture": lambda: mixture_of(100, D),
    "compiled": compiled,
    "einet": lambda: einet_of(SHAPE, 2, 4).float(),
    "quad_tree": lambda: quad_tree_of(SHAPE, 2).float(),
    "quad_tree, of classes": lambda: quad_tree_of(SHAPE, 2, 3, 1).float(),
    "gmm": lambda: GaussianMixture(3, D),
}


@pytest.fixture(scope="module", params=CIRCUITS)
def circuit(request):
    torch.manual_seed(1)
    model = CIRCUITS[request.param]()
    model.image_shape, model.levels = SHAPE, LEVELS
    return model


QUERIES = {  # what they need beside images, and how they are asked
    "log_prob": ("mask or none", lambda model: model.log_prob),
    "bpd": ("none", lambda model: model.bpd),
    "conditional_log_prob": ("mask", lambda model: model.conditional_log_prob),
    "class_log_prob": ("mask or none", lambda model: model.class_log_prob),
    "conditional_mean": ("mask", lambda model: model.conditional_mean),
    "conditional_std": ("mask", lambda model: model.conditional_std),
    "conditional_mode": ("mask", lambda model: model.conditional_mode),
    "conditional_sample": (
        "mask",
        lambda model: lambda x, mask: model.conditional_sample(x, mask, seeded()),
    ),
    "marginals": ("masks", lambda model: model.marginals),
    "completions": (
        "masks",
        lambda model: lambda x, masks: model.completions(x, masks, [seeded() for _ in masks]),
    ),
}
ANY_QUERY = pytest.mark.parametrize("query", QUERIES)
OF_LEVELS = {"log_prob_discrete", "bpd_discrete"}  # asked in test_grey_levels.py
LOG_PROBS = ("log_prob", "bpd", "conditional_log_prob", "class_log_prob", "marginals")


@pytest.fixture(autouse=True)
def classes_are_known(request):
    """Where they are asked for."""
    of_classes = "class_log_prob" in request.node.name
    if of_classes and request.getfixturevalue("circuit").n_classes < 2:
        pytest.skip("it knows no classes")


def test_all_queries_are_asked_here():
    public = {name for name, _ in inspect.getmembers(Circuit, callable) if name[0] != "_"}
    assert public - {"to", "save", "sample"} - OF_LEVELS == set(QUERIES)


X = torch.randint(64, (B, D), generator=seeded()).double() / 64  # exact in float16


def with_pixel(value, pixel=0):
    return X.index_fill(1, torch.tensor([pixel]), value)


def big_endian(x):
    return x.numpy().astype(">f4")


def backwards(x):
    """Of negative strides, as x[::-1] has."""
    return x.numpy()[::-1].copy()[::-1]


def read_only(x):
    x = x.float().numpy()
    x.flags.writeable = False
    return x


TYPES = {
    "torch float16": lambda x: x.half(),
    "torch bfloat16": lambda x: x.bfloat16(),
    "torch float32": lambda x: x.float(),
    "torch float64": lambda x: x,
    "torch float32 with gradients": lambda x: x.float().requires_grad_(),
    "torch float32, columns first": lambda x: x.float().mT.contiguous().mT,
    "numpy float16": lambda x: x.numpy().astype(np.float16),
    "numpy float32": lambda x: x.numpy().astype(np.float32),
    "numpy float64": lambda x: x.numpy(),
    "numpy long double": lambda x: x.numpy().astype(np.longdouble),
    "numpy big-endian": big_endian,
    "numpy backwards": backwards,
    "numpy read-only": read_only,
}
HALF = torch.arange(D) < D // 2
EACH = torch.rand(B, D, generator=seeded(1)) < 0.5
MASKS = {"half": HALF, "all": HALF | True, "nothing": HALF & False, "each": EACH}


def sides(images):
    """[..., D] as [..., h, w]."""
    return images.reshape(*images.shape[:-1], *SHAPE)


def asked(circuit, query, x, mask=None):
    """The answer of a query that may need a mask, or several."""
    kind, ask = QUERIES[query]
    if kind == "masks":
        mask = HALF if mask is None else mask
        stack = np.stack if isinstance(mask, np.ndarray) else torch.stack
        return ask(circuit)(x, stack([mask, mask]))
    if kind == "none" or (kind == "mask or none" and mask is None):
        return ask(circuit)(x)
    return ask(circuit)(x, HALF if mask is None else mask)


def parts(answer):
    """An answer's tensors."""
    return list(answer) if isinstance(answer, tuple) else [answer]


def check(answer, expected, query, x):
    """Values, shapes and types: log-likelihoods float64, images float64 where x is, else float32;
    of the shape of x."""
    wide = str(x.dtype).removeprefix("torch.") in ("float64", "float128", "longdouble")
    for one, other in zip(parts(answer), parts(expected), strict=True):
        assert isinstance(one, torch.Tensor)
        of_images = query not in LOG_PROBS and other.shape[-1] == D
        assert one.dtype == (torch.float64 if wide or not of_images else torch.float32)
        shape = (*other.shape[:-1], *x.shape[1:]) if of_images else other.shape
        assert one.shape == shape
        torch.testing.assert_close(
            one.reshape(other.shape).double(), other.double(), rtol=1e-6, atol=1e-6
        )


@ANY_QUERY
@pytest.mark.parametrize("shape", ["[B, D]", "[B, h, w]"])
def test_images_of_every_type_and_shape(circuit, query, shape):
    expected = asked(circuit, query, X)
    for make in TYPES.values():
        x = make(X if shape == "[B, D]" else sides(X))
        check(asked(circuit, query, x), expected, query, x)


@ANY_QUERY
@pytest.mark.parametrize("mask", MASKS)
def test_masks_of_every_kind(circuit, query, mask):
    """[D], [h, w], [B, D] and [B, h, w], of both libraries, whatever the shape of the images."""
    kind, observed = QUERIES[query][0], MASKS[mask]
    if kind == "none" or (kind == "masks" and mask == "each"):
        pytest.skip("no query of this kind")
    expected = asked(circuit, query, X, observed)
    for x in (X, sides(X)):
        for one in (observed, sides(observed), observed.numpy(), sides(observed).numpy()):
            check(asked(circuit, query, x, one), expected, query, x)


@ANY_QUERY
def test_no_images_one_image_and_no_masks(circuit, query):
    for n in (0, 1):
        for x in (X[:n], sides(X[:n])):
            by_row = (D, circuit.n_classes if query == "class_log_prob" else D)
            expected = [part[..., :n, :] if part.shape[-1] in by_row else part[..., :n]
                        for part in parts(asked(circuit, query, X))]  # fmt: skip
            if query not in ("conditional_sample", "completions"):  # their draws are others
                check(tuple(parts(asked(circuit, query, x))), tuple(expected), query, x)
            shapes = [part.flatten(2).shape if part.ndim > 3 else part.shape
                      for part in parts(asked(circuit, query, x[:n].reshape(n, D)))]  # fmt: skip
            assert shapes == [part.shape for part in expected]
    if QUERIES[query][0] == "masks":
        none = QUERIES[query][1](circuit)(sides(X), torch.zeros(0, D, dtype=torch.bool))
        assert [part.shape for part in parts(none)][-1] in ((0, B), (0, B, *SHAPE))
        assert parts(none)[0].shape == (0, B)


@ANY_QUERY
def test_gradients_where_they_are_asked_for(circuit, query):
    """Of log-likelihoods, by finite differences; completions have none, and say so."""
    x = (0.2 + 0.6 * sides(X)).requires_grad_()
    answer = parts(asked(circuit, query, x))
    if query not in LOG_PROBS:
        assert not any(part.requires_grad for part in answer)
        return
    (gradient,) = torch.autograd.grad(answer[0].sum(), x)
    assert gradient.shape == x.shape
    step = torch.zeros_like(x).index_fill(1, torch.tensor([1]), 1e-5)
    above, below = (asked(circuit, query, x.detach() + s * step).sum() for s in (1, -1))
    expected = (above - below) / 2e-5
    torch.testing.assert_close(gradient[:, 1].sum(), expected, rtol=1e-4, atol=1e-4)


BAD_IMAGES = {  # images, and what is said of them
    "none": (None, "NoneType"),
    "a list": (X.tolist(), "list"),
    "of another size": (torch.rand(2, D + 1), "of shape (2, 65)"),
    "of other sides": (torch.rand(2, 4, 16), "expects [B, 64] or [B, 8, 8]"),
    "without a batch": (torch.rand(D), "x[None] is a batch of one image"),
    "with sides, without a batch": (np.zeros(SHAPE), "x[None] is a batch of one image"),
    "with channels": (torch.rand(2, 1, 8, 8), "of shape (2, 1, 8, 8)"),
    "a number": (torch.tensor(0.5), "of shape ()"),
    "uint8": (torch.full((2, D), 7, dtype=torch.uint8), "torch.uint8"),
    "uint8 of NumPy": (np.full((2, *SHAPE), 7, np.uint8), "type uint8"),
    "int64": (torch.zeros(2, D, dtype=torch.int64), "torch.int64"),
    "bool": (torch.zeros(2, D, dtype=torch.bool), "torch.bool"),
    "complex": (torch.zeros(2, D, dtype=torch.complex64), "torch.complex64"),
    "text": (np.full((2, D), "a"), "type <U1"),
    "objects": (np.full((2, D), None), "type object"),
    "sparse": (torch.rand(2, D).to_sparse(), "Tensor of shape"),
    "masked": (np.ma.masked_array(X.numpy(), X.numpy() > 0.5), "MaskedArray of shape"),
    "grey levels": (with_pixel(255.0), "pixel of 255: expected numbers in [0, 1)"),
    "grey levels of digits": (torch.full((2, D), 5.0), "whole numbers up to 5"),
    "grey levels of NumPy": (np.arange(2.0 * D).reshape(2, D) % 8, "whole numbers up to 7"),
    "far below": (with_pixel(-6.5), "pixel of -6.5"),
    "far above": (with_pixel(7.01), "pixel of 7.01"),
    "no number": (with_pixel(math.nan), "pixel of nan"),
    "infinite": (with_pixel(-math.inf), "pixel of -inf"),
}
LEVELS_AS = ("uint8", "uint8 of NumPy", "int64", "grey levels", "grey levels of digits")
BAD_MASKS = {
    "of another size": (torch.ones(D + 1, dtype=torch.bool), "mask"),
    "of other sides": (torch.ones(4, 16, dtype=torch.bool), "(4, 16)"),
    "for other images": (torch.ones(2, D, dtype=torch.bool), "[3, 64] or [3, 8, 8] for each"),
    "a single value": (torch.tensor(True), "mask"),
    "numbers": (torch.ones(D), "torch.float32"),
    "integers": (np.ones(D, int), "type int64"),
    "a list": ([True] * D, "list"),
    "true": (True, "bool"),
}


@ANY_QUERY
def test_other_images_get_one_line(circuit, query):
    for name, (x, said) in BAD_IMAGES.items():
        message = refusal(asked, circuit, query, x)
        assert said in message, name
        assert "expect" in message, name
        assert ("vqdistill.data.prepare(images)" in message) or name not in LEVELS_AS, name


@ANY_QUERY
def test_other_masks_get_one_line(circuit, query):
    kind, ask = QUERIES[query]
    for name, (mask, said) in BAD_MASKS.items() if kind != "none" else ():
        if kind != "masks":
            message = refusal(ask(circuit), X, mask)
            assert said in message, name
        elif name == "for other images":
            continue  # they are several masks
        elif isinstance(mask, torch.Tensor):
            message = refusal(getattr(circuit, query), X, mask[None])
        else:
            message = refusal(getattr(circuit, query), X, mask)
        assert "expect" in message, name
    if "none" not in kind:
        assert "mask: found none, expected bool" in refusal(getattr(circuit, query), X, None)


@ANY_QUERY
def test_hidden_pixels_may_hold_anything(circuit, query):
    """Their values are ignored, but for the joint in a conditional log-likelihood."""
    if QUERIES[query][0] == "none":
        return
    usual = parts(asked(circuit, query, X, HALF))
    for value in (math.nan, 1e9, math.inf):
        x = with_pixel(value, D - 1)
        if query == "conditional_log_prob":
            assert f"pixel of {value:g}" in refusal(asked, circuit, query, x, HALF)
        else:
            others = parts(asked(circuit, query, x, HALF))
            assert all(map(torch.equal, others, usual))
            assert all(part.isfinite().all() for part in others)


@ANY_QUERY
def test_missing_pixels_are_hidden_ones(circuit, query):
    """NaN under the mask 'finite' gives what the mask gives, to the bit; else it is refused."""
    if QUERIES[query][0] not in ("mask", "mask or none"):
        return
    missing = torch.rand(B, D, generator=seeded(3)) < 0.3
    x, ask = torch.where(missing, math.nan, X), QUERIES[query][1](circuit)
    if query == "conditional_log_prob":
        assert "pixel of nan" in refusal(ask, x, "finite")
        return
    found, expected = ask(x, "finite"), ask(X, ~missing)
    assert torch.equal(found, expected)
    assert torch.equal(ask(x.numpy(), "finite"), found)
    assert "pixel of nan" in refusal(ask, x, ~missing | True)
    assert "or 'finite' where missing pixels are NaN" in refusal(ask, x, "missing")


def test_probabilities_of_classes_are_a_distribution_or_one_line(circuit):
    if circuit.n_classes < 2:
        assert "class_log_prob: this model knows no classes" in refusal(circuit.class_log_prob, X)
        return
    for mask in MASKS.values():
        total = circuit.class_log_prob(X, mask).logsumexp(1)
        torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)
    all_of_it = circuit.class_log_prob(X, HALF | True)
    torch.testing.assert_close(circuit.class_log_prob(X), all_of_it, rtol=0, atol=1e-9)
    assert not torch.equal(all_of_it, circuit.class_log_prob(X, HALF & False))


def test_deviations_are_those_of_hidden_pixels(circuit):
    for mask in MASKS.values():
        stds = circuit.conditional_std(X, mask)
        assert (stds[mask.expand_as(X)] == 0).all()
        assert (stds[~mask.expand_as(X)] > 0).all()


def test_samples(circuit):
    """Of any number, float32; equal generators give equal ones, and none gives new ones."""
    for n in (0, 1, np.int64(2)):
        for leaf_means in (False, True):
            drawn = circuit.sample(n, leaf_means=leaf_means)
            assert drawn.shape == (n, D)
            assert drawn.dtype == torch.float32
    assert torch.equal(circuit.sample(2, seeded(3)), circuit.sample(2, seeded(3)))
    assert not torch.equal(circuit.sample(2), circuit.sample(2))
    hidden = HALF & False
    assert not torch.equal(*(circuit.conditional_sample(X, hidden) for _ in range(2)))
    assert not torch.equal(*(circuit.completions(X, hidden[None]).samples for _ in range(2)))
    for n in (-1, 1.5, "3", None, True):
        assert "n: found" in refusal(circuit.sample, n)
    for generator in (0, "seed", np.random.default_rng(0)):
        for ask in (circuit.sample, partial(circuit.conditional_sample, X, HALF)):
            arguments = (2, generator) if ask == circuit.sample else (generator,)
            assert "generator: found" in refusal(ask, *arguments)
    assert "generators: found 2, expected 1" in refusal(
        circuit.completions, X, HALF[None], [seeded(), seeded()]
    )
    assert "expected 1, one a mask" in refusal(circuit.completions, X, HALF[None], seeded())


def test_samples_and_points_of_integrals_are_answered(circuit):
    drawn = circuit.sample(1000, seeded())
    assert circuit.log_prob(drawn).isfinite().all()
    for value in (LOWEST, HIGHEST):
        assert circuit.log_prob(with_pixel(value)).isfinite().all()


def test_black_and_white_images_are_no_grey_levels(circuit):
    for x in (X.round(), torch.zeros(2, D), torch.ones(2, D)):
        assert circuit.log_prob(x).isfinite().all()


def test_prepared_images_are_what_is_expected(circuit):
    grey = torch.randint(LEVELS, (4, *SHAPE), dtype=torch.uint8, generator=seeded())
    for images in (grey, grey.numpy()):
        x = prepare(images, circuit.levels, seeded())
        assert circuit.log_prob(x).shape == (4,)
        assert circuit.conditional_mean(x, sides(HALF)).shape == x.shape


def test_bits_per_dimension(circuit):
    expected = -circuit.log_prob(X) / D / math.log(2) + math.log2(LEVELS)
    torch.testing.assert_close(circuit.bpd(X), expected, rtol=0, atol=1e-12)


def test_a_circuit_is_moved_as_a_whole(circuit):
    expected = circuit.log_prob(X)
    assert circuit.to("cpu") is circuit
    assert circuit.device == torch.device("cpu")
    assert torch.equal(circuit.log_prob(X), expected)


def test_a_circuit_that_knows_no_shape_takes_any_of_its_size():
    model = Mixture(*(getattr(mixture_of(3, D), n) for n in ("log_weights", "means", "log_stds")))
    expected = model.log_prob(X)
    for x, mask in ((sides(X), HALF), (X.reshape(B, 4, 16), HALF.reshape(2, 32))):
        assert torch.equal(model.log_prob(x), expected)
        assert torch.equal(model.log_prob(x, mask), model.log_prob(X, HALF))
    assert "levels" in refusal(model.bpd, X)
    model.levels = LEVELS
    grey = torch.zeros(B, *SHAPE, dtype=torch.uint8)
    assert torch.equal(model.log_prob_discrete(grey), model.log_prob_discrete(grey.flatten(1)))
    assert "expects [B, 64]" in refusal(model.log_prob, X[:, :-1])
