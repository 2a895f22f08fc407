"""What holds for any mask and any image, tried on many (hypothesis); fixed examples, no chance."""

import math

import numpy as np
import pytest
import torch
from helpers import (
    class_log_probs,
    einet_of,
    explicit,
    mixture_of,
    quad_tree_of,
    seeded,
    terms,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vqdistill.circuits.mixture import DecodedComponents, Mixture, StreamedMixture

B, D = 3, 16
ROUNDING = 1e-9
TRIED = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def streamed(mixture):
    decoded = DecodedComponents(
        mixture.components.parameters, mixture.n_components, D, torch.device("cpu")
    )
    return StreamedMixture(mixture.log_weights, decoded, mixture.log_classes)


CIRCUITS = {
    "mixture": mixture_of(24, D, 0.02, n_classes=3),
    "streamed": streamed(mixture_of(24, D, 0.02, n_classes=3)),
    "einet": einet_of((4, 4), 2, 2),
    "quad-tree": quad_tree_of((4, 4), 2, 2, 1),
}
ANY_CIRCUIT = pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)
FLAT = {name: CIRCUITS[name] for name in ("mixture", "streamed", "einet")}  # a tree has too many
ANY_FLAT = pytest.mark.parametrize("circuit", FLAT.values(), ids=FLAT)
OF_CLASSES = pytest.mark.parametrize("circuit", [FLAT["mixture"], FLAT["streamed"]])

pixels = st.floats(-0.5, 1.5, width=32)
images = arrays(np.float32, (B, D), elements=pixels).map(torch.from_numpy)
shapes = st.sampled_from([(D,), (B, D)])
masks = shapes.flatmap(lambda shape: arrays(bool, shape)).map(torch.from_numpy)


def close(found, expected, tolerance=ROUNDING):
    """Of log-likelihoods, relative to their size."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@ANY_FLAT
@TRIED
@given(x=images, observed=masks)
def test_marginal_and_conditional_are_those_of_the_flat_mixture(circuit, x, observed):
    """log p(x_o) and log p(x_u | x_o) = log Σ_n r_n(x_o) p_n(x_u), each computed by itself."""
    given_o, joint = terms(circuit, x, observed), terms(circuit, x)
    close(circuit.log_prob(x, observed), given_o.logsumexp(1))
    conditional = (given_o.log_softmax(1) + joint - given_o).logsumexp(1)
    # each part is as exact as the joint, which may be much larger than their difference
    scale = 1e-12 * joint.logsumexp(1).abs().max().item()
    torch.testing.assert_close(
        circuit.conditional_log_prob(x, observed), conditional, rtol=ROUNDING, atol=ROUNDING + scale
    )


@OF_CLASSES
@TRIED
@given(x=images, observed=masks)
def test_classes_are_those_of_the_flat_mixture(circuit, x, observed):
    close(circuit.class_log_prob(x, observed), class_log_probs(circuit, x, observed))


@ANY_FLAT
@TRIED
@given(x=images, observed=masks)
def test_deviations_are_those_of_the_flat_mixture(circuit, x, observed):
    """√(E[(x − E[x])²]) of each hidden pixel, component by component; 0 of observed ones."""
    shares, (_, means, stds) = terms(circuit, x, observed).softmax(1), explicit(circuit)
    squares = (means - (shares @ means)[:, None]).square() + stds.square()  # [B, N, D]
    expected = (shares[..., None] * squares).sum(1).sqrt()
    found = circuit.conditional_std(x.double(), observed)
    close(found, torch.where(observed, 0.0, expected))


@ANY_CIRCUIT
@TRIED
@given(x=images, observed=masks)
def test_marginal_and_conditional_make_the_joint(circuit, x, observed):
    found = circuit.log_prob(x, observed) + circuit.conditional_log_prob(x, observed)
    close(found, circuit.log_prob(x))


@ANY_CIRCUIT
@TRIED
@given(x=images, observed=arrays(bool, (D,)).map(torch.from_numpy), data=st.data())
def test_hiding_one_more_pixel_integrates_it_out(circuit, x, observed, data):
    """∫ p(x_o) dx_j = p(x_o without j), by the trapezoid rule."""
    j = data.draw(st.integers(0, D - 1))
    observed[j] = True
    less = observed.clone()
    less[j] = False
    line = torch.arange(-3, 4, 0.01, dtype=torch.float64)
    points = x[:1].double().expand(len(line), D).clone()
    points[:, j] = line
    integral = circuit.log_prob(points, observed).logsumexp(0) + math.log(0.01)
    close(integral[None], circuit.log_prob(x[:1].double(), less), 1e-6)


@ANY_CIRCUIT
@TRIED
@given(x=images, observed=masks, noise=st.sampled_from([math.nan, math.inf, -1e30, 0.25]))
def test_hidden_values_never_matter(circuit, x, observed, noise):
    other = torch.where(observed, x, noise)
    queries = ["log_prob", "conditional_mean", "conditional_std", "conditional_mode"]
    for query in queries + ["class_log_prob"] * (circuit.n_classes > 1):
        ask = getattr(circuit, query)
        assert torch.equal(ask(x, observed), ask(other, observed)), query
    drawn = [circuit.conditional_sample(images, observed, seeded()) for images in (x, other)]
    assert torch.equal(*drawn)


@ANY_CIRCUIT
@TRIED
@given(x=images, observed=masks)
def test_completions_keep_what_is_observed_and_are_finite(circuit, x, observed):
    completions = [
        circuit.conditional_mean(x, observed),
        circuit.conditional_mode(x, observed),
        circuit.conditional_sample(x, observed, seeded()),
        circuit.conditional_sample(x, observed, seeded(), leaf_means=True),
    ]
    for completed in completions:
        assert completed.shape == x.shape
        assert completed.isfinite().all()
        assert torch.equal(torch.where(observed, completed, 0), torch.where(observed, x, 0))


@ANY_CIRCUIT
@TRIED
@given(x=images, observed=arrays(bool, (D,)).map(torch.from_numpy))
def test_one_mask_for_all_is_the_same_mask_for_each(circuit, x, observed):
    each = observed.expand(B, D).contiguous()
    close(circuit.log_prob(x, observed), circuit.log_prob(x, each))
    mean, same = circuit.conditional_mean(x, observed), circuit.conditional_mean(x, each)
    torch.testing.assert_close(mean, same, rtol=0, atol=1e-6)
    std, same = circuit.conditional_std(x, observed), circuit.conditional_std(x, each)
    torch.testing.assert_close(std, same, rtol=0, atol=1e-6)
    if circuit.n_classes > 1:
        close(circuit.class_log_prob(x, observed), circuit.class_log_prob(x, each))


@ANY_CIRCUIT
@TRIED
@given(x=images, observed=masks)
def test_images_do_not_depend_on_their_batch(circuit, x, observed):
    together = circuit.log_prob(x, observed)
    rows = observed.expand(B, D)
    alone = [circuit.log_prob(x[b : b + 1], rows[b : b + 1]) for b in range(B)]
    close(together, torch.cat(alone))


@TRIED
@given(x=images, observed=masks, order=st.permutations(range(24)))
def test_the_order_of_components_is_no_matter(x, observed, order):
    mixture = CIRCUITS["mixture"]
    parameters = mixture.log_weights[order], mixture.means[order], mixture.log_stds[order]
    other = Mixture(*parameters)
    close(other.log_prob(x, observed), mixture.log_prob(x, observed))
    mean, same = (circuit.conditional_mean(x, observed) for circuit in (other, mixture))
    torch.testing.assert_close(mean, same, rtol=0, atol=1e-6)
