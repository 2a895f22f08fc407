"""What every circuit refuses to be asked."""

import math

import pytest
import torch

from vqdistill.baselines.gmm import GaussianMixture
from vqdistill.circuits.base import FARTHEST
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.mixture import (
    Mixture,
    StoredComponents,
    StreamedMixture,
    uniform_log_weights,
)
from vqdistill.circuits.region_graph import poon_domingos
from vqdistill.errors import InputError

D = 4


def parameters():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, D, generator=generator), -torch.ones(3, D)


CIRCUITS = {
    "mixture": lambda: Mixture(uniform_log_weights(3), *parameters()),
    "streamed": lambda: StreamedMixture(uniform_log_weights(3), StoredComponents(*parameters())),
    "einet": lambda: EiNet(poon_domingos((2, 2), 1), 2),
    "gmm": lambda: GaussianMixture(3, D),
}
QUERIES = {
    "log_prob": lambda circuit, x, mask: circuit.log_prob(x, mask),
    "conditional_log_prob": lambda circuit, x, mask: circuit.conditional_log_prob(x, mask),
    "conditional_mean": lambda circuit, x, mask: circuit.conditional_mean(x, mask),
    "conditional_mode": lambda circuit, x, mask: circuit.conditional_mode(x, mask),
    "conditional_sample": lambda circuit, x, mask: circuit.conditional_sample(
        x, mask, torch.Generator().manual_seed(0)
    ),
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
    "a mask for other images": (X, torch.ones(3, D, dtype=torch.bool), "mask of shape (3, 4)"),
    "a mask of numbers": (X, torch.ones(D), "torch.float32"),
    "a mask of integers": (X, torch.ones(D, dtype=torch.int64), "torch.int64"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_bad_images_and_masks_get_one_line(circuit, query, what):
    x, mask, said = BAD[what]
    with pytest.raises(InputError) as error:
        QUERIES[query](CIRCUITS[circuit](), x, mask)
    assert said in str(error.value)
    assert "expect" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("query", [query for query in QUERIES if query != "log_prob"])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_conditional_queries_need_a_mask(circuit, query):
    with pytest.raises(InputError, match="mask: found none, expected bool"):
        QUERIES[query](CIRCUITS[circuit](), X, None)


@pytest.mark.parametrize("query", [query for query in QUERIES if query != "conditional_log_prob"])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_hidden_pixels_may_hold_anything(circuit, query):
    """Their values are ignored, but for the joint in a conditional log-likelihood."""
    torch.manual_seed(0)
    model = CIRCUITS[circuit]()
    usual, *others = (
        QUERIES[query](model, with_pixel(value, 3), MASK) for value in (0.5, math.nan, 1e9)
    )
    assert usual.isfinite().all()
    assert all(torch.equal(other, usual) for other in others)


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_samples_and_points_of_integrals_are_answered(circuit):
    model = CIRCUITS[circuit]()
    drawn = model.sample(1000, torch.Generator().manual_seed(0))
    assert drawn.min() < 0
    assert drawn.max() > 1
    assert model.log_prob(drawn).isfinite().all()
    assert model.log_prob(with_pixel(FARTHEST)).isfinite().all()
    assert model.log_prob(X[:0]).shape == (0,)
