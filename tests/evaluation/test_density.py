"""Rows of density.csv against direct computation, and which models a circuit holds."""

import math

import pytest
import torch
from helpers import einet_of, mixture_of, seeded, terms

from vqdistill.circuits.grey_levels import log_mass
from vqdistill.circuits.mixture import Mixture, uniform_log_weights
from vqdistill.data import Images, to_images
from vqdistill.evaluation import density
from vqdistill.evaluation.density import bits, density_rows, log_probs_discrete
from vqdistill.evaluation.evaluated_models import EvaluatedModels, distilled_models, exact_models

D, LEVELS = 16, 17
SIZES = [1, 3, 8]


def log_prior_of(n=8, seed=5):
    """log p(z) of some of many latents: they sum to much less than one."""
    return torch.randn(n, generator=seeded(seed)).double() * 2 - 9


@pytest.fixture
def evaluated():
    g = seeded(1)
    return {split: torch.rand(n, D, generator=g) for split, n in (("test", 7), ("train", 4))}


def direct(model, weights, x):
    """log Σ_n w_n Π_d N(x_d; μ_nd, σ_nd) in float64."""
    return (terms(model, x) - model.log_weights + weights.log_softmax(0)).logsumexp(1)


def images_of(evaluated):
    nothing = torch.zeros(0)
    return Images("digits", "-", LEVELS, (4, 4), nothing, nothing, evaluated, {})


def rows_of(models, evaluated):
    models.circuit.levels = LEVELS
    discrete = log_probs_discrete(models, images_of(evaluated))
    return [
        row
        for split, x in evaluated.items()
        for row in density_rows(models, models.log_probs(x), discrete[split], split, LEVELS)
    ]


def direct_of_levels(model, weights, x):
    """log Σ_n w_n Π_d P(v_d) of the grey levels of x, component by component."""
    means, stds = model.means.double(), model.log_stds.double().exp()
    masses = log_mass(torch.from_numpy(to_images(x, LEVELS))[:, None], LEVELS, means, stds)
    return (masses.sum(2) + weights.log_softmax(0)).logsumexp(1)


def check_discrete(row, log_prob):
    mean = log_prob.mean().item()
    assert row["n_images_discrete"] == len(log_prob)
    assert row["log_prob_discrete"] == pytest.approx(mean, rel=1e-10)
    assert row["bpd_discrete"] == pytest.approx(-mean / (D * math.log(2)), rel=1e-10)
    worst = -log_prob.min().item() / (D * math.log(2))
    assert row["bpd_discrete_q100"] == pytest.approx(worst, rel=1e-10)


def check_row(row, log_prob, n_parameters):
    mean = log_prob.mean().item()
    assert row["log_likelihood"] == pytest.approx(mean, rel=1e-10)
    assert row["bpd"] == pytest.approx(-mean / (D * math.log(2)) + math.log2(LEVELS), rel=1e-10)
    assert row["n_images"] == len(log_prob)
    assert row["n_parameters"] == n_parameters
    assert type(row["bpd"]) is float


def test_rows_of_a_nested_selection(evaluated):
    full, log_prior = mixture_of(8, D, uniform=True), log_prior_of()
    (models,) = distilled_models(
        "dmrs", {8: full}, SIZES, {8: log_prior}, grid="2x2", codebook_size=5
    )
    rows = rows_of(models, evaluated)
    assert len(rows) == 2 * 3 * 2
    keys = ("method", "grid", "codebook_size", "size")
    assert {tuple(row[k] for k in keys) for row in rows} == {("dmrs", "2x2", 5, 0)}
    by_key = {(row["split"], row["n_components"], row["weights"]): row for row in rows}
    for split, x in evaluated.items():
        for n in SIZES:
            first = full.first(n)
            for name, weights in (("uniform", torch.zeros(n).double()), ("prior", log_prior[:n])):
                row = by_key[split, n, name]
                check_row(row, direct(first, weights, x), n * 2 * D + n - 1)
                check_discrete(row, direct_of_levels(first, weights, x))


def test_rows_of_a_selection_that_does_not_nest(evaluated):
    mixtures = {n: mixture_of(n, D, uniform=True) for n in SIZES}
    log_priors = {n: log_prior_of(n, seed=n) for n in SIZES}
    circuits = distilled_models("dmbs", mixtures, SIZES, log_priors)
    assert [models.sizes for models in circuits] == [(1,), (3,), (8,)]
    for models, n in zip(circuits, SIZES, strict=True):
        assert models.model(n) is mixtures[n]
        assert torch.equal(models.log_prior, log_priors[n])
        rows = rows_of(models, evaluated)
        assert [(row["n_components"], row["weights"]) for row in rows] == [
            (n, "uniform"), (n, "prior")
        ] * 2  # fmt: skip
        x = evaluated["test"]
        check_row(rows[0], direct(mixtures[n], torch.zeros(n).double(), x), n * 2 * D + n - 1)
        check_row(rows[1], direct(mixtures[n], log_priors[n], x), n * 2 * D + n - 1)
        check_discrete(rows[1], direct_of_levels(mixtures[n], log_priors[n], x))


@pytest.mark.parametrize("worst", [-1e6, -math.inf])
def test_quantiles_are_those_of_single_images(worst):
    """One image of a hundred decides the mean, and neither the median nor the 95 % quantile."""
    log_prob = torch.cat([torch.arange(99.0), torch.tensor([worst])]).double()
    found = bits("bpd", log_prob, D, LEVELS)
    of_image = [-nats / (D * math.log(2)) + math.log2(LEVELS) for nats in (94.0, 49.0, 4.0, worst)]
    expected = dict(zip(("bpd_q05", "bpd_q50", "bpd_q95", "bpd_q100"), of_image, strict=True))
    mean = -log_prob.mean().item() / (D * math.log(2)) + math.log2(LEVELS)
    assert found == pytest.approx({"bpd": mean, **expected})


def test_rows_of_the_exact_model(evaluated):
    log_prior = log_prior_of().log_softmax(0)
    full = mixture_of(8, D, uniform=True)
    exact = Mixture(log_prior, full.means, full.log_stds)
    models = exact_models(exact, grid="1x3", codebook_size=2)
    assert models.main_weights == "prior"
    rows = rows_of(models, {"test": evaluated["test"]})
    assert [(row["n_components"], row["weights"]) for row in rows] == [(8, "prior"), (8, "uniform")]
    check_row(rows[0], direct(full, log_prior, evaluated["test"]), 8 * 2 * D + 7)
    check_row(rows[1], direct(full, torch.zeros(8).double(), evaluated["test"]), 8 * 2 * D + 7)
    assert models.model(8) is exact


def test_rows_of_a_circuit_that_is_no_mixture(evaluated):
    circuit = einet_of((4, 4), 2, 2)
    models = EvaluatedModels("einet", circuit, size=2)
    assert models.main_weights == "learned"
    assert models.model(0) is circuit
    rows = rows_of(models, evaluated)
    assert [row["split"] for row in rows] == ["test", "train"]
    for row in rows:
        found = [row[k] for k in ("method", "grid", "codebook_size", "size", "n_components")]
        assert found == ["einet", "-", 0, 2, 0]
        assert row["weights"] == "learned"
        x = evaluated[row["split"]]
        check_row(row, circuit.log_prob(x), circuit.n_parameters)
        check_discrete(row, circuit.log_prob_discrete(to_images(x, LEVELS)))


def test_grey_levels_of_few_images_where_models_are_large_or_splits_many(monkeypatch, evaluated):
    """The first images of all splits but the test images, and of those too beyond many
    components."""
    monkeypatch.setattr(density, "FEW", 3)
    monkeypatch.setattr(density, "MANY", 7)
    uniform = torch.zeros(8).double()
    for n, of_test in ((7, 7), (8, 3)):
        mixture = mixture_of(n, D, uniform=True)
        (models,) = distilled_models("dmrs", {n: mixture}, [n], {n: uniform[:n]})
        models.circuit.levels = LEVELS
        found = log_probs_discrete(models, images_of(evaluated))
        for split, expected in (("test", of_test), ("train", 3)):
            x = evaluated[split][:expected]
            (_, _, log_prob), _ = found[split]
            assert len(log_prob) == expected
            direct = direct_of_levels(models.circuit, uniform[:n], x)
            torch.testing.assert_close(log_prob, direct, rtol=1e-10, atol=1e-10)


def test_a_model_is_the_first_components():
    full = mixture_of(8, D, uniform=True)
    (models,) = distilled_models("dmrs", {8: full}, SIZES, {8: log_prior_of()})
    assert models.main_weights == "uniform"
    assert models.model(8) is full
    small = models.model(3)
    assert torch.equal(small.means, full.means[:3])
    torch.testing.assert_close(small.log_weights, uniform_log_weights(3))
