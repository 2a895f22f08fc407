"""What every circuit refuses to be asked."""

import math
from functools import partial

import pytest
import torch
from helpers import einet_of, mixture_of, refusal, seeded

from vqdistill.baselines.gmm import GaussianMixture
from vqdistill.circuits.base import FARTHEST
from vqdistill.circuits.mixture import StreamedMixture, uniform_log_weights

D = 4


CIRCUITS = {
    "mixture": lambda: mixture_of(3, D),
    "streamed": lambda: StreamedMixture(uniform_log_weights(3), mixture_of(3, D).components),
    "einet": lambda: einet_of((2, 2), 2),
    "gmm": lambda: GaussianMixture(3, D),
}
QUERIES = {
    "log_prob": lambda circuit: circuit.log_prob,
    "conditional_log_prob": lambda circuit: circuit.conditional_log_prob,
    "conditional_mean": lambda circuit: circuit.conditional_mean,
    "conditional_mode": lambda circuit: circuit.conditional_mode,
    "conditional_sample": lambda circuit: partial(circuit.conditional_sample, generator=seeded()),
}
X = torch.full((2, D), 0.5)
MASK = torch.arange(D) < 2


def with_pixel(value, pixel=0):
    return X.index_fill(1, torch.tensor([pixel]), value)


BAD = {  # images, mask, and what is said of them
    "images of another size": (torch.rand(2, D + 1), MASK, f"expects [B, {D}]"),
    "an image without a batch": (torch.rand(D), MASK, f"expects [B, {D}]"),
    "images with sides": (torch.rand(2, 2, 2), MASK, f"expects [B, {D}]"),
    "grey levels": (torch.full((2, D), 7, dtype=torch.uint8), MASK, "torch.uint8"),
    "grey levels as floats": (with_pixel(255.0), MASK, "pixel of 255: expected numbers in [0, 1)"),
    "a pixel far below": (with_pixel(-100.0), MASK, "pixel of -100"),
    "a pixel that is no number": (with_pixel(math.nan), MASK, "pixel of nan"),
    "an infinite pixel": (with_pixel(math.inf), MASK, "pixel of inf"),
    "a mask of another size": (X, torch.ones(D + 1, dtype=torch.bool), "mask of shape (5,)"),
    "a mask for one image": (X, torch.ones(1, D, dtype=torch.bool), "mask of shape (1, 4)"),
    "a mask for other images": (X, torch.ones(3, D, dtype=torch.bool), "mask of shape (3, 4)"),
    "a mask of numbers": (X, torch.ones(D), "torch.float32"),
    "a mask of integers": (X, torch.ones(D, dtype=torch.int64), "torch.int64"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_bad_images_and_masks_get_one_line(circuit, query, what):
    x, mask, said = BAD[what]
    message = refusal(QUERIES[query](CIRCUITS[circuit]()), x, mask)
    assert said in message
    assert "expect" in message


@pytest.mark.parametrize("query", [query for query in QUERIES if query != "log_prob"])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_conditional_queries_need_a_mask(circuit, query):
    said = refusal(QUERIES[query](CIRCUITS[circuit]()), X, None)
    assert "mask: found none, expected bool" in said


@pytest.mark.parametrize("query", [query for query in QUERIES if query != "conditional_log_prob"])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_hidden_pixels_may_hold_anything(circuit, query):
    """Their values are ignored, but for the joint in a conditional log-likelihood."""
    torch.manual_seed(0)
    model = CIRCUITS[circuit]()
    images = [with_pixel(value, 3) for value in (0.5, math.nan, 1e9)]
    usual, *others = (QUERIES[query](model)(x, MASK) for x in images)
    assert usual.isfinite().all()
    assert all(torch.equal(other, usual) for other in others)


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_samples_and_points_of_integrals_are_answered(circuit):
    model = CIRCUITS[circuit]()
    drawn = model.sample(1000, seeded())
    assert drawn.min() < 0
    assert drawn.max() > 1
    assert model.log_prob(drawn).isfinite().all()
    assert model.log_prob(with_pixel(FARTHEST)).isfinite().all()
    assert model.log_prob(X[:0]).shape == (0,)
