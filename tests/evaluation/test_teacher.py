"""The teacher's own figures against explicit formulas."""

import math

import pytest
import torch
from helpers import TabularPrior, mixture_of, seeded, terms

from vqdistill.circuits.mixture import Mixture
from vqdistill.evaluation.evaluated_models import distilled_models, exact_models
from vqdistill.evaluation.teacher import (
    bound_rows,
    code_frequencies,
    partial_sum_bound,
    teacher_row,
)

D = 8


def part_of(exact, index):
    """The selected components, weighted by the prior, and their log p(z)."""
    log_prior = exact.log_weights[index]
    weights = log_prior.log_softmax(0)
    return Mixture(weights, exact.means[index], exact.log_stds[index]), log_prior


@pytest.fixture
def x():
    return torch.rand(20, D, generator=seeded(1))


# partial sums


@pytest.mark.parametrize("n", [1, 2, 7, 15])
def test_partial_sums_stay_below_the_whole(x, n):
    exact = mixture_of(16, D)
    index = torch.randperm(16, generator=seeded(n))[:n]
    mixture, log_prior = part_of(exact, index)
    found = partial_sum_bound(exact.log_prob(x), mixture.log_prob(x), log_prior)
    joint = terms(exact, x)  # [B, 16]
    difference = joint[:, index].logsumexp(1) - joint.logsumexp(1)
    assert found["largest_violation"] <= 1e-12
    assert found["largest_violation"] == pytest.approx(difference.max().item(), abs=1e-9)
    assert found["mean_gap"] == pytest.approx(-difference.mean().item(), abs=1e-9)
    assert found["n_images"] == 20
    assert found["gap_q50"] == pytest.approx(-difference.sort(descending=True)[0][9].item())
    assert found["gap_q100"] == pytest.approx(-difference.min().item())


def test_equal_sums_have_no_gap(x):
    exact = mixture_of(16, D)
    order = torch.randperm(16, generator=seeded(3))
    mixture, log_prior = part_of(exact, order)
    found = partial_sum_bound(exact.log_prob(x), mixture.log_prob(x), log_prior)
    assert abs(found["largest_violation"]) < 1e-9
    assert abs(found["mean_gap"]) < 1e-9


def test_a_sum_that_is_too_large_is_seen(x):
    """The bound is a check: a prior that is wrong by 1 % must show as a violation."""
    exact = mixture_of(16, D)
    mixture, log_prior = part_of(exact, torch.arange(16))
    found = partial_sum_bound(exact.log_prob(x), mixture.log_prob(x), log_prior + math.log(1.01))
    assert found["largest_violation"] == pytest.approx(math.log(1.01), abs=1e-9)
    assert found["mean_gap"] == pytest.approx(-math.log(1.01), abs=1e-9)


def test_rows_of_bounds_compare_all_selections_with_the_exact_model(x):
    exact = mixture_of(16, D)
    part, log_prior = part_of(exact, torch.arange(7))
    circuits = [
        *distilled_models("dmrs", {7: part}, [3, 7], {7: log_prior}),
        exact_models(exact),
    ]
    test = [list(models.log_probs(x)) for models in circuits]
    rows = list(bound_rows(circuits, test))
    assert [(row["method"], row["n_components"]) for row in rows] == [("dmrs", 3), ("dmrs", 7)]
    expected = partial_sum_bound(exact.log_prob(x), part.log_prob(x), log_prior)
    assert rows[1]["mean_gap"] == pytest.approx(expected["mean_gap"], rel=1e-9)
    assert list(bound_rows(circuits[:1], test[:1])) == []


# codebook


def test_frequencies_are_sorted_shares():
    found = code_frequencies(torch.tensor([2, 2, 0, 2, 1, 0, 2, 2]).view(2, 2, 2), 5)
    assert found.tolist() == pytest.approx([5 / 8, 2 / 8, 1 / 8, 0, 0])


# teacher_row


class HandMadeVQVAE:
    """Code: whether a half is bright. Mean: 1/4 or 3/4 of the half; σ = 1/2."""

    def encode(self, x):
        halves = x.unflatten(1, (2, D // 2)).mean(2)
        return (halves > 0.5).long()[:, None]  # [B, 1, 2]

    def decode(self, codes):
        means = (0.25 + 0.5 * codes[:, 0]).float().repeat_interleave(D // 2, 1)
        return means, torch.full_like(means, math.log(0.5))


PRIOR = TabularPrior(2, (1, 2), 3, scale=2.0)


def test_teacher_row(x):
    found = teacher_row(HandMadeVQVAE(), PRIOR, x, 256)
    of_codes = PRIOR.joint().sum(1).log().tolist()
    reconstruction, code = 0.0, 0.0
    for image in x.double().tolist():
        bright = [sum(image[:4]) / 4 > 0.5, sum(image[4:]) / 4 > 0.5]
        for d, value in enumerate(image):
            mean = 0.75 if bright[d // 4] else 0.25
            density = math.exp(-2 * (value - mean) ** 2) / (0.5 * math.sqrt(2 * math.pi))
            reconstruction += math.log(density) / len(x)
        code += of_codes[2 * bright[0] + bright[1]] / len(x)
    assert found["n_images"] == 20
    assert found["code_log_prob"] == pytest.approx(code, rel=1e-9)
    bits = D * math.log(2)
    assert found["reconstruction_bpd"] == pytest.approx(-reconstruction / bits + 8, rel=1e-7)
    assert found["joint_bpd"] == pytest.approx(-(reconstruction + code) / bits + 8, rel=1e-7)


def test_the_joint_is_an_upper_bound_of_the_exact_model(x):
    """log p(x, z(x)) is one term of log Σ_z p(z) p(x|z)."""
    vqvae = HandMadeVQVAE()
    exact = Mixture(PRIOR.joint().sum(1).log(), *vqvae.decode(PRIOR.every_latent()))
    bpd = -exact.log_prob(x).mean().item() / (D * math.log(2)) + 8
    found = teacher_row(vqvae, PRIOR, x, 256)
    assert bpd < found["joint_bpd"]
    assert found["reconstruction_bpd"] < found["joint_bpd"]
