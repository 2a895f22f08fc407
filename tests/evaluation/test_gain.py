"""A gain taken apart: parts that sum to the whole, and products over blocks done by hand."""

import pytest
import torch
from helpers import mixture_of, seeded

from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.data import bits_per_dimension
from vqdistill.evaluation import gain
from vqdistill.evaluation.evaluated_models import EvaluatedModels

SHAPE = (4, 5)
D = 20


class Decoder:
    """A VQ-VAE whose σ is 0.02 in the upper half of an image, and 0.2 in the lower."""

    image_shape = SHAPE

    def encode(self, x):
        return torch.zeros(len(x), 1, 1, dtype=torch.int64)

    def decode(self, codes):
        stds = torch.tensor([0.02, 0.2]).repeat_interleave(D // 2).expand(len(codes), D)
        return torch.zeros_like(stds), stds.log()


@pytest.fixture(scope="module")
def circuits():
    mixture = mixture_of(70, D)  # more than one chunk
    torch.manual_seed(0)
    tree = QuadTree(SHAPE, 3)
    flat = {"sizes": (70,), "log_weights": {"uniform": mixture.log_weights}}
    return [EvaluatedModels("dmrs", mixture, **flat), EvaluatedModels("deep", tree, size=3)]


@pytest.fixture(scope="module")
def x():
    levels = torch.randint(0, 256, (12, D), generator=seeded(0))
    levels[:, ::3], levels[:, 1::4] = 0, 255
    return (levels + torch.rand(12, D, generator=seeded(1))) / 256


@pytest.fixture(scope="module")
def found(circuits, x):
    return gain.gain(circuits, Decoder(), x, 256)


def of(rows, method):
    return [row for row in rows if row["method"] == method]


def test_marginals_of_a_mixture_are_its_own(circuits, x):
    masks = torch.rand(9, D, generator=seeded(2)) < 0.5
    masks[0] = False
    for models in circuits:
        found = gain.log_marginals(models.circuit, x, masks)
        torch.testing.assert_close(found, models.circuit.marginals(x, masks), rtol=1e-9, atol=1e-9)


def test_parts_sum_to_the_bits_of_the_whole(circuits, x, found):
    for models in circuits:
        log_prob = models.circuit.log_prob(x).mean().item()
        whole = pytest.approx(bits_per_dimension(log_prob, D, 256), rel=1e-9)
        assert of(found.blocks, models.method)[-1]["bpd"] == whole
        assert sum(row["bpd"] for row in of(found.pixels, models.method)) == whole
        bits = [row["bits"] for row in of(found.places, models.method)]  # of single pixels here
        assert sum(bits) / D == whole


def test_places_are_squares():
    bits = torch.arange(14 * 16.0).expand(3, -1)
    rows = [*gain.place_rows(bits, (14, 16))]
    assert len(rows) == 7 * 8
    assert rows[9] == {"row": 2, "column": 2, "bits": sum((34, 35, 50, 51)) / 4}


def test_blocks_are_explained_for_themselves(circuits, x, found):
    mixture = circuits[0].circuit
    total = torch.zeros(len(x), dtype=torch.float64)
    for rows in ((0, 1), (2, 3)):
        for columns in ((0, 1), (2, 3), (4,)):
            block = torch.zeros(SHAPE, dtype=torch.bool)
            block[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
            total += mixture.log_prob(x, block.flatten())
    rows = {row["block"]: row["bpd"] for row in of(found.blocks, "dmrs")}
    assert [*rows] == [1, 2, 4, 8]
    assert rows[2] == pytest.approx(bits_per_dimension(total.mean().item(), D, 256), rel=1e-9)


def test_kinds_of_pixels_are_those_of_the_decoder_and_of_grey_levels(x, found):
    rows = {(row["sigma"], row["grey"]): row["share"] for row in of(found.pixels, "deep")}
    assert {sigma for sigma, _ in rows} == {0.01, 0.1}
    assert sum(rows.values()) == pytest.approx(1)
    black = (x < 1 / 256).float()
    assert rows[0.01, "black"] == pytest.approx(black[:, : D // 2].sum().item() / x.numel())
    assert rows[0.1, "black"] == pytest.approx(black[:, D // 2 :].sum().item() / x.numel())


def test_without_a_deep_circuit_there_are_no_rows(circuits, x):
    assert gain.gain(circuits[:1], Decoder(), x, 256) == ([], [], [])
