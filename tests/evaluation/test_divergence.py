"""KL from a teacher: exact where it is, and a bracket around it elsewhere."""

import pytest
import torch
from helpers import TabularPrior, seeded

from vqdistill.circuits.mixture import Mixture
from vqdistill.data import bits_per_dimension
from vqdistill.evaluation import divergence
from vqdistill.evaluation.evaluated_models import EvaluatedModels

PRIOR = TabularPrior(4, (2, 2), 3)


class Decoder:
    """Means that tell the 256 latents apart, but not by much."""

    def decode(self, codes):
        means = torch.cat([codes.flatten(1) / 8, (3 - codes.flatten(1)) / 8], 1)
        return means, torch.full_like(means, 0.2).log()


def teacher():
    codes = PRIOR.every_latent()
    log_prior = PRIOR.joint().sum(1).log()
    return Mixture(log_prior, *Decoder().decode(codes))


def density(exact, n_fresh=500):
    return divergence.teacher_density(Decoder(), PRIOR, exact, seeded(3), n_fresh)


def test_a_bracket_holds_the_exact_log_likelihood():
    exact = teacher()
    found = density(None)
    log_prob = exact.log_prob(found.x)
    assert found.low.mean() < log_prob.mean() < found.high.mean()
    wide, narrow = (d.high.mean() - d.low.mean() for d in (density(None, 20), found))
    assert narrow < wide / 4
    known = density(exact)
    assert torch.equal(known.x, found.x)
    torch.testing.assert_close(known.low, log_prob)


def test_divergence_is_zero_of_the_teacher_and_that_of_gaussians_of_others():
    exact = teacher()
    broad = Mixture(exact.log_weights, exact.means, exact.log_stds + 0.3)
    rows = [
        row
        for circuit in (exact, broad)
        for row in divergence.divergence_rows(
            [EvaluatedModels("exm", circuit)], density(exact), 256
        )
    ]
    assert rows[0]["kl_low"] == rows[0]["kl_high"] == pytest.approx(0, abs=1e-12)
    x = density(exact).x
    gap = (exact.log_prob(x) - broad.log_prob(x)).mean().item()
    expected = bits_per_dimension(-gap, 8, 1)
    assert rows[1]["kl_low"] == pytest.approx(expected, rel=1e-6)
    assert expected > 0.05
