"""The exact model's one pass: the same numbers as queries one by one, and to be interrupted."""

import pytest
import torch
from helpers import mixture_of, seeded

from vqdistill.data import Images
from vqdistill.evaluation import exact
from vqdistill.evaluation.evaluated_models import exact_models
from vqdistill.evaluation.likelihoods import likelihoods

SHAPE, D = (4, 4), 16


@pytest.fixture
def models(monkeypatch):
    monkeypatch.setattr(exact, "PART", 64)
    mixture = mixture_of(500, D, 0.05)
    mixture.levels = 17
    return exact_models(mixture, grid="2x2", codebook_size=5)


@pytest.fixture
def images():
    g, none = seeded(1), torch.zeros(0)
    evaluated = {name: torch.rand(n, D, generator=g) for name, n in (("test", 30), ("train", 20))}
    return Images("digits", "-", 17, SHAPE, none, none, evaluated, {})


@pytest.fixture
def masks():
    return torch.rand(3, D, generator=seeded(2)) < 0.5


def values(found):
    """All log-likelihoods, by what they are of."""
    named = {
        (kind, split, *model[:2]): model[2]
        for kind in ("splits", "discrete")
        for split, of_models in getattr(found, kind).items()
        for model in of_models
    }
    return named | {("marginals", n): log_prob for n, log_prob in found.marginals.items()}


def check_equal(one, other, tolerance):
    one, other = values(one), values(other)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=str(name))


def test_one_pass_gives_what_single_queries_give(models, images, masks):
    expected = likelihoods(models, images, masks, {500})
    check_equal(exact.exact_likelihoods(models, images, masks), expected, 1e-9)
    assert values(expected)["marginals", 500].shape == (4, 30)


class Killed(Exception):
    pass


def interrupted(models, images, masks, checkpoint, after):
    """A pass that ends when it asks for the components of a part."""
    parameters, asked = models.circuit.components.parameters, []

    def of_part(part):
        asked.append(part)
        if len(asked) > after:
            raise Killed
        return parameters(part)

    models.circuit.components.parameters = of_part
    try:
        with pytest.raises(Killed):
            exact.exact_likelihoods(models, images, masks, checkpoint)
    finally:
        models.circuit.components.parameters = parameters


def test_a_pass_goes_on_to_the_bit(models, images, masks, tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "EVERY", -1.0)
    whole = exact.exact_likelihoods(models, images, masks)
    checkpoint = exact.Checkpoint(tmp_path / "sums.safetensors", "key")
    interrupted(models, images, masks, checkpoint, after=3)
    read = []
    parameters = models.circuit.components.parameters
    models.circuit.components.parameters = lambda part: read.append(part) or parameters(part)
    check_equal(exact.exact_likelihoods(models, images, masks, checkpoint), whole, 0)
    assert read[0] == slice(192, 256)


@pytest.mark.parametrize("spoil", ["damaged", "other"])
def test_sums_that_do_not_belong_here_are_left(models, images, masks, tmp_path, monkeypatch, spoil):
    monkeypatch.setattr(exact, "EVERY", -1.0)
    whole = exact.exact_likelihoods(models, images, masks)
    path = tmp_path / "sums.safetensors"
    interrupted(models, images, masks, exact.Checkpoint(path, "key"), after=3)
    if spoil == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    key = "another" if spoil == "other" else "key"
    again = exact.exact_likelihoods(models, images, masks, exact.Checkpoint(path, key))
    check_equal(again, whole, 0)
