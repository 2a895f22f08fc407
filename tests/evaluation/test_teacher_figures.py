"""The teacher's own figures against explicit formulas."""

import math

import pytest
import torch

from vqdistill.circuits.mixture import Mixture
from vqdistill.evaluation import teacher
from vqdistill.evaluation.codebook import code_frequency, codebook_usage
from vqdistill.evaluation.teacher import partial_sum_excess, teacher_row

D = 8


def exact_model(n=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    weights = (2 * torch.randn(n, generator=g)).double().log_softmax(0)
    return Mixture(weights, torch.rand(n, D, generator=g), -2 * torch.rand(n, D, generator=g))


def part_of(exact, index):
    """The selected components, weighted by the prior, and their log p(z)."""
    log_prior = exact.log_weights[index]
    weights = log_prior.log_softmax(0)
    return Mixture(weights, exact.means[index], exact.log_stds[index]), log_prior


@pytest.fixture
def x():
    return torch.rand(20, D, generator=torch.Generator().manual_seed(1))


# partial sums


@pytest.mark.parametrize("n", [1, 2, 7, 15])
def test_partial_sums_stay_below_the_whole(x, n):
    exact = exact_model()
    index = torch.randperm(16, generator=torch.Generator().manual_seed(n))[:n]
    mixture, log_prior = part_of(exact, index)
    found = partial_sum_excess(exact.log_prob(x), mixture.log_prob(x), log_prior)
    leaves = torch.distributions.Normal(exact.means.double(), exact.log_stds.double().exp())
    joint = leaves.log_prob(x.double()[:, None]).sum(-1) + exact.log_weights  # [B, 16]
    difference = joint[:, index].logsumexp(1) - joint.logsumexp(1)
    assert found["largest_excess"] <= 1e-12
    assert found["largest_excess"] == pytest.approx(difference.max().item(), abs=1e-9)
    assert found["mean_gap"] == pytest.approx(-difference.mean().item(), abs=1e-9)
    assert found["n_images"] == 20


def test_equal_sums_have_no_gap(x):
    exact = exact_model()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    mixture, log_prior = part_of(exact, order)
    found = partial_sum_excess(exact.log_prob(x), mixture.log_prob(x), log_prior)
    assert abs(found["largest_excess"]) < 1e-9
    assert abs(found["mean_gap"]) < 1e-9


def test_a_sum_that_is_too_large_is_seen(x):
    """The bound is a check: a prior that is wrong by 1 % must show as an excess."""
    exact = exact_model()
    mixture, log_prior = part_of(exact, torch.arange(16))
    found = partial_sum_excess(exact.log_prob(x), mixture.log_prob(x), log_prior + math.log(1.01))
    assert found["largest_excess"] == pytest.approx(math.log(1.01), abs=1e-9)
    assert found["mean_gap"] == pytest.approx(-math.log(1.01), abs=1e-9)


# codebook


def test_usage_and_perplexity_by_hand():
    codes = torch.tensor([0, 0, 0, 0, 1, 1, 5, 7]).view(2, 2, 2)
    found = codebook_usage(codes, 10)
    assert found["codebook_usage"] == pytest.approx(0.4)
    # entropy 1/2 · 1 + 1/4 · 2 + 2 · 1/8 · 3 = 1.75 bits
    assert found["perplexity"] == pytest.approx(2**1.75)


@pytest.mark.parametrize(("codes", "used"), [([3] * 12, 1), (list(range(6)) * 2, 6)])
def test_perplexity_of_uniform_use_is_the_number_of_codes(codes, used):
    found = codebook_usage(torch.tensor(codes).view(3, 2, 2), 6)
    assert found["perplexity"] == pytest.approx(used)
    assert found["codebook_usage"] == pytest.approx(used / 6)


def test_frequencies_are_sorted_shares():
    found = code_frequency(torch.tensor([2, 2, 0, 2, 1, 0, 2, 2]).view(2, 2, 2), 5)
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


class HandMadePrior:
    """p(z|c): both codes equal to c with 0.6, else one of the others with (1 − 0.6) / 3."""

    n_classes, codebook_size = 2, 2

    def log_prob(self, codes, classes):
        equal = (codes[:, 0] == classes[:, None]).all(1)
        return torch.where(equal, *torch.tensor([0.6, 0.4 / 3], dtype=torch.float64)).log()

    def begin(self, classes):
        return classes.new_zeros(len(classes), 0), classes

    def next_log_probs(self, prefixes):
        """From the sums of log_prob over all codes that begin so."""
        codes, classes = prefixes
        every = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        p = torch.stack([self.log_prob(every[:, None], c.expand(4)).exp() for c in classes])
        if codes.shape[1] == 0:
            return p.unflatten(1, (2, 2)).sum(2).log()
        of_first = p.unflatten(1, (2, 2))[torch.arange(len(codes)), codes[:, 0]]
        return (of_first / of_first.sum(1, keepdim=True)).log()

    def extend(self, prefixes, parents, codes):
        return torch.cat([prefixes[0][parents], codes[:, None]], 1), prefixes[1][parents]


@pytest.mark.parametrize("rows", [1000, 3])
def test_teacher_row(x, monkeypatch, rows):
    monkeypatch.setattr(teacher, "ROWS", rows)
    found = teacher_row(HandMadeVQVAE(), HandMadePrior(), x, 256)
    reconstruction, code = 0.0, 0.0
    for image in x.double().tolist():
        bright = [sum(image[:4]) / 4 > 0.5, sum(image[4:]) / 4 > 0.5]
        for d, value in enumerate(image):
            mean = 0.75 if bright[d // 4] else 0.25
            density = math.exp(-2 * (value - mean) ** 2) / (0.5 * math.sqrt(2 * math.pi))
            reconstruction += math.log(density) / len(x)
        equal = bright[0] == bright[1]
        code += math.log((0.6 + 0.4 / 3) / 2 if equal else 0.4 / 3) / len(x)
    assert found["n_images"] == 20
    assert found["code_log_prob"] == pytest.approx(code, rel=1e-9)
    bits = D * math.log(2)
    assert found["reconstruction_bpd"] == pytest.approx(-reconstruction / bits + 8, rel=1e-7)
    assert found["joint_bpd"] == pytest.approx(-(reconstruction + code) / bits + 8, rel=1e-7)


def test_the_joint_is_an_upper_bound_of_the_exact_model(x):
    """log p(x, z(x)) is one term of log Σ_z p(z) p(x|z)."""
    vqvae, prior = HandMadeVQVAE(), HandMadePrior()
    every = torch.tensor([[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]])
    p = torch.stack([prior.log_prob(every, torch.full((4,), c)) for c in (0, 1)]).exp().mean(0)
    exact = Mixture(p.log(), *vqvae.decode(every))
    bpd = -exact.log_prob(x).mean().item() / (D * math.log(2)) + 8
    found = teacher_row(vqvae, prior, x, 256)
    assert bpd < found["joint_bpd"]
    assert found["reconstruction_bpd"] < found["joint_bpd"]
